"""The first bytes tell what a file is, whatever it is called. The files of other programs are
written byte by byte as their specifications say."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save, save_file

from fdat_dense_iso.arch import ModelLoadError, files, load_model
from fdat_dense_iso.arch.fdat.network import FDAT
from tests.helpers.fdat_cases import random_fdat
from tests.helpers.pickles import pickles

NAMES = ["model.pth", "model.safetensors", "model.bin", "model.pth.tar", "model", "model.onnx"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind",
    [
        "safetensors",
        *(pytest.param(kind, marks=pickles) for kind in ("torch.save", "old torch.save")),
    ],
)
def test_names_do_not_matter(tmp_path: Path, kind: str, name: str) -> None:
    state_dict = random_fdat().state_dict()
    if kind == "safetensors":
        save_file(state_dict, tmp_path / name)
    else:
        torch.save(
            state_dict,
            tmp_path / name,
            _use_new_zipfile_serialization=kind == "torch.save",
        )
    model = load_model(tmp_path / name)
    assert isinstance(model.model, FDAT)
    assert torch.equal(model.model.conv_after.weight, state_dict["conv_after.weight"])


def zipped(**contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    numpy.savez(buffer, weight=numpy.zeros(3))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def torch_script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    # ModelProto: ir_version 8, producer_name "pytorch"
    "ONNX": (lambda: b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x00", "an ONNX model"),
    # ModelProto: ir_version 10, an opset_import of 17 first
    "ONNX of another program": (lambda: b"\x08\x0a\x42\x04\x0a\x00\x10\x11" * 3, "an ONNX model"),
    # schema version 1 and a message (of TensorFlow), version 4 and a long one (of Core ML)
    "TensorFlow": (lambda: b"\x08\x01\x12\x20\x0a\x1e" + bytes(64), "TensorFlow or Core ML"),
    "Core ML": (lambda: b"\x08\x04\x12\x82\x01\x0a\x30" + bytes(64), "TensorFlow or Core ML"),
    "ncnn": (lambda: b"7767517\n12 13\nInput data 0 1 data\n", "a network for ncnn"),
    "ncnn's weights": (lambda: bytes.fromhex("476b3001") + bytes(64), "weights for ncnn"),
    "TorchScript": (torch_script, "TorchScript archives hold code and are not loaded"),
    "Keras": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "GGUF": (lambda: b"GGUF\x03\0\0\0" + bytes(64), "GGUF"),
    "TensorFlow Lite": (lambda: b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
    "TensorRT": (lambda: b"ftrt" + bytes(64), "TensorRT engine"),
    "NumPy": (arrays, r"NumPy arrays"),
    "gzip": (lambda: gzip.compress(save({"a": torch.zeros(9)})), "gzip archive; unpack it"),
    "tar": (tar, "tar archive; unpack it"),
    "zip": (lambda: zipped(model=b"x"), "a zip archive"),
    "PNG": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(64), "a PNG picture"),
    "a page": (lambda: b"\n <HTML><body>no such file", "a web page"),
    "JSON": (lambda: b'{"error": "Invalid username or password."}', "a text"),
    "letters": (lambda: "ключ: значение".encode() * 99, "a text"),
    "noise": (lambda: bytes(range(130, 256)) * 9, "of no kind known here"),
}


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model"])
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore")
def test_what_can_not_be_loaded_says_what_it_is(tmp_path: Path, kind: str, name: str) -> None:
    make, message = OTHERS[kind]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(ModelLoadError, match=rf"{name}: .*{message}"):
        load_model(tmp_path / name)


def test_old_torch_refuses_pickles_and_reads_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 2.6, files of torch.save can run code in spite of weights_only (CVE-2025-32434)."""
    torch.save(random_fdat().state_dict(), tmp_path / "model.pth")
    save_file(random_fdat().state_dict(), tmp_path / "model.safetensors")

    def unpickle(*_: object, **__: object) -> None:
        raise AssertionError("it was unpickled")

    version = torch.torch_version.TorchVersion("2.5.1+cpu")
    monkeypatch.setattr(files.torch, "__version__", version)
    monkeypatch.setattr(files.torch, "load", unpickle)
    with pytest.raises(
        ModelLoadError, match=r"torch 2\.5\.1.*install torch 2\.6 or newer, or convert"
    ):
        load_model(tmp_path / "model.pth")
    assert isinstance(load_model(tmp_path / "model.safetensors").model, FDAT)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
def test_what_is_no_file(tmp_path: Path) -> None:
    """It is not waited for either."""
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    for name, what in {"pipe": "a pipe, a device", "loop": "a link that leads nowhere"}.items():
        with pytest.raises(ModelLoadError, match=f"{name}.pth: {what}"):
            load_model(tmp_path / f"{name}.pth")
