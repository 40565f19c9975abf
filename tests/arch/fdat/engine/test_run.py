"""The exact engine against the plain network in float64, in every configuration and precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fdat_dense_iso.arch.fdat.architecture import InferenceFDAT
from fdat_dense_iso.arch.fdat.config import PRESETS, FDATConfig
from fdat_dense_iso.arch.fdat.engine import run as fdat_engine
from fdat_dense_iso.arch.fdat.engine.maps import HostMap
from fdat_dense_iso.arch.fdat.engine.statistics import GramStatistic
from fdat_dense_iso.arch.fdat.engine.weights import packed_weights, residual_dtype
from fdat_dense_iso.arch.fdat.network import FDAT
from fdat_dense_iso.arch.kernels.products import AddedProduct
from tests.helpers.fdat_cases import SMALL, UPSAMPLER_SCALES, random_fdat, small
from tests.helpers.sampling import sampled

SIZES = [(1, 16, 24), (2, 29, 21), (1, 1, 9), (1, 40, 5), (1, 9, 1)]


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values in [0, 1] whose statistics differ from top to bottom, as tiles of a real picture do;
    float64."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    brightness = torch.linspace(0.1, 1, shape[-2], dtype=torch.float64)[:, None]
    return noise * brightness


def run(model: FDAT, image: torch.Tensor, dtype: torch.dtype, **options: object) -> torch.Tensor:
    """The engine's rows, put together and checked for gaps and for the announced number of
    steps."""
    engine = model.exact_engine
    plan = engine.plan(
        image.shape[0], *image.shape[2:], **{"dtype": dtype, "device": "cpu", "band": 8, **options}
    )
    parts: list[torch.Tensor] = []
    steps: list[tuple[int, int]] = []

    def write(top: int, rows: torch.Tensor) -> None:
        assert top == sum(part.shape[2] for part in parts)
        assert rows.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
        parts.append(rows.clone())

    engine.run(image, plan, write, lambda done, total: steps.append((done, total)))
    assert steps == [(done, plan.steps) for done in range(1, plan.steps + 1)]
    return torch.cat(parts, 2)


def whole(model: FDAT, image: torch.Tensor) -> torch.Tensor:
    """The plain network in float64; the model itself is not touched."""
    twin = InferenceFDAT(model.config).double().eval()
    twin.load_state_dict(model.state_dict())
    with torch.inference_mode():
        return twin(image.double())


def assert_exact(config: FDATConfig, *shape: int, **options: object) -> None:
    model, image = random_fdat(config).double(), picture(*shape)
    expected, got = whole(model, image), run(model, image, torch.float64, **options)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-10


@pytest.mark.parametrize(
    ("upsampler", "scale"), sampled(UPSAMPLER_SCALES, lambda case: case[1] <= 3)
)
@pytest.mark.every(2)
def test_every_upsampler_and_size(upsampler: str, scale: int) -> None:
    for batch, height, width in SIZES:
        assert_exact(small(upsampler, scale), batch, 3, height, width)


@pytest.mark.parametrize(
    ("preset", "size"),
    sampled(
        [("tiny", (64, 64)), ("tiny", (27, 45)), ("medium", (19, 37)), ("large", (9, 26))],
        lambda case: case[0] != "large" and case[1] != (64, 64),
    ),
    ids=str,
)
def test_presets(preset: str, size: tuple[int, int]) -> None:
    assert_exact(PRESETS[preset], 1, 3, *size)


@pytest.mark.parametrize(
    "config",
    [
        *(
            replace(SMALL, upsampler_type=u, scale=s, unshuffle_mod=True)
            for u in ("pa_up", "lda", "dysample")
            for s in (1, 2)
        ),
        replace(SMALL, upsampler_type="lda", scale=3, mid_dim=24),
        replace(SMALL, upsampler_type="dysample", scale=2, mid_dim=24),
        replace(SMALL, num_in_ch=1, num_out_ch=1),
        replace(SMALL, num_in_ch=4, num_out_ch=4, scale=1, upsampler_type="conv"),
        replace(SMALL, window_size=4, num_groups=1),
        replace(SMALL, window_size=12, aim_reduction_ratio=4),
        replace(SMALL, group_block_pattern=("channel", "spatial"), depth_per_group=2),
        replace(SMALL, group_block_pattern=("spatial",), depth_per_group=3),
        replace(SMALL, group_block_pattern=("channel",)),
        replace(SMALL, group_block_pattern=("spatial", "spatial", "channel"), num_heads=1),
    ],
    ids=lambda c: (
        f"{c.upsampler_type}-x{c.scale}-{c.window_size}-{'-'.join(c.group_block_pattern)}-{c.unshuffle}"
    ),
)
@pytest.mark.every(2)
def test_other_configurations(config: FDATConfig) -> None:
    for size in ((1, 29, 35), (2, 3, 50)):
        assert_exact(config, size[0], config.num_in_ch, *size[1:])


@pytest.mark.parametrize("upsampler", ["transpose+conv", "lda", "dysample"])
@pytest.mark.parametrize("band", [1, 16, 24, 1000, None])
@pytest.mark.every(4)
def test_bands_do_not_matter(upsampler: str, band: int | None) -> None:
    assert_exact(small(upsampler, 2), 1, 3, 50, 19, band=band)


@pytest.mark.parametrize("upsampler", ["transpose+conv", "lda"])
def test_streamed_maps(upsampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps that are copied to the device ahead of use: a row written too early or read too late
    would show."""
    monkeypatch.setattr(fdat_engine, "FeatureMap", HostMap)
    assert_exact(small(upsampler, 2), 2, 3, 50, 19)


def test_fp32() -> None:
    model, image = random_fdat(PRESETS["tiny"]), picture(1, 3, 61, 90)
    with torch.no_grad():
        model.upsampler[-1].weight *= 5  # outputs of about +-4
    expected = whole(model, image)
    assert 2 <= expected.abs().max() <= 8
    assert (run(model, image.float(), torch.float32) - expected).abs().max() <= 5e-5


def test_fp32_by_public_operators_alone() -> None:
    """Without oneDNN no operator of the engine is an internal one."""
    model, image = random_fdat(PRESETS["tiny"]), picture(1, 3, 33, 50)
    expected = whole(model, image)
    with torch.backends.mkldnn.flags(enabled=False):
        got = run(model, image.float(), torch.float32)
    assert (got - expected).abs().max() <= 5e-5 * expected.abs().max().clamp(1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-5), (torch.bfloat16, 0.1)]
)
@pytest.mark.parametrize("intel", [True, False])
def test_attention_is_the_same_on_every_processor(
    intel: bool, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the fused operator, and by two products and a softmax."""
    monkeypatch.setattr("fdat_dense_iso.arch.kernels.attention.is_intel", lambda: intel)
    model, image = random_fdat(small("transpose+conv", 4)), picture(2, 3, 19, 30)
    expected = whole(model, image)
    got = run(
        model.to(dtype) if dtype == torch.float64 else model, image.to(residual_dtype(dtype)), dtype
    )
    assert (got - expected).abs().max() <= tolerance * expected.abs().max().clamp(1)


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize(
    ("rows_dtype", "dtype", "tolerance"),
    [
        (torch.float32,) * 2 + (1e-5,),
        (torch.float32, torch.bfloat16, 0.05),
        (torch.float64,) * 2 + (1e-12,),
    ],
)
def test_products_added_in_place(
    rows_dtype: torch.dtype, dtype: torch.dtype, tolerance: float, internal: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((12, 20), (12,))
    )
    weight, bias = (weight / 20**0.5).to(dtype), bias.to(dtype)
    with torch.backends.mkldnn.flags(enabled=internal):
        added = AddedProduct.of(weight, bias)
        assert (added.packed is not None) == (internal and dtype == torch.float32)
        for height, width in ((5, 7), (1, 40), (1, 1), (3, 1), (0, 9)):
            whole_map = torch.randn(height + 2, width, 12, generator=generator).to(rows_dtype)
            x = torch.randn(height, width, 20, generator=generator).to(dtype)
            expected = whole_map.double()
            expected[1 : height + 1] += x.double() @ weight.double().T + bias.double()
            added(whole_map[1 : height + 1], x)
            assert torch.allclose(whole_map.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("change", ["fused optimiser", "autocast"])
def test_what_packed_weights_must_not_miss(change: str) -> None:
    model, image = random_fdat(small("pixelshuffle", 2)), picture(1, 3, 17, 20).float()
    model = model.float()
    before = run(model, image, torch.float32)
    if change == "fused optimiser":
        optimizer = torch.optim.SGD(model.train().parameters(), 0.01, fused=True)
        model(image).square().mean().backward()
        optimizer.step()
        model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast"):
        got = run(model, image, torch.float32)
    expected = whole(model, image)
    assert (got - expected).abs().max() <= 5e-5 * expected.abs().max().clamp(1)
    assert ((got - before).abs().max() > 1e-3) == (change == "fused optimiser")


def decibels(got: torch.Tensor, expected: torch.Tensor) -> float:
    span = expected.max() - expected.min()
    return float(20 * torch.log10(span) - 10 * torch.log10((got - expected).pow(2).mean()))


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 50), (torch.float16, 60)])
@pytest.mark.parametrize(
    ("config", "size"),
    [
        (PRESETS["tiny"], (40, 33)),
        (PRESETS["medium"], (24, 21)),
        (replace(PRESETS["large"], upsampler_type="dysample"), (1, 40)),
    ],
)
@pytest.mark.every(2)
def test_half_precision(
    config: FDATConfig, size: tuple[int, int], dtype: torch.dtype, least: float
) -> None:
    model, image = (
        random_fdat(config),
        torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)),
    )
    expected = run(model, image, torch.float32)
    assert decibels(run(model, image, dtype).float(), expected) >= least


@pytest.mark.parametrize("upsampler", [u for u, s in UPSAMPLER_SCALES if s == 2])
@pytest.mark.every(3)
def test_half_precision_maps(upsampler: str) -> None:
    model, image = random_fdat(small(upsampler, 2)), picture(1, 3, 33, 40).float()
    expected = run(model, image, torch.float32)
    assert decibels(run(model, image, torch.float32, map_dtype=torch.float16), expected) >= 60


def with_offset(ratio: float) -> FDAT:
    """Channel blocks whose normalised tokens have a mean of ``ratio`` times their deviation."""
    model = random_fdat(replace(SMALL, group_block_pattern=("channel",), depth_per_group=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("n1.bias"):
                sign = torch.where(torch.arange(parameter.numel()) % 3 == 0, -1.0, 1.0)
                parameter.copy_(ratio * sign)
            if name.endswith("attn.temp"):
                parameter.fill_(50.0)
    return model


def test_large_offsets_in_the_normalised_features() -> None:
    model, image = with_offset(100.0), picture(1, 3, 64, 48)
    expected = whole(model, image)
    got = run(model, image.float(), torch.float32)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gram_matrix_of_tokens_with_an_offset() -> None:
    """The folded attention of tokens at an offset of 100 deviations; plain float32 sums lose it."""
    block = packed_weights(with_offset(100.0), torch.float32, torch.device("cpu")).groups[0][0][0]
    rows = torch.randn(64, 64, 24, generator=torch.Generator().manual_seed(3))
    exact_block = packed_weights(
        with_offset(100.0).double(), torch.float64, torch.device("cpu")
    ).groups[0][0][0]
    tokens = exact_block.norm1(rows.double()).flatten(0, 1)
    heads, dim = block.heads, block.dim

    def fold(gram: torch.Tensor) -> torch.Tensor:
        """Channel attention from q, k and v written out, given n^T n."""
        gram = gram.double()
        q, k = exact_block.query, exact_block.key
        logits = q @ gram @ k.T
        logits = (
            logits
            / (q @ gram @ q.T).diagonal().sqrt()[:, None]
            / (k @ gram @ k.T).diagonal().sqrt()
        )
        weight = torch.zeros(dim, dim, dtype=torch.float64)
        for head in range(heads):
            own = slice(head * dim // heads, (head + 1) * dim // heads)
            weight[own] = (logits[own, own] * exact_block.temperature[head]).softmax(
                -1
            ) @ exact_block.value[own]
        return exact_block.outputs[:-1] @ weight

    expected = fold(tokens.T @ tokens)
    statistic = GramStatistic(block)
    for start in range(0, len(rows), 8):
        statistic.feed(rows[start : start + 8], start + 8 == len(rows))
    error = (
        statistic.result().attention.product.weight - expected
    ).abs().max() / expected.abs().max()
    single = tokens.float()
    naive = (fold(single.T @ single) - expected).abs().max() / expected.abs().max()
    assert error <= 1e-5 < naive


@pytest.mark.parametrize(
    ("upsampler", "scale"), [(u, s) for u, s in UPSAMPLER_SCALES if s in (1, 2)]
)
@pytest.mark.every(3)
def test_nothing_waits_for_the_device(upsampler: str, scale: int) -> None:
    """On the meta device every look at a value raises: the same program runs on a GPU without
    synchronising."""
    model = random_fdat(small(upsampler, scale))
    engine = model.exact_engine
    plan = engine.plan(1, 17, 9, dtype=torch.float32, device="meta", band=8)
    shapes: list[torch.Size] = []
    engine.run(torch.rand(1, 3, 17, 9), plan, lambda top, rows: shapes.append(rows.shape))
    assert sum(shape[2] for shape in shapes) == 17 * scale
    assert {(*shape[:2], shape[3]) for shape in shapes} == {(1, 3, 9 * scale)}


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.conv_after.weight.mul_(2),
        lambda model: model.groups[0].blocks[1].attn.temp.add_(1),
        lambda model: model.load_state_dict(random_fdat(model.config, seed=5).state_dict()),
        lambda model: setattr(
            model.conv_after, "weight", torch.nn.Parameter(model.conv_after.weight.detach() + 1)
        ),
        lambda model: model.to(torch.bfloat16),
    ],
    ids=["in place", "temperature", "load_state_dict", "replaced", "precision"],
)
def test_changed_weights_are_noticed(change) -> None:  # type: ignore[no-untyped-def]
    model, image = random_fdat(), picture(1, 3, 9, 17)
    first = run(model, image, torch.float64)
    packed = packed_weights(model, torch.float64, torch.device("cpu"))
    assert packed_weights(model, torch.float64, torch.device("cpu")) is packed
    with torch.no_grad():
        change(model)
    second = run(model, image, torch.float64)
    assert (second - first).abs().max() > 1e-6
    assert (second - whole(model, image)).abs().max() <= 1e-10


def test_weights_made_under_inference_mode() -> None:
    with torch.inference_mode():
        model = random_fdat()
        image = picture(1, 3, 9, 17)
        assert (run(model, image, torch.float64) - whole(model, image)).abs().max() <= 1e-10


def test_image_of_another_size_is_refused() -> None:
    engine = random_fdat().exact_engine
    plan = engine.plan(1, 16, 16, dtype=torch.float32, device="cpu")
    with pytest.raises(ValueError, match=r"\(1, 3, 16, 17\), the plan is for \(1, 3, 16, 16\)"):
        engine.run(torch.rand(1, 3, 16, 17), plan, lambda top, rows: None)
