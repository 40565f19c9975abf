"""Files of many keys that make a reader slow, or fail: each has 20,000 tensors, most share one
storage.
`python -m tests.helpers.dense_iso_variants keys` prints the seconds that each takes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tests.helpers.dense_iso_variants import build

COUNT = 20_000
NUMBER = torch.zeros(1)
StateDict = dict[str, Tensor]


@functools.cache
def zeros(*shape: int) -> Tensor:
    """Zeros of any shape that take no memory."""
    return NUMBER.expand(*shape) if shape else NUMBER[0]


def small() -> StateDict:
    """A valid network."""
    return dict(build("timm")[0].state_dict())


def many(name: str, *shape: int, count: int = COUNT) -> StateDict:
    """Tensors of one shape; ``name`` holds {i}."""
    start, end = name.split("{i}")
    tensor = zeros(*shape)
    return {f"{start}{i}{end}": tensor for i in range(count)}


def beside(name: str, *shape: int) -> StateDict:
    """A valid network and many tensors."""
    return {**small(), **many(name, *shape)}


def block(start: str, width: int = 8) -> StateDict:
    """The tensors of one block."""
    shapes = {
        "norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width), "norm2.weight": (width,), "norm2.bias": (width,),
        "ffn.fc1.weight": (4 * width, width), "ffn.dw.weight": (4 * width, 1, 3, 3),
        "ffn.fc2.weight": (width, 2 * width),
    }  # fmt: skip
    return {f"{start}.{name}": zeros(*shape) for name, shape in shapes.items()}


def blocks(name: str, width: Callable[[int], int] = lambda i: 8) -> StateDict:
    """A patch embedding and as many blocks as make the number of tensors."""
    found = {"patch.weight": zeros(width(0), 3, 4, 4), "head.weight": zeros(48, 8, 3, 3)}
    for i in range(COUNT // 9):
        found |= block(name.format(i=i), width(i))
    return found


def anchored(found: StateDict) -> StateDict:
    """With what makes a file look like this network at first sight."""
    return {"patch.weight": zeros(8, 3, 4, 4), **block("blocks.0"), **found}


def just_below(make: Callable[[int], StateDict]) -> StateDict:
    """As many tensors as are read at all."""
    from fdat_dense_iso.arch.dense_iso.reading.layers import MOST_TENSORS

    return make(MOST_TENSORS - 200)


def head_of(count: int, channels: int = 8) -> StateDict:
    """A valid network whose head has further convolutions of several shapes."""
    found = small()
    for i in range(count):
        kernel = 2 * (i % 7) + 1
        found[f"more.x{i * 7 % 41}.weight"] = zeros(
            channels * (1, 4, 9)[i % 3], channels, kernel, kernel
        )
    return found


def own(found: dict[str, tuple[int, ...]]) -> StateDict:
    """In this project's naming."""
    return {key: zeros(*shape) for key, shape in found.items()}


KEY_SETS: dict[str, Callable[[], StateDict]] = {
    "a network and x0.weight ...": lambda: beside("x{i}.weight", 8, 8),
    "a network and vectors": lambda: beside("x{i}.weight", 8),
    "a network and norms": lambda: {**beside("x{i}.weight", 8), **many("x{i}.bias", 8)},
    "a network and bare names": lambda: beside("x{i}", 8, 8),
    "a network and 1x1 transitions": lambda: beside("t.{i}.weight", 8, 8, 1, 1),
    "a network and depthwise": lambda: beside("dw{i}.weight", 8, 1, 3, 3),
    "a network under one name of 200 parts": lambda: {
        "deep." * 200 + key: value for key, value in beside("x{i}.weight", 8, 8).items()
    },
    "a network twice, one of them with many more": lambda: {
        **{"model." + key: value for key, value in small().items()},
        **{"ema." + key: value for key, value in beside("x{i}.weight", 8).items()},
    },
    "names of 200 parts": lambda: {
        ".".join(f"{i}_{j}" for j in range(200)): zeros(8, 1, 3, 3) for i in range(2_000)
    },
    "names of 200 equal parts": lambda: {
        "a." * 200 + str(i): zeros(8, 1, 3, 3) for i in range(COUNT)
    },
    "names of 10,000 characters": lambda: {
        "a" * 10_000 + f"{i}.weight": zeros(8, 1, 3, 3) for i in range(2_000)
    },
    "names of 10,000 digits": lambda: {
        f"{i}" + "9" * 10_000 + ".weight": zeros(8, 1, 3, 3) for i in range(2_000)
    },
    "names of 10,000 underscores": lambda: {
        "_" * 10_000 + f"{i}_g": zeros(8, 1, 3, 3) for i in range(2_000)
    },
    "numbers of 400 digits": lambda: anchored(
        {f"b.{10**400 + i}.dw.weight": zeros(8, 1, 3, 3) for i in range(COUNT)}
    ),
    "numbers of 300 digits, few": lambda: just_below(
        lambda n: anchored({f"b.{10**300 + i}.dw.weight": zeros(8, 1, 3, 3) for i in range(n)})
    ),
    "leading zeros": lambda: anchored(
        {f"b.{'0' * (i % 50)}{i // 50}.weight": zeros(8, 1, 3, 3) for i in range(COUNT)}
    ),
    "leading zeros, few": lambda: just_below(
        lambda n: {f"b.{'0' * (i % 9)}{key}": value for i in range(n // 9)
                   for key, value in block(str(i // 9)).items()} | anchored({})
    ),
    "empty parts": lambda: anchored({f"a..b{'.' * (i % 30)}{i}": zeros(8, 8) for i in range(COUNT)}),
    "nothing but dots": lambda: anchored({"." * i: zeros(8, 8) for i in range(1_900)}),
    "unicode": lambda: anchored({f"層{chr(0x4E00 + i)}.ŵ²": zeros(8, 1, 3, 3) for i in range(COUNT)}),
    "unicode digits": lambda: just_below(
        lambda n: anchored({f"b.{chr(0x660 + i % 10)}²{i}.weight": zeros(8) for i in range(n)})
    ),
    "last letter differs": lambda: anchored({"block.x" + chr(0x100 + i): zeros(8) for i in range(COUNT)}),
    "depthwise": lambda: anchored(many("conv{i}.weight", 8, 1, 3, 3)),
    "depthwise, few": lambda: just_below(lambda n: anchored(many("conv{i}.weight", 8, 1, 3, 3, count=n))),
    "depthwise, nested": lambda: just_below(
        lambda n: anchored({f"a.{i % 7}.{i % 5}.{i}.dw.weight": zeros(8, 1, 3, 3) for i in range(n)})
    ),
    "linear layers": lambda: anchored(many("fc{i}.weight", 8, 8)),
    "linear layers, few": lambda: just_below(lambda n: anchored(many("fc{i}.weight", 8, 8, count=n))),
    "vectors": lambda: anchored(many("v{i}", 8)),
    "vectors, few": lambda: just_below(lambda n: anchored(many("v{i}", 8, count=n))),
    "norms, few": lambda: just_below(
        lambda n: anchored(many("n{i}.weight", 8, count=n // 2) | many("n{i}.bias", 8, count=n // 2))
    ),
    "numbers": lambda: anchored(many("n{i}")),
    "blocks": lambda: blocks("blocks.{i}"),
    "blocks of any name": lambda: blocks("b{i}x"),
    "blocks, few": lambda: just_below(lambda n: dict(list(blocks("blocks.{i}").items())[:n])),
    "blocks, few, without an order": lambda: just_below(
        lambda n: dict(list(blocks("b{i}x.{i}y").items())[:n])
    ),
    "stages of unequal width, few": lambda: just_below(
        lambda n: dict(list(blocks("stages.{i}.0", lambda i: 8 + i % 50).items())[:n])
    ),
    "stages of two widths, few": lambda: just_below(
        lambda n: dict(list(blocks("b.{i}", lambda i: 8 + 4 * (i // 24 % 2)).items())[:n])
    ),
    "transitions of equal width, few": lambda: just_below(
        lambda n: {**dict(list(blocks("stages.{i}.0").items())[: n // 2]), **many("t.{i}.weight", 8, 8, count=n // 2)}
    ),
    "convolutions between colours": lambda: anchored(many("c{i}.weight", 3, 3, 3, 3)),
    "40 more convolutions in the head": lambda: head_of(40),
    "24 convolutions in the head": lambda: head_of(18),
    "12 more convolutions in the head": lambda: head_of(12),
    "16 more convolutions of many shapes": lambda: {
        **small(), **{f"up{i}.weight": zeros(6 * 4 ** (i % 4), 6, 1 + 2 * (i % 8), 1 + 2 * (i % 8)) for i in range(16)}
    },
    "patch embeddings": lambda: anchored(many("p{i}.weight", 8, 3, 4, 4)),
    "position embeddings": lambda: just_below(lambda n: {**small(), **many("pos{i}", 1, 16, 8, count=n)}),
    "weights of normalisation": lambda: anchored(many("c{i}.weight_g", 8) | many("c{i}.weight_v", 8, 8)),
    "containers": lambda: {  # pyright: ignore[reportReturnType]
        f"state{i}": block(f"b{i}") | block(f"c{i}") for i in range(COUNT // 18)
    },
    "optimizer states": lambda: {  # pyright: ignore[reportReturnType]
        "model": small(), "optimizer": {"state": {i: {"a": {"b": {"c": NUMBER}}} for i in range(COUNT)}}
    },
    "own naming, many stages": lambda: own(
        {"patch_embedding.weight": (8, 3, 4, 4)} | {
            f"stages.{i}.blocks.0.{name}.weight": (8, 1, 3, 3)
            for i in range(COUNT // 2) for name in ("norm1", "gdfn.path_1")
        }
    ),
    "own naming, many stages, few": lambda: own(
        {"patch_embedding.weight": (8, 3, 4, 4), "head.0.weight": (48, 8, 3, 3)}
        | {f"stages.{i}.blocks.0.{name}": (8,) for i in range(900) for name in ("norm1.weight", "gdfn.path_1.weight")}
    ),
    "own naming, large numbers": lambda: own(
        {"patch_embedding.weight": (8, 3, 4, 4), "head.0.weight": (0, 8, 3, 3)}
        | {f"stages.{10**300 + i}.blocks.0.norm1.weight": (8,) for i in range(COUNT)}
    ),
    "own naming, a deep head": lambda: own(
        {"patch_embedding.weight": (8, 3, 4, 4), "stages.0.blocks.0.norm1.weight": (8,),
         "stages.0.blocks.0.gdfn.path_1.weight": (8, 1, 3, 3)}
        | {f"head.{i}.weight": (8, 8, 3, 3) for i in range(1_900)}
    ),
    "sides of a billion": lambda: {**small(), "norm.weight": zeros(10**9), "x.weight": zeros(10**5, 10**5)},
    "empty tensors": lambda: {**small(), "x.weight": torch.zeros(0, 5), "y.weight": torch.zeros(8, 0, 3, 3)},
    "sparse and complex tensors": lambda: {
        **small(), "x.weight": torch.eye(4).to_sparse(), "y.weight": torch.zeros(3, dtype=torch.complex64)
    },
    "tensors without sides": lambda: {**small(), **many("s{i}", count=1_000), "_orig_mod": zeros(), "": zeros(8)},
}  # fmt: skip
"""A few have fewer keys, where each is long, or as many as are read at all."""


def measured() -> Iterator[tuple[str, int, float, str]]:
    """Name, number of keys, seconds, and what came of it."""
    from fdat_dense_iso.arch.dense_iso.reading.recognise import recognise
    from fdat_dense_iso.arch.errors import ModelLoadError

    for name, make in KEY_SETS.items():
        state_dict = make()
        start = time.perf_counter()
        try:
            outcome = f"loaded: {recognise(state_dict).config.dims}"
        except ModelLoadError as error:
            outcome = f"{type(error).__name__}: {error}"
        yield name, len(state_dict), time.perf_counter() - start, outcome
