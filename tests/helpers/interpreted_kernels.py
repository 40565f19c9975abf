"""The kernels in Triton's interpreter against their twins; tests of arch/fdat/gpu run this file.

It has a process of its own, because the interpreter has to be chosen before triton is imported.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fdat_dense_iso.arch.fdat.config import PRESETS
from fdat_dense_iso.arch.fdat.engine.plan import Plan
from fdat_dense_iso.arch.fdat.engine.weights import pad_heads
from fdat_dense_iso.arch.fdat.gpu import candidates, choice, launch, twins
from tests.helpers.fdat_cases import SMALL, random_fdat

assert launch.is_interpreted()


@pytest.fixture(autouse=True, scope="session")
def bfloat16_as_on_a_chip() -> None:
    """The interpreter holds bfloat16 as its bits; it multiplies those, and cuts when it rounds.

    Here it multiplies values, and rounds to the nearest.
    """
    from triton.runtime import interpreter

    builder, make, tl = interpreter.InterpreterBuilder, interpreter.TensorHandle, interpreter.tl
    plain_dot, plain_cast = builder.create_dot, builder.cast_impl

    def values(handle):  # type: ignore[no-untyped-def]
        if handle.data.dtype != "uint16":
            return handle
        return make((handle.data.astype("uint32") << 16).view("float32"), tl.float32)

    def cast(self, source, target):  # type: ignore[no-untyped-def]
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return plain_cast(self, source, target)
        bits = source.data.view("uint32")
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return make(nearest.astype("uint16"), tl.bfloat16)

    builder.cast_impl = cast
    builder.create_dot = lambda self, a, b, *rest: plain_dot(self, values(a), values(b), *rest)


WIDTHS = {48: 4, 96: 3, 108: 4, 120: 4, 128: 4, 180: 6}  # C: heads, as the presets have them
DTYPES = torch.float32, torch.float16, torch.bfloat16
BANDS = [  # rows, columns, halo above, halo below
    (8, 13, 0, 1),  # the first of several bands
    (8, 8, 1, 1),
    (5, 9, 1, 0),  # the last band: windows reach over the edges
    (1, 1, 0, 0),
    (3, 17, 0, 0),
]


ROUNDING = {
    torch.float64: 2e-6,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
"""Errors allowed as a share of the largest value, from the finest precision to the coarsest."""


def random(*shape: int, dtype: torch.dtype, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return (scale * noise).to(dtype)


def assert_equal_to_twin(name: str, *arguments: object) -> None:
    """Every way of the kernel gives what the twin gives in float64, to the precision's rounding.

    The twin's own rounding is the measure; nothing but ``out`` is written to.
    """
    twin = getattr(twins, name)
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    exact = choice._result(twin, choice._converted(arguments, torch.float64))
    dtypes = [a.dtype for a in arguments if isinstance(a, torch.Tensor)]
    dtypes += [a for a in arguments if isinstance(a, torch.dtype)]
    coarsest = max(dtypes, key=list(ROUNDING).index)
    ways = candidates.ways_of(name, *arguments)
    assert ways
    for way in ways:
        got = choice._result(twin, arguments, way)
        assert got.shape == exact.shape and got.isfinite().all()
        error = (got.double() - exact).abs().max() / exact.abs().max()
        assert error <= ROUNDING[coarsest], (way, error)
    assert all(
        torch.equal(a, b) for a, b in zip(arguments, before) if isinstance(a, torch.Tensor)
    ), "inputs were written to"


def band(dim: int, dtype: torch.dtype, case: tuple[int, int, int, int]) -> tuple:
    """x, out, above, below, LayerNorm's weight, bias and eps; x has an offset and a scale."""
    rows, width, above, below = case
    x = random(rows + above + below, width, dim, dtype=dtype, scale=2.0) + 1
    norm = 1 + random(dim, dtype=torch.float32, scale=0.2), random(dim, dtype=torch.float32)
    out = torch.zeros(rows, width, dim, dtype=dtype)
    return x, out, above, below, *norm, 1e-5


def cases() -> list:
    """Every width and precision once, every band once, in a diagonal of the grid."""
    widths = [(dim, DTYPES[i % 3], BANDS[i % len(BANDS)]) for i, dim in enumerate(WIDTHS)]
    return [*widths, *((48, DTYPES[i % 3], case) for i, case in enumerate(BANDS))]


each = pytest.mark.parametrize(("dim", "dtype", "case"), cases(), ids=str)


@each
@pytest.mark.every(4)
def test_window_half(dim: int, dtype: torch.dtype, case: tuple) -> None:
    heads, given = WIDTHS[dim], band(dim, dtype, case)
    qkv = random(3, dim, dim, dtype=dtype, scale=1.5 * dim**-0.5)
    padded = pad_heads(qkv, heads).flatten(0, 1)
    back = pad_heads(random(dim, dim, dtype=dtype, scale=dim**-0.5).T, heads).T.contiguous()
    assert_equal_to_twin(
        "window_half",
        *given,
        random(dim, 1, 3, 3, dtype=dtype, scale=0.3),
        padded,
        random(heads, 64, 64, dtype=dtype),
        back,
        random(dim, dtype=dtype),
        8,
        (dim // heads) ** -0.5,
    )


@each
@pytest.mark.every(4)
def test_channel_half(dim: int, dtype: torch.dtype, case: tuple) -> None:
    assert_equal_to_twin(
        "channel_half",
        *band(dim, dtype, case),
        random(dim, 1, 3, 3, dtype=dtype, scale=0.3),
        random(dim, dim, dtype=dtype, scale=dim**-0.5),
        random(dim, dtype=dtype),
        random(1, dim, dtype=dtype, scale=dim**-0.5),
        random(1, dtype=dtype),
    )


@each
@pytest.mark.every(4)
def test_feed_forward(dim: int, dtype: torch.dtype, case: tuple) -> None:
    hidden = dim * 3 // 2 if dim == 96 else 2 * dim
    assert_equal_to_twin(
        "feed_forward",
        *band(dim, dtype, case),
        random(hidden, dim, dtype=dtype, scale=dim**-0.5),
        random(hidden, 1, 3, 3, dtype=dtype, scale=0.3),
        random(dim, hidden, dtype=dtype, scale=hidden**-0.5),
    )


@each
@pytest.mark.every(4)
def test_gate_sum(dim: int, dtype: torch.dtype, case: tuple) -> None:
    x, _, *place = band(dim, dtype, case)
    kernel = random(dim, 1, 3, 3, dtype=dtype, scale=0.3)
    for first in (True, False):
        assert_equal_to_twin("gate_sum", x, torch.zeros(2, dim), first, *place, kernel)


@each
@pytest.mark.every(4)
def test_gram(dim: int, dtype: torch.dtype, case: tuple) -> None:
    x, *_, weight, bias, eps = band(dim, dtype, case)
    for parts in (1, 3):
        sums, pilot = torch.zeros(parts, dim + 1, dim), torch.zeros(dim)
        assert_equal_to_twin("gram", x, sums, pilot, parts == 1, weight, bias, eps)


def test_a_uniform_picture_leaves_the_kernels() -> None:
    """Nothing deviates from the pilot: a share of nothing would be too much of an error."""
    x = random(1, 1, 48, dtype=torch.float32).expand(8, 13, 48).contiguous()
    norm = 1 + random(48, dtype=torch.float32), random(48, dtype=torch.float32), 1e-5
    arguments = (x, torch.zeros(3, 49, 48), torch.zeros(48), True, *norm)
    every = candidates.ways_of("gram", *arguments)
    assert choice._right_ways(twins.gram, every, arguments) == every


@pytest.mark.parametrize(("dim", "heads"), WIDTHS.items())
@pytest.mark.every(3)
def test_folding(dim: int, heads: int) -> None:
    """Of tokens at an offset of 100 deviations: what is summed and folded is what they have."""
    tokens = 100 + random(40, 50, dim, dtype=torch.float64)
    n, pilot = tokens.flatten(0, 1), tokens[0, 0].float()
    less = n - pilot.double()
    sums = torch.cat([less.T @ less, less.sum(0, keepdim=True)])
    parts = torch.stack([0.25 * sums, 0.75 * sums]).float()
    q, k, v = random(3, dim, dim, dtype=torch.float32, scale=dim**-0.5)
    q, k = q - q.mean(1, keepdim=True), k - k.mean(1, keepdim=True)  # the offset cancels out
    temperature = 3 + random(heads, 1, 1, dtype=torch.float32)
    outputs = random(dim + 1, dim, dtype=torch.float32, scale=dim**-0.5)
    arguments = (parts, pilot, 2000, q, k, v, temperature, outputs, torch.float32)
    logits = torch.stack(
        [
            F.normalize(n @ q.double().T, dim=0)[:, own].T
            @ F.normalize(n @ k.double().T, dim=0)[:, own]
            for own in torch.arange(dim).view(heads, -1)
        ]
    )
    mixed = (logits * temperature).softmax(-1) @ v.double().view(heads, -1, dim)
    expected = outputs.double() @ mixed.flatten(0, 1)
    for way in (twins.fold_channel, *candidates.ways_of("fold_channel", *arguments)):
        assert (way(*arguments) - expected).abs().max() <= 2e-5 * expected.abs().max(), way

    padded = -(-dim // heads // 16) * 16 * heads
    assert_equal_to_twin(
        "fold_gate",
        random(19, dim, dtype=torch.float32, scale=30),
        *(
            50,
            random(dim // 8, dim, dtype=torch.float32, scale=dim**-0.5),
            random(dim, dim // 8, dtype=torch.float32, scale=dim**-0.5),
        ),
        *(random(dim, padded, dtype=torch.float32), random(dim, dtype=torch.float32)),
        torch.float16 if heads == 4 else torch.float32,
    )


CONVOLUTIONS = [  # inputs, outputs, enlargement, slope, shuffle, bias, skip
    (48, 48, 1, 1.0, 1, True, True),
    (3, 40, 1, 1.0, 1, True, False),
    (48, 12, 1, 0.01, 2, True, False),
    (20, 27, 1, 1.0, 3, False, False),
    (48, 48, 2, 0.2, 1, True, False),
    (20, 24, 3, 1.0, 1, True, False),
]


@pytest.mark.parametrize("how", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [*((d, d) for d in DTYPES), *((d, torch.float32) for d in (torch.bfloat16, torch.float16))],
)
@pytest.mark.every(3)
def test_convolve(how: tuple, dtype: torch.dtype, kind: torch.dtype) -> None:
    dim, outputs, enlarge, slope, shuffle, biased, added = how
    for rows, width, above, below in BANDS[:4]:
        x = random(rows + above + below, width, dim, dtype=dtype)
        weight = random(outputs, dim, 3, 3, dtype=kind, scale=(9 * dim) ** -0.5)
        factor = enlarge * shuffle
        out = torch.zeros(rows * factor, width * factor, outputs // shuffle**2, dtype=dtype)
        skip = random(*out.shape, dtype=dtype) if added else None
        bias = random(outputs, dtype=kind) if biased else None
        weight = weight.contiguous(memory_format=torch.channels_last)
        assert_equal_to_twin(
            "convolve", x, out, above, below, weight, bias, skip, enlarge, slope, shuffle
        )


@each
@pytest.mark.parametrize("outputs", [3, None])
@pytest.mark.every(5)
def test_corners(dim: int, dtype: torch.dtype, case: tuple, outputs: int | None) -> None:
    x, _, above, below, *_ = band(dim, dtype, case)
    kernel = random(dim, outputs or dim, 4, 4, dtype=dtype, scale=dim**-0.5)
    packed, bias = twins.pack_corners(kernel), random(outputs or dim, dtype=dtype)
    assert_equal_to_twin("corners", x, above, below, kernel, packed, bias, outputs is None)


@pytest.mark.parametrize("window", [4])
def test_windows_of_other_sizes(window: int) -> None:
    given = band(48, torch.float32, (window + 3, 11, 1, 0))
    qkv = pad_heads(random(3, 48, 48, dtype=torch.float32, scale=0.2), 4).flatten(0, 1)
    assert_equal_to_twin(
        "window_half",
        *given,
        random(48, 1, 3, 3, dtype=torch.float32, scale=0.3),
        qkv,
        random(4, window**2, window**2, dtype=torch.float32),
        pad_heads(random(48, 48, dtype=torch.float32, scale=0.1).T, 4).T.contiguous(),
        random(48, dtype=torch.float32),
        window,
        0.3,
    )


@pytest.mark.parametrize(
    ("config", "dtype", "least"),
    [
        (
            replace(
                SMALL,
                embed_dim=16,
                num_heads=2,
                num_groups=1,
                group_block_pattern=("spatial", "channel"),
                upsampler_type="transpose+conv",
                scale=2,
            ),
            torch.float32,
            110,
        ),
        (replace(PRESETS["tiny"], num_groups=1, depth_per_group=1), torch.float16, 60),
        (
            replace(SMALL, embed_dim=16, num_heads=2, upsampler_type="transpose+conv", scale=2),
            torch.bfloat16,
            50,
        ),
    ],
    ids=["float32", "float16", "bfloat16"],
)
@pytest.mark.every(3)
def test_whole_engine(  # type: ignore[no-untyped-def]
    config, dtype: torch.dtype, least: float, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """A picture of 24 x 40 in two bands, all by kernels, against the plain network in float64."""
    monkeypatch.setattr(Plan, "fused", True)
    every_way = candidates.ways_of
    monkeypatch.setattr(candidates, "ways_of", lambda *arguments: every_way(*arguments)[:1])
    choice.forget()
    model, parts = random_fdat(config), []
    if dtype == torch.bfloat16:  # the last group's maps leave float16, see engine/bounds.py
        with torch.no_grad():
            model.groups[-2].conv.weight.mul_(1e6)
    image = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    engine = model.exact_engine
    plan = engine.plan(1, 24, 40, dtype=dtype, device="cpu", band=16, map_dtype=dtype)
    engine.run(image, plan, lambda top, rows: parts.append(rows.clone()))
    got = torch.cat(parts, 2).double()
    with torch.inference_mode():
        expected = model.double()(image.double())
    error = (got - expected).square().mean()
    assert 10 * torch.log10((expected.max() - expected.min()) ** 2 / error) >= least
    used = {key[0]: getattr(way, "func", way) for key, way in choice._chosen.items()}
    assert set(used) == set(choice.FORMS)
    assert all(way is getattr(launch, name) for name, way in used.items()) and not caplog.records
