"""FDAT against spandrel's class, against float64 and against its own state dict."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from fdat_dense_iso.arch.errors import ModelLoadError
from fdat_dense_iso.arch.fdat.architecture import FDATArch, InferenceFDAT
from fdat_dense_iso.arch.fdat.checkpoint import infer_config
from fdat_dense_iso.arch.fdat.config import PRESETS, FDATConfig
from fdat_dense_iso.arch.fdat.upsampler import UPSAMPLER_TYPES, DySample
from tests.helpers.fdat_cases import SMALL, UPSAMPLER_SCALES, random_fdat, randomise, small
from tests.helpers.sampling import sampled
from tests.helpers.spandrels_fdat import spandrels_fdat

# What spandrel 0.4.2 can't run: dysample pins memory, which needs a GPU.
SPANDREL_RUNS = [(u, s) for u, s in UPSAMPLER_SCALES if u != "dysample" or s == 1]
SIZES = [(16, 16), (13, 21), (1, 9), (24, 8)]


def spandrel_twin(config: FDATConfig) -> nn.Module:
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    values["group_block_pattern"] = list(config.group_block_pattern)
    return spandrels_fdat().FDAT(**values)


def picture(
    height: int, width: int, channels: int = 3, batch: int = 1, dtype: torch.dtype = torch.float32
):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64).to(
        dtype
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("upsampler", "scale"), SPANDREL_RUNS)
@pytest.mark.every(5)
def test_equals_spandrel(upsampler: str, scale: int, size: tuple[int, int]) -> None:
    reference = randomise(spandrel_twin(small(upsampler, scale)))
    state_dict = reference.state_dict()
    before = {key: value.clone() for key, value in state_dict.items()}
    descriptor = FDATArch().load(state_dict)
    assert list(state_dict) == list(before) and all(
        torch.equal(state_dict[k], before[k]) for k in before
    )
    batch = 1 if upsampler == "lda" else 2  # spandrel's lda can't take a batch
    image = picture(*size, batch=batch)
    with torch.inference_mode():
        expected, got = reference(image), descriptor.model.eval()(image)
    assert got.shape == (batch, 3, size[0] * scale, size[1] * scale)
    assert (got - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(
    "upsampler", ["pixelshuffledirect", "pixelshuffle", "nearest+conv", "transpose+conv", "pa_up"]
)
def test_unshuffle_equals_spandrel(upsampler: str, scale: int) -> None:
    config = small(upsampler, scale, unshuffle_mod=True)
    reference = randomise(spandrel_twin(config))
    descriptor = FDATArch().load(reference.state_dict())
    assert descriptor.scale == scale and "unshuffle" in descriptor.tags
    image = picture(19, 30)
    with torch.inference_mode():
        assert (descriptor.model.eval()(image) - reference(image)).abs().max() <= 1e-5


@pytest.mark.parametrize("preset", ["tiny", "light", "medium"])
def test_preset_equals_spandrel(preset: str) -> None:
    reference = randomise(spandrel_twin(PRESETS[preset]))
    ours = FDATArch().load(reference.state_dict()).model.eval()
    image = picture(24, 17)
    with torch.inference_mode():
        expected = reference(image)
        assert (ours(image) - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


PARAMETERS = {  # with transpose+conv, by scale; x3 is what traiNNer-redux reports
    "tiny": {3: 859_779, 4: 1_009_347},
    "light": {3: 1_720_467, 4: 1_909_467},
    "medium": {3: 3_797_583, 4: 4_030_623},
    "large": {3: 10_599_219, 4: 11_121_579},
    "xl": {3: 22_596_459, 4: 23_118_819},
}


@pytest.mark.parametrize(
    ("preset", "scale", "parameters"),
    [(p, s, n) for p, c in PARAMETERS.items() for s, n in c.items()],
)
def test_parameter_counts(preset: str, scale: int, parameters: int) -> None:
    with torch.device("meta"):
        model = InferenceFDAT(replace(PRESETS[preset], scale=scale))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("upsampler", "scale"), sampled(UPSAMPLER_SCALES, lambda case: case[1] <= 2)
)
def test_fp32_against_float64(upsampler: str, scale: int) -> None:
    model = random_fdat(small(upsampler, scale))
    image = picture(11, 26)
    with torch.inference_mode():
        got = model(image)
        expected = model.double()(image.double())
    assert (got - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


def dysample_reference(module: DySample, x: torch.Tensor) -> torch.Tensor:
    """Every output pixel by explicit bilinear interpolation at clamped coordinates (loops over
    groups only)."""
    batch, channels, height, width = x.shape
    s, groups = module.scale, module.groups
    offset = module.offset(x) * module.scope(x).sigmoid() * 0.5
    offset = offset.view(batch, 2, groups, s, s, height, width)
    output = x.new_zeros(batch, channels, height * s, width * s)
    rows = torch.arange(height * s)
    columns = torch.arange(width * s)
    centre_y = ((rows.double() + 0.5) / s - 0.5)[:, None]
    centre_x = ((columns.double() + 0.5) / s - 0.5)[None]
    b = torch.arange(batch)[:, None, None]

    def take(part: torch.Tensor, yy: torch.Tensor, xx: torch.Tensor) -> torch.Tensor:
        return part.movedim(1, -1)[b, yy, xx].movedim(-1, 1)

    for group in range(groups):
        part = offset[
            :,
            :,
            group,
            rows[:, None] % s,
            columns[None] % s,
            rows[:, None] // s,
            columns[None] // s,
        ]
        px = (centre_x + part[:, 0]).clamp(0, width - 1)
        py = (centre_y + part[:, 1]).clamp(0, height - 1)
        x0, y0 = px.floor().long(), py.floor().long()
        x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
        fx, fy = px - x0, py - y0
        own = slice(group * channels // groups, (group + 1) * channels // groups)
        top = take(x[:, own], y0, x0) * (1 - fx)[:, None] + take(x[:, own], y0, x1) * fx[:, None]
        bottom = take(x[:, own], y1, x0) * (1 - fx)[:, None] + take(x[:, own], y1, x1) * fx[:, None]
        output[:, own] = top * (1 - fy)[:, None] + bottom * fy[:, None]
    return module.end_conv(output)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_dysample_against_explicit_interpolation(scale: int) -> None:
    torch.manual_seed(scale)
    module = DySample(16, 3, scale).double()
    torch.nn.init.normal_(module.scope.weight)
    torch.nn.init.normal_(module.offset.weight)
    x = picture(7, 10, channels=16, batch=2, dtype=torch.float64)
    with torch.inference_mode():
        # the buffer of sub-pixel centres is float32, so thirds are off by 1e-8
        assert (module(x) - dysample_reference(module, x)).abs().max() <= (
            1e-7 if scale == 3 else 1e-12
        )


@pytest.mark.parametrize("upsampler", ["dysample", "lda"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_drift_to_the_right(upsampler: str, dtype: torch.dtype) -> None:
    """Only the features are rounded: the error at the right edge of a wide image is no larger than
    on the left."""
    module = randomise(InferenceFDAT(small(upsampler, 2))).upsampler
    x = picture(4, 1024, channels=24, dtype=dtype)
    with torch.inference_mode():
        got = module.to(dtype)(x).double()
        expected = module.double()(x.double())
    error = (got - expected).abs().mean((0, 1, 2))
    assert error[-256:].mean() <= 1.5 * error[:256].mean() + 1e-6
    assert error.mean() <= (0.02 if dtype == torch.bfloat16 else 0.003) * expected.abs().mean()


CONFIGS = [
    *PRESETS.values(),
    *(replace(PRESETS["medium"], upsampler_type=u, scale=s) for u, s in UPSAMPLER_SCALES),
    *(replace(SMALL, upsampler_type=u, scale=s) for u, s in UPSAMPLER_SCALES),
    *(replace(SMALL, upsampler_type=u, scale=s, mid_dim=24) for u, s in UPSAMPLER_SCALES if s == 2),
    *(
        replace(SMALL, upsampler_type=u, scale=s, unshuffle_mod=True)
        for u in UPSAMPLER_TYPES[1:]
        for s in (1, 2)
    ),
    replace(SMALL, num_in_ch=1, num_out_ch=1),
    replace(SMALL, num_in_ch=4, num_out_ch=4, scale=1, upsampler_type="conv"),
    replace(
        SMALL,
        num_in_ch=1,
        num_out_ch=1,
        upsampler_type="pixelshuffledirect",
        unshuffle_mod=True,
        scale=2,
    ),
    replace(SMALL, num_groups=5, depth_per_group=3, num_heads=6),
    replace(SMALL, window_size=4),
    replace(SMALL, window_size=12, aim_reduction_ratio=4),
    replace(SMALL, embed_dim=108, num_heads=4, ffn_expansion_ratio=1.7),
    replace(SMALL, embed_dim=180, num_heads=6, ffn_expansion_ratio=2.66, aim_reduction_ratio=16),
    replace(SMALL, group_block_pattern=("channel", "spatial"), depth_per_group=2),
    replace(SMALL, group_block_pattern=("spatial",), depth_per_group=3),
    replace(SMALL, group_block_pattern=("channel",)),
    replace(SMALL, group_block_pattern=("spatial", "spatial", "channel")),
    replace(SMALL, embed_dim=320, num_heads=8),
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: f"{c.embed_dim}-{c.upsampler_type}-x{c.scale}"
)
@pytest.mark.every(5)
def test_infer_config_round_trip(config: FDATConfig) -> None:
    with torch.device("meta"):  # all but MetaUpsample, which has values
        state_dict = InferenceFDAT(config).state_dict()
    inferred = infer_config(state_dict)
    assert replace(inferred, drop_path_rate=config.drop_path_rate) == config


NOT_IN_SHAPES = {("lda", 2), ("lda", 3), ("lda", 4), ("lda", 8), ("pa_up", 2), ("pa_up", 3)}
NOT_IN_SHAPES |= {("nearest+conv", 2), ("nearest+conv", 3)}


@pytest.mark.parametrize(("upsampler", "scale"), [case for case in UPSAMPLER_SCALES if case[1] > 1])
@pytest.mark.every(4)
def test_without_meta_upsample(upsampler: str, scale: int) -> None:
    """The upsampler is told from its shapes; where they leave the scale open, the error names the
    option."""
    model = random_fdat(small(upsampler, scale))
    state_dict = {k: v for k, v in model.state_dict().items() if k != "upsampler.MetaUpsample"}
    assert FDATArch().detect(state_dict)
    if (upsampler, scale) in NOT_IN_SHAPES:
        with pytest.raises(ModelLoadError, match="scale="):
            FDATArch().load(state_dict)
        descriptor = FDATArch().load(state_dict, scale=scale)
    else:
        descriptor = FDATArch().load(state_dict)
    assert (descriptor.scale, descriptor.model.config.upsampler_type) == (scale, upsampler)
    image = picture(9, 8)
    with torch.inference_mode():
        assert torch.equal(descriptor.model.eval()(image), model(image))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_pa_up_reloads_its_own_file(scale: int) -> None:
    """spandrel 0.4.2 stores mid_dim where embed_dim belongs, so its files don't load there; both
    kinds load here."""
    config = small("pa_up", scale)
    theirs = randomise(spandrel_twin(config)).state_dict()
    assert theirs["upsampler.MetaUpsample"][3] == config.mid_dim != config.embed_dim
    assert FDATArch().load(theirs).model.config.embed_dim == config.embed_dim
    ours = random_fdat(config)
    reloaded = spandrels_fdat().FDATArch().load(dict(ours.state_dict())).model.eval()
    image = picture(12, 9)
    with torch.inference_mode():
        assert (reloaded(image) - ours(image)).abs().max() <= 1e-5


@pytest.mark.parametrize("scale", [2, 4])
def test_conv_that_claims_a_scale_is_x1(scale: int) -> None:
    reference = randomise(spandrel_twin(small("conv", 1)))
    state_dict = reference.state_dict()
    state_dict["upsampler.MetaUpsample"] = torch.tensor(
        [3, 0, scale, 24, 3, 16, 4], dtype=torch.uint8
    )
    descriptor = FDATArch().load(state_dict)
    assert (descriptor.scale, descriptor.purpose) == (1, "Restoration")
    image = picture(10, 12)
    with torch.inference_mode():
        assert (descriptor(image) - reference(image).clamp(0, 1)).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (7, 5), (40, 1)], ids=str)
@pytest.mark.parametrize("unshuffle", [False, True])
def test_any_size_runs(size: tuple[int, int], unshuffle: bool) -> None:
    model = random_fdat(small("pixelshuffledirect", 1 if unshuffle else 3, unshuffle_mod=unshuffle))
    with torch.inference_mode():
        output = model(picture(*size, batch=2))
    assert output.shape == (2, 3, size[0] * model.config.scale, size[1] * model.config.scale)
    assert output.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    model = random_fdat(small("transpose+conv", 2))
    image = picture(32, 40)
    with torch.inference_mode():
        expected = model(image)
        got = model.to(dtype)(image.to(dtype)).float()
    relative = (got - expected).pow(2).mean().sqrt() / expected.std()
    assert relative <= (0.05 if dtype == torch.bfloat16 else 0.01)


def test_trains() -> None:
    """Every parameter that the forward pass uses gets a gradient, and a few steps lower the
    loss."""
    torch.manual_seed(0)
    model = InferenceFDAT(small("pixelshuffledirect", 2)).train()
    image = picture(16, 16, batch=4)
    target = torch.nn.functional.interpolate(image, scale_factor=2)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = (model(image) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    expected = {
        f"groups.{g}.blocks.{b}.inter.{gate}.weight"
        for g in range(2)
        for b, gates in ((0, ["sg.0"]), (1, ["cg.1", "cg.3"]))
        for gate in gates
    }
    assert unused == expected


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    from fdat_dense_iso.arch.fdat.network import DropPath

    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    output = drop(torch.ones(4000, 2, 3))
    per_sample = output.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert per_sample[:, 0].unique().tolist() == pytest.approx([0, 4 / 3])
    assert abs(per_sample.mean().item() - 1) < 0.05
    assert torch.equal(drop.eval()(output), output)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"upsampler_type": "bicubic"}, "unknown upsampler_type 'bicubic'"),
        ({"upsampler_type": "conv", "scale": 2}, "scale must be 1"),
        ({"upsampler_type": "pixelshuffle", "scale": 5}, "supports scales 3 and powers of two"),
        ({"upsampler_type": "transpose+conv", "scale": 8}, "supports scales 2, 3 and 4"),
        ({"upsampler_type": "lda", "mid_dim": 12}, "multiple of 8"),
        ({"upsampler_type": "dysample", "mid_dim": 18}, "multiple of 4"),
        ({"num_heads": 5}, "not a multiple of num_heads"),
        ({"scale": 4, "unshuffle_mod": True}, "scales 1 and 2"),
        ({"num_groups": 0}, "at least 1"),
        ({"group_block_pattern": ("window",)}, "may hold"),
    ],
)
def test_impossible_configurations(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **fields)


@pytest.mark.parametrize(
    "damage",
    [
        lambda sd: sd.pop("conv_after.weight"),
        lambda sd: sd.update(
            {"upsampler.MetaUpsample": torch.tensor([3, 99, 2, 24, 3, 16, 4], dtype=torch.uint8)}
        ),
        lambda sd: sd.update({"groups.0.blocks.1.ffn.fc2.weight": torch.zeros(3, 3)}),
        lambda sd: sd.update({"extra.weight": torch.zeros(3)}),
    ],
)
def test_damaged_state_dicts_are_refused(damage) -> None:
    state_dict = dict(random_fdat().state_dict())
    damage(state_dict)
    with pytest.raises((ModelLoadError, RuntimeError, KeyError)):
        FDATArch().load(state_dict)
