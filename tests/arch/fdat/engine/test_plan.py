"""The plan: its memory against what is really alive, its floor, and that interrupting leaves
nothing behind."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fdat_dense_iso.arch.fdat.config import PRESETS, FDATConfig
from fdat_dense_iso.arch.fdat.engine import run as fdat_engine
from fdat_dense_iso.arch.fdat.engine.maps import FeatureMap
from fdat_dense_iso.arch.fdat.engine.plan import make_plan
from fdat_dense_iso.arch.fdat.engine.weights import packed_weights
from tests.helpers.fdat_cases import SMALL, random_fdat, small

CPU = torch.device("cpu")
MIB = 2**20


class LiveBytes(TorchDispatchMode):
    """Peak of the bytes that tensors made inside hold."""

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[int, list[int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if (
                isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
            ):  # else weights, packed by oneDNN
                self._watch(tensor)
        return result

    def _watch(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        entry = self.users.setdefault(key, [0, storage.nbytes()])
        if entry[0] == 0:
            self.now += entry[1]
            self.peak = max(self.peak, self.now)
        entry[0] += 1
        weakref.finalize(tensor, self._forget, key)

    def _forget(self, key: int) -> None:
        entry = self.users[key]
        entry[0] -= 1
        if entry[0] == 0:
            self.now -= entry[1]
            del self.users[key]


def live_peak(
    config: FDATConfig, height: int, width: int, dtype: torch.dtype, **options: object
) -> tuple[int, int]:
    """Bytes alive at the peak, weights aside, and what the plan says of them (it asks for more, for
    the heap)."""
    model = random_fdat(config)
    plan = model.exact_engine.plan(1, height, width, dtype=dtype, device="cpu", **options)
    image = torch.rand(1, 3, height, width)
    packed_weights(model, dtype, CPU)
    with torch.inference_mode(), LiveBytes() as live:
        model.exact_engine.run(image, plan, lambda top, rows: None)
    return live.peak, plan.resident_bytes + plan.workspace


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block that settles the heap is never written to, so it takes no memory: it is not
    counted."""
    monkeypatch.setattr(fdat_engine, "keep_freed_memory", lambda: None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(64, 96), (200, 64)], ids=str)
@pytest.mark.parametrize("preset", ["tiny", "medium", "large"])
@pytest.mark.every(5)
def test_memory_of_presets(preset: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    config = replace(PRESETS[preset], num_groups=1, depth_per_group=1)
    peak, required = live_peak(config, *size, dtype, band=16)
    assert peak <= 1.05 * required and required <= 1.15 * peak


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    "upsampler", ["pixelshuffledirect", "pixelshuffle", "nearest+conv", "dysample", "lda", "pa_up"]
)
@pytest.mark.every(5)
def test_memory_of_upsamplers(upsampler: str, scale: int) -> None:
    config = replace(
        PRESETS["tiny"], upsampler_type=upsampler, scale=scale, num_groups=1, depth_per_group=1
    )
    peak, required = live_peak(config, 96, 64, torch.float32, band=8)
    assert peak <= 1.1 * required and required <= 1.5 * peak


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_smaller_plans_end_at_a_floor(device: str) -> None:
    plan = make_plan(
        PRESETS["tiny"], 1, 512, 768, dtype=torch.float16, device=torch.device(device), band=64
    )
    plans = [plan]
    while (smaller := plans[-1].smaller()) is not None:
        plans.append(smaller)
    required = [p.memory_required for p in plans]
    assert required == sorted(required, reverse=True) and len(set(required)) == len(required)
    bands, hosted = [64, 32, 16, 8], [False] * 4
    if device == "cuda":
        bands, hosted = [*bands, 8], [*hosted, True]
        assert plans[-1].host_memory_required == 512 * 768 * 2 * 96 * 4
        assert plans[-1].memory_required < 0.1 * required[-2]
    assert [p.band for p in plans] == bands and [p.host_maps for p in plans] == hosted


@pytest.mark.parametrize(
    ("preset", "changes", "width", "band"),
    [
        ("tiny", {}, 256, 80),
        ("medium", {}, 256, 48),
        ("large", {}, 256, 32),
        ("large", {}, 600, 16),
        ("large", {}, 4000, 8),  # one row of windows is the least
        ("tiny", {"window_size": 64}, 4000, 64),
        ("tiny", {"ffn_expansion_ratio": 0.25}, 256, 120),  # C is wider than the hidden width
        ("tiny", {"unshuffle_mod": True, "scale": 2}, 512, 80),
    ],
)
def test_bands_on_a_cpu_by_bytes(preset: str, changes: dict, width: int, band: int) -> None:
    config = replace(PRESETS[preset], **changes)
    plan = make_plan(config, 1, 256, width, dtype=torch.float32, device=CPU)
    assert plan.band == band
    widest = max(config.ffn_dim, config.embed_dim) * plan.columns * 4
    assert band * widest <= 16 * MIB or band == config.window_size  # within what the heap keeps


def test_available_memory_decides() -> None:
    def plan(available: int | None):  # type: ignore[no-untyped-def]
        return make_plan(
            PRESETS["tiny"],
            1,
            2048,
            2048,
            dtype=torch.float16,
            device=torch.device("cuda"),
            available=available,
        )

    unlimited = plan(None)
    assert not unlimited.host_maps
    tight = plan(unlimited.memory_required - 1)
    assert (
        tight.band < unlimited.band
        and not tight.host_maps
        and tight.memory_required < unlimited.memory_required
    )
    streamed = plan(1024 * MIB)
    assert streamed.host_maps and streamed.memory_required <= 1024 * MIB
    assert plan(1).memory_required > 1  # the floor, for the caller to refuse


def test_memory_grows_with_the_maps_only() -> None:
    """Beyond one band, height adds maps and nothing else; half-precision maps halve that."""
    plans = {
        (height, dtype): make_plan(
            SMALL, 1, height, 64, dtype=torch.float32, device=CPU, band=16, map_dtype=dtype
        )
        for height in (256, 512)
        for dtype in (torch.float32, torch.float16)
    }
    for dtype, size in ((torch.float32, 4), (torch.float16, 2)):
        growth = plans[512, dtype].memory_required - plans[256, dtype].memory_required
        assert growth == 256 * 64 * (2 * SMALL.embed_dim * size + 3 * 4)  # maps, and the image


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "has no pixels"),
        ({"batch": 0}, "has no pixels"),
        ({"band": 0}, "at least 1 row"),
    ],
)
def test_impossible_plans(options: dict, message: str) -> None:
    sizes = {
        "batch": 1,
        "height": 8,
        "width": 8,
        **{k: v for k, v in options.items() if k != "band"},
    }
    with pytest.raises(ValueError, match=message):
        make_plan(SMALL, **sizes, dtype=torch.float32, device=CPU, band=options.get("band"))


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("upsampler", ["transpose+conv", "dysample", "lda"])
@pytest.mark.parametrize("moment", [1, 9, -1])
@pytest.mark.every(4)
def test_interrupt_leaves_nothing_behind(
    upsampler: str, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps: list[weakref.ref] = []

    class Watched(FeatureMap):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            maps.append(weakref.ref(self.tensor))

    monkeypatch.setattr(fdat_engine, "FeatureMap", Watched)
    engine = random_fdat(small(upsampler, 2)).exact_engine
    plan = engine.plan(2, 40, 24, dtype=torch.float32, device="cpu", band=8)

    def progress(done: int, total: int) -> None:
        if done == (moment if moment > 0 else total):
            raise Interrupted

    image = torch.rand(2, 3, 40, 24)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Interrupted):
            engine.run(image, plan, lambda top, rows: None, progress)
        assert maps and all(reference() is None for reference in maps)
    finally:
        gc.enable()
    engine.run(image, plan, lambda top, rows: None)
