"""The inference engine against the plain network: folded heads exact up to the borders, parts equal
to crops."""

from __future__ import annotations

import copy
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from fdat_dense_iso.arch.dense_iso.config import (
    ACTIVATIONS,
    DenseIsoViTConfig,
    HeadLayer,
    pixel_shuffle_head,
)
from fdat_dense_iso.arch.dense_iso.engine.fold import fold_head
from fdat_dense_iso.arch.dense_iso.engine.run import InferenceDenseIsoViT
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.dense_iso.reading.options import activations
from fdat_dense_iso.arch.kernels.onednn import has_internal_operators
from fdat_dense_iso.common.dry_run import working_bytes


def layers(*items: dict) -> tuple[HeadLayer, ...]:
    return tuple(HeadLayer(**item) for item in items)


def with_activation(head: tuple[HeadLayer, ...], name: str, place: str) -> tuple[HeadLayer, ...]:
    names = activations(head, (name,), place)
    return tuple(
        HeadLayer(**{**vars(layer), "activation": name}) for layer, name in zip(head, names)
    )


LINEAR = pixel_shuffle_head(fusion_width=16, widths=(16, 18, 17, 16))
# head, index of the first folded layer
HEADS = {
    "linear": (LINEAR, 1),
    "activation after fusion": (with_activation(LINEAR, "gelu", "fusion"), 1),
    "activations between": (with_activation(LINEAR, "relu", "between"), 4),
    "activations everywhere": (with_activation(LINEAR, "silu", "all"), None),
    "no tail": (layers({"channels": 32}, *[{"channels": 128, "shuffle": 2}] * 3, {"channels": 12, "shuffle": 2}), 1),
    "x3 and x2": (layers({"channels": 20, "kernel": 1}, {"channels": 180, "shuffle": 3},
                         {"channels": 80, "shuffle": 2, "bias": False}, {"channels": 80, "shuffle": 2},
                         {"channels": 3, "kernel": 1}), 1),
    "wide enough for Winograd": (
        with_activation(pixel_shuffle_head(fusion_width=64, widths=(64, 16, 64, 64)), "leaky_relu_0.2", "all"), None),
    "1x1 kernels": (
        layers(
            {"channels": 24, "kernel": 1, "shuffle": 2},
            {"channels": 96, "kernel": 1, "shuffle": 4},
            {"channels": 12, "shuffle": 2},
        ),
        None,
    ),
    "refinement before the tail": (
        layers({"channels": 16}, *[{"channels": 64, "shuffle": 4}] * 2, {"channels": 8}, {"channels": 3}), None),
    "one convolution": (layers({"channels": 768, "shuffle": 16}), None),
    "5x5 tail": (
        layers({"channels": 16}, *[{"channels": 256, "shuffle": 4}] * 2, {"channels": 3, "kernel": 5}), None),
}  # fmt: skip


class PeakMemory(TorchDispatchMode):
    """Adds up the storages that operators make and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
        return result

    def free(self, identity: int, size: int) -> None:
        self.alive -= size
        self.known.discard(identity)


def random_(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) / math.sqrt(max(fan, 1))
            )
    return module.eval()


def pair(
    head: str | tuple[HeadLayer, ...], **changes: object
) -> tuple[DenseIsoViT, InferenceDenseIsoViT]:
    chosen = HEADS[head][0] if isinstance(head, str) else head
    fields = {
        "window": 16,
        "dims": (8, 12),
        "depths": (1, 2),
        "heads": (2, 3),
        "hidden": (16, 20),
        "head": chosen,
    }
    config = DenseIsoViTConfig(**{**fields, **changes})  # type: ignore[arg-type]
    plain = random_(DenseIsoViT(config)).double()
    engine = InferenceDenseIsoViT(config).double().eval()
    engine.load_state_dict(plain.state_dict())
    return plain, engine  # type: ignore[return-value]


@pytest.mark.parametrize("grid", [3, 4, 9])
@pytest.mark.parametrize("head", [name for name, (_, start) in HEADS.items() if start is not None])
def test_folded_head_is_exact_up_to_the_borders(head: str, grid: int) -> None:
    chosen, start = HEADS[head]
    channels, convolutions = 20, []
    for layer in chosen:
        convolutions.append(
            nn.Conv2d(
                channels, layer.channels, layer.kernel, padding=layer.kernel // 2, bias=layer.bias
            )
        )
        channels = layer.channels // layer.shuffle**2
    random_(nn.ModuleList(convolutions)).double()
    folded = fold_head(convolutions, chosen, grid)
    assert folded is not None and folded.start == start
    x = torch.randn(2, 20, grid, grid, dtype=torch.float64)
    entered = x
    with torch.no_grad():
        for i, (convolution, layer) in enumerate(zip(convolutions, chosen)):
            entered = x if i == start else entered
            x = ACTIVATIONS[layer.activation](F.pixel_shuffle(convolution(x), layer.shuffle))
        side = entered.shape[-1]
        out = folded(entered, ((0, side), (0, side)), ((0, side), (0, side)))
    assert folded.factor * side == x.shape[-1]
    assert float((out - x).abs().max()) <= 1e-10


@pytest.mark.parametrize("head", HEADS)
def test_engine_equals_the_plain_network(head: str) -> None:
    plain, engine = pair(
        head, layer_scale=head == "linear", value_range="-1..1" if head == "no tail" else "0..1"
    )
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        out = engine(image)
        assert (engine.prepare().folded is None) == (HEADS[head][1] is None)
        assert float((out - plain(image)).abs().max()) <= 1e-10


@pytest.mark.parametrize(
    "part", [((0, 64), (0, 64)), ((0, 40), (24, 64)), ((17, 18), (5, 59)), ((33, 47), (0, 1))]
)
@pytest.mark.parametrize(
    "head", ["linear", "activations between", "activations everywhere", "no tail", "5x5 tail"]
)
def test_parts_equal_crops(head: str, part: tuple[tuple[int, int], tuple[int, int]]) -> None:
    plain, engine = pair(head)
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    rows, columns = (slice(*span) for span in part)
    with torch.inference_mode():
        expected = plain(image)[:, :, rows, columns]
        torch.testing.assert_close(engine.part(image, *part), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("head", HEADS)
def test_every_window_has_a_part_of_its_own(head: str) -> None:
    plain, engine = pair(head, value_range="-1..1")
    image = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    places = [((0, 48), (0, 40)), ((0, 48), (0, 40)), ((9, 40), (24, 48)), ((9, 40), (3, 4))]
    with torch.inference_mode():
        expected, parts = plain(image), engine.parts(image, places)
    assert len(parts) == len(places)
    with (
        pytest.raises(ValueError, match="4 windows need as many places, found 3"),
        torch.inference_mode(),
    ):
        engine.parts(image, places[:3])
    for whole, part, (rows, columns) in zip(expected, parts, places):
        torch.testing.assert_close(
            part, whole[:, slice(*rows), slice(*columns)], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_folded_heads_by_products_of_patches(
    dtype: torch.dtype, tolerance: float, internal: bool
) -> None:
    """``internal`` False: by convolutions."""
    plain, engine = pair("linear")
    image = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=internal):
        if internal and not has_internal_operators(dtype, image.device):
            pytest.skip("this build of torch, or this processor, has no oneDNN for it")
        expected, out = plain(image), engine.to(dtype)(image.to(dtype))
        folded = engine.prepare().folded
    assert folded is not None and bool(folded.products) == internal
    assert float((out - expected).pow(2).mean().sqrt() / expected.std()) <= tolerance


@pytest.mark.parametrize("rows", [1, 7, 32])
@pytest.mark.parametrize(
    "head", ["activations everywhere", "one convolution", "5x5 tail", "refinement before the tail"]
)
def test_bands_change_nothing(head: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdat_dense_iso.arch.dense_iso.engine.run.BAND", rows)
    plain, engine = pair(head)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(engine(image), plain(image), rtol=0, atol=1e-10)
        torch.testing.assert_close(
            engine.part(image, (9, 60), (3, 64)), plain(image)[:, :, 9:60, 3:64], rtol=0, atol=1e-10
        )


def test_less_is_computed_where_less_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine = pair("activations everywhere")
    convolved: list[int] = []
    original = F.conv2d

    def counting(x: Tensor, weight: Tensor, *args, **kwargs) -> Tensor:
        result = original(x, weight, *args, **kwargs)
        convolved.append(result[0].numel() * weight[0].numel())
        return result

    monkeypatch.setattr(F, "conv2d", counting)
    image, work = torch.rand(1, 3, 16, 16, dtype=torch.float64), []
    with torch.inference_mode():
        for part in ((0, 64), (16, 48)):
            convolved.clear()
            engine.part(image, part, part)
            work.append(sum(convolved))
    assert work[1] < 0.5 * work[0]


def test_runs_without_data() -> None:
    """Engines find out what a network needs by running it on the meta device."""
    engine = pair("linear")[1].to("meta")
    with torch.inference_mode():
        assert engine(torch.empty(2, 3, 16, 16, dtype=torch.float64, device="meta")).shape == (
            2,
            3,
            64,
            64,
        )


@pytest.mark.parametrize("change", ["load", "cast", "copy"])
def test_changed_weights_are_noticed(change: str) -> None:
    plain, engine = pair("linear")
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        engine(image)
    if change == "load":
        random_(plain, seed=1)
        engine.load_state_dict(plain.state_dict())
    elif change == "cast":
        plain, engine, image = plain.float(), engine.float(), image.float()
    else:
        engine = copy.deepcopy(engine)
        random_(engine, seed=2)
        plain.load_state_dict(engine.state_dict())
        engine.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(
            engine(image), plain(image), rtol=0, atol=1e-5 if change == "cast" else 1e-10
        )


def test_gradients_take_the_plain_path() -> None:
    plain, engine = pair("linear")
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    for network in (plain, engine):
        network(image).square().sum().backward()
    for expected, found in zip(plain.parameters(), engine.parameters()):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-12)
    part = engine.part(image, (3, 20), (0, 64))
    assert part.requires_grad
    torch.testing.assert_close(part, plain(image)[:, :, 3:20], rtol=0, atol=1e-12)


@pytest.mark.parametrize("intel", [True, False])
@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-5)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gated_half": "first", "layer_scale": True},
        {"projection": False, "projection_bias": False, "qkv_bias": False},
        {"g_proj_bias": False, "path_bias": False, "out_proj_bias": False},
    ],
)
def test_blocks_packed_for_onednn(
    changes: dict,
    dtype: torch.dtype,
    tolerance: float,
    internal: bool,
    intel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the plain blocks in float64; ``internal`` False: by public operators alone."""
    monkeypatch.setattr("fdat_dense_iso.arch.kernels.attention.is_intel", lambda: intel)
    plain, engine = pair("linear", **changes)
    x = torch.randn(2, 16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stage = engine.to(dtype).stages[0]
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=internal):
        if internal and not has_internal_operators(dtype, x.device):
            pytest.skip("this build of torch, or this processor, has no oneDNN for it")
        expected = plain.run_stage(plain.stages[0], x)
        out = engine.run_stage(stage, x.to(dtype))
    assert out.dtype == dtype and len(engine.prepare().blocks) == int(internal)
    assert float((out - expected).abs().max() / expected.abs().max()) <= tolerance


@pytest.mark.parametrize(
    "change",
    [
        "wrapped layer",
        "hook",
        "fused optimiser",
        "autocast",
        pytest.param("compiled", marks=pytest.mark.slow),
    ],
)
def test_what_packed_blocks_must_not_miss(change: str) -> None:
    plain, engine = (network.float() for network in pair("linear"))
    image, called = torch.rand(1, 3, 16, 16), []
    with torch.no_grad():
        engine(image)
    networks: list[nn.Module] = [plain, engine]
    for network in (plain, engine):
        attention = network.stages[0].blocks[0].attention
        if change == "wrapped layer":
            attention.qkv = nn.Sequential(attention.qkv, nn.Softsign())
        elif change == "hook":
            attention.register_forward_hook(lambda *_: called.append(1))
        elif change == "fused optimiser":
            optimizer = torch.optim.SGD(network.train().parameters(), 0.5, fused=True)
            network(image).square().mean().backward()
            optimizer.step()
            network.eval()
    if change == "compiled":
        networks = [plain, torch.compile(engine, backend="eager")]  # type: ignore[list-item]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast"):
        expected, out = (network(image) for network in networks)
    tolerance = 0.03 if change == "autocast" else 1e-5
    assert (out - expected).abs().max() <= tolerance * expected.abs().max().clamp(1)
    assert len(called) == (2 if change == "hook" else 0)


@pytest.mark.parametrize("activation", ["none", "gelu", "leaky_relu_0.2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_heads_in_every_precision(dtype: torch.dtype, activation: str) -> None:
    """Layers by Winograd's algorithm, with bias, activation and shuffling in one, beside direct
    ones."""
    head = with_activation(
        pixel_shuffle_head(fusion_width=64, widths=(64, 64, 16, 16)), activation, "all"
    )
    plain, engine = pair(head)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        expected = plain(image)[:, :, 5:60, 9:64]
        out = engine.to(dtype).part(image.to(dtype), (5, 60), (9, 64))
    error = (out - expected).pow(2).mean().sqrt() / (expected - expected.mean()).pow(
        2
    ).mean().sqrt()
    assert error <= (1e-5 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_half_precision_of_the_folded_head(dtype: torch.dtype, tolerance: float) -> None:
    plain, engine = pair("linear")
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        expected = plain.float()(image)
        out = engine.to(dtype)(image.to(dtype))
    assert out.dtype == dtype
    assert float((out.float() - expected).abs().mean() / expected.abs().mean()) < 4 * tolerance


@pytest.mark.parametrize(
    ("activation", "place"), [("none", "all"), ("gelu", "between"), ("gelu", "all")]
)
def test_memory_is_known_beforehand(activation: str, place: str) -> None:
    head = with_activation(pixel_shuffle_head(fusion_width=48, widths=(48,) * 4), activation, place)
    config = DenseIsoViTConfig(dims=(48, 64, 72, 96), heads=(2, 2, 2, 2), head=head)
    engine = InferenceDenseIsoViT(config).eval()
    image = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        engine(image)
        with PeakMemory() as memory:
            engine(image)
    found = working_bytes(engine, tuple(image.shape), torch.float32, 4, image.device)
    # A dry run knows nothing of oneDNN's fused operators, which the linear head's run here saves by.
    assert found / 2 <= memory.peak <= 1.25 * found
