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
from fdat_dense_iso.arch.fdat.engine import plan as plan_module
from fdat_dense_iso.arch.fdat.engine import run as fdat_engine
from fdat_dense_iso.arch.fdat.engine.maps import FeatureMap
from fdat_dense_iso.arch.fdat.engine.plan import Plan, make_plan
from fdat_dense_iso.arch.fdat.engine.weights import packed_weights
from fdat_dense_iso.arch.fdat.gpu import memory
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


@pytest.mark.parametrize("upsampler", ["lda", "transpose+conv", "dysample"])
def test_the_tail_gets_the_maps_that_are_done_with(
    upsampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other devices than a CPU its bands are larger for it, within the same memory."""
    monkeypatch.setattr(Plan, "fused", True)
    config = replace(
        PRESETS["tiny"], upsampler_type=upsampler, scale=4, num_groups=1, depth_per_group=1
    )
    peak, required = live_peak(config, 192, 64, torch.float32, band=64)
    assert peak <= 1.1 * required
    plan = random_fdat(config).exact_engine.plan(
        1, 192, 64, dtype=torch.float32, device="cpu", band=64
    )
    alone = plan.sweep_workspace // plan.tail_row_bytes
    assert plan.tail_band == 64 or plan.tail_band >= 1.4 * alone


def smaller_plans(device: str, height: int, width: int, band: int) -> list[Plan]:
    """A plan and all that follow it after running out of memory, each smaller than the last."""
    plan = make_plan(
        PRESETS["tiny"],
        1,
        height,
        width,
        dtype=torch.float16,
        device=torch.device(device),
        band=band,
    )
    plans = [plan]
    while (smaller := plans[-1].smaller()) is not None:
        plans.append(smaller)
    required = [p.memory_required for p in plans]
    assert required == sorted(required, reverse=True) and len(set(required)) == len(required)
    return plans


def test_smaller_plans_end_at_a_floor() -> None:
    plans = smaller_plans("cpu", 512, 768, 64)
    assert [p.band for p in plans] == [64, 32, 16, 8] and not any(p.host_maps for p in plans)


def test_maps_are_streamed_before_bands_get_short() -> None:
    """Bands end near 2**16 tokens on the device; beside streamed maps there is room again."""
    plans = smaller_plans("cuda", 2048, 4096, 256)
    bands = [(p.band, p.host_maps) for p in plans]
    assert bands[:5] == [(256, False), (128, False), (64, False), (32, False), (16, False)]
    grown = bands[5][0]
    assert grown > 16 and all(hosted for _, hosted in bands[5:])
    assert [band for band, _ in bands[5:]] == [grown >> i for i in range(len(bands) - 5)]
    assert bands[-1] == (8, True) and plans[-1].memory_required < 0.1 * plans[0].memory_required
    # two maps, each pinned in a block that is a power of two
    assert plans[-1].host_memory_required == 2 * 2**31 >= 2 * 2048 * 4096 * 96 * 2


@pytest.mark.parametrize(("gibibytes", "most"), [(24, 16), (6, 16), (3, 16), (1, 64)])
def test_bands_on_a_gpu_by_free_memory(gibibytes: int, most: int) -> None:
    """Medium on 2160x3840 pixels in float16: no cliff, however little memory there is."""
    plan = make_plan(
        PRESETS["medium"],
        1,
        2160,
        3840,
        dtype=torch.float16,
        device=torch.device("cuda"),
        available=gibibytes * 2**30,
    )
    assert plan.bands <= most and plan.memory_required <= gibibytes * 2**30
    assert plan.memory_required >= 0.3 * min(gibibytes, 6) * 2**30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("preset", ["tiny", "large"])
@pytest.mark.every(3)
def test_memory_of_fused_sweeps(
    preset: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twins' bytes; the plan also has room for the check of the kernels at their first use."""
    monkeypatch.setattr(Plan, "fused", True)
    monkeypatch.setattr(memory, "CHECKED_TOKENS", 0)
    monkeypatch.setattr(plan_module, "HEAP_SHARE", 0)
    config = replace(PRESETS[preset], num_groups=1, depth_per_group=1)
    peak, required = live_peak(config, 96, 64, dtype, band=48, map_dtype=dtype)
    assert peak <= 1.05 * required


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
