"""Whole runs on "cuda" without a GPU, by torch's fake tensors: shapes and devices, but no values.

An operator that mixes devices raises an error there. What needs a value (`bool(tensor)`) is answered
by the test, which counts how often the host had to wait for the device.

Fake tensors on CUDA need a device guard, which a build of torch without CUDA lacks. Two lines of C++
add one that does nothing, so these tests need a compiler.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from spandrel import ImageModelDescriptor
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.upscale import pipeline, upscale_frames, upscale_image
from tests.helpers.paths import MODELS

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>)
"""
ATEN = torch.ops.aten
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="fakes a GPU; here is a real one")


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A device guard for CUDA, for the rest of the process."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder, root = tmp_path_factory.mktemp("guard"), Path(torch.__file__).parent
    (folder / "guard.cpp").write_text(GUARD)
    command = [compiler, "-shared", "-fPIC", "-std=c++20", f"-I{root / 'include'}", "guard.cpp"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    command += [f"-L{root / 'lib'}", "-lc10", "-o", "guard.so"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"cannot build a device guard: {built.stderr[-300:]}")
    torch.ops.load_library(folder / "guard.so")
    with FakeTensorMode():
        q = torch.empty(1, 1, 8, 8, device="cuda")
        try:
            F.scaled_dot_product_attention(q, q, q)
        except RuntimeError as error:  # builds for CUDA before 2.7
            pytest.skip(f"this torch asks the driver how attention is computed: {error}"[:120])


class FakeCuda(FakeTensorMode):
    """Answers questions for values: yes, or a half. It counts those that are asked of the device.

    waits: questions that were asked of tensors on "cuda". Copies to main memory are made in a thread
        of their own, and counted in test_transfer.py.
    used: operators that computed on "cuda".
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits, self.used = [], set()

    def dispatch(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_cuda = any(
            isinstance(leaf, Tensor) and leaf.device.type == "cuda"
            for leaf in tree_leaves((args, kwargs))
        )
        if on_cuda:
            self.used.add(str(func))
            if func in (ATEN._local_scalar_dense.default, ATEN.equal.default):
                self.waits.append(str(func))
        if func is ATEN._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 0.5
        if func is ATEN.equal.default:
            return False
        return super().dispatch(func, types, args, kwargs)


def replaced(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply`, which would swap fake tensors in place, where torch refuses it."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(fn(parameter), requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


class Inline(Executor):
    """Runs tasks at once, in the thread of the caller: a mode for fake tensors is no other's."""

    def submit(self, task: Callable, /, *args: object, **kwargs: object) -> Future:
        future: Future = Future()
        try:
            future.set_result(task(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "_apply", replaced)
    monkeypatch.setattr(pipeline, "thread_beside", lambda name, cores: Inline())


def fake_model(name: str, fake: FakeCuda) -> ImageModelDescriptor:
    """A bundled model whose tensors are fake ones on "cuda"."""
    model = load_model(MODELS / name)
    with fake:
        model.model._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device="cuda"))
    return model


class AlreadyThere:
    """The placement of a model that stays where it is: fake parameters cannot be moved."""

    device = torch.device("cuda")

    def auto_dtype(self, model: ImageModelDescriptor) -> torch.dtype:
        return torch.float32

    def prepare(
        self, model: ImageModelDescriptor, dtype: torch.dtype, memory_required: int
    ) -> ImageModelDescriptor:
        return model

    def available(self) -> int:
        return 2**34

    def is_out_of_memory(self, error: BaseException) -> bool:
        return False

    def release_cache(self) -> None: ...


def run(name: str, shape: tuple[int, ...], **options: object) -> FakeCuda:
    fake = FakeCuda()
    model = fake_model(name, fake)
    with fake:
        result = upscale_image(
            model, torch.rand(shape), placement=AlreadyThere(), border="model", **options
        )
    batch, height, width, channels = shape
    assert result.shape == (batch, height * model.scale, width * model.scale, channels)
    assert result.device.type == "cpu"
    assert any("conv" in op or "mm" in op for op in fake.used)  # it did compute there
    return fake


X2 = "fdat_demo_x2.safetensors"
DENSE = "dense_iso_demo_x4.safetensors"


def test_mixed_devices_would_be_noticed(guard):
    with FakeCuda(), pytest.raises(RuntimeError, match="device"):
        torch.ones(2) + torch.ones(2, device="cuda")


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "tile", "tile": 64},
        {"mode": "exact"},
        {"mode": "whole"},
        {"mode": "tile", "tile": 64, "ensemble": 8},
        {"mode": "exact", "seamless": "both"},
        {"mode": "tile", "tile": 64, "mask": torch.ones(1, 96, 80)},
        {"mode": "tile", "tile": 64, "colour_fix": "wavelet"},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("shape", [(1, 96, 80, 3), (2, 96, 80, 4)], ids=str)
def test_no_tensor_is_on_the_wrong_device(guard, options, shape):
    run(X2, shape, **options)


@pytest.mark.parametrize("mode", ["auto", "tile"])
def test_windows_are_computed_on_the_device(guard, mode):
    run(DENSE, (1, 96, 80, 3), mode=mode)


@pytest.mark.parametrize("mode", ["tile", "exact"])
def test_the_host_waits_as_often_for_a_large_picture_as_for_a_small_one(guard, mode):
    small = run(X2, (1, 64, 64, 3), mode=mode, tile=64)
    large = run(X2, (1, 256, 320, 3), mode=mode, tile=64)
    assert large.waits == small.waits
    assert len(small.waits) <= 2


def test_frames_are_computed_on_the_device(guard):
    fake, sizes = FakeCuda(), []
    model = fake_model(X2, fake)
    with fake:
        frames = (torch.rand(48, 64, 3) for _ in range(5))
        upscale_frames(
            model, frames, lambda p: sizes.append(p.shape), placement=AlreadyThere(), mode="whole"
        )
    assert sizes == [(96, 128, 3)] * 5
    assert fake.used
