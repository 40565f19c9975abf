"""What the tensors of a Dense-Iso-ViT can't tell, and who may say it.

Precedence: options of the call (node, command line) > sidecar JSON > safetensors metadata > the
buffer of `arch.dense_iso.meta` > the default below, which is reported as assumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import ModelLoadError
from ..config import ACTIVATIONS, CHOICES, VALUE_RANGES, HeadLayer

METADATA_KEY = "dense_iso_vit"
QKV_LAYOUTS = ("3hd", "h3d")
HALVES = ("second", "first", "second swapped", "first swapped")
PLACES = ("all", "fusion", "shuffle", "between")
RETIRED = {"swap_paths": "false", "residual": "network", "head_activation_place": "all"}


def _integers(value: Any) -> tuple[int, ...]:
    items = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(int(item) for item in ([items] if isinstance(items, int) else items))
    except (TypeError, ValueError):
        raise ValueError("expected whole numbers, as in 6,8,6,8") from None


def _integer(value: Any) -> int:
    (number,) = _integers(value)
    return number


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError("expected a number, as in 1e-5") from None


def _boolean(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError("expected true or false")
    return known[str(value).lower()]


class OneOf(tuple):
    """Texts to choose from; calling it with one of them returns that, with another raises."""

    def __call__(self, value: Any) -> str:
        if value not in self:
            raise ValueError(f"expected one of {', '.join(self)}")
        return value


def _activations(value: Any) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (value.split(",") if isinstance(value, str) else value))
    places = [f"@{place}" for place in PLACES] if len(names) == 1 else []
    known = {name + place for name in ACTIVATIONS for place in ("", *places)}
    if not names or not set(names) <= known:
        raise ValueError(
            f"expected {', '.join(ACTIVATIONS)}, or one of them per convolution, or one with its place, as in "
            f"gelu@fusion ({', '.join(PLACES)})"
        )
    return names


class Option(NamedTuple):
    """From JSON or text to the value, what stands where nobody answers, and a line of text."""

    parse: Callable[[Any], Any]
    default: Any
    help: str


OPTIONS = {
    "heads": Option(_integers, None, "attention heads, one number or one per stage: published ones, or 32 wide"),
    "qkv_layout": Option(OneOf(QKV_LAYOUTS), "3hd", "rows of a fused qkv, slowest first: 3 q, k, v; h heads; d width"),
    "gated_half": Option(OneOf(HALVES), "second", "half of GDFN through GELU; swapped: path_1 takes the second"),
    "head_activation": Option(_activations, ("none",), "one name per convolution of the head, or name@place"),
    "shuffles": Option(OneOf(("once", "twos")), "once", "an enlargement by 4, 8, 16: one PixelShuffle or several by 2"),
    "stage_norm_routing": Option(OneOf(CHOICES["stage_norm_routing"]), "both", "who sees a stage's normed output"),
    "norm_eps": Option(_number, 1e-5, "epsilon of every LayerNorm"),
    "skip": Option(OneOf(CHOICES["skip"]), "bilinear", "how the image is enlarged before the head's output is added"),
    "align_corners": Option(_boolean, False, "align_corners of a bilinear or bicubic skip"),
    "value_range": Option(OneOf(VALUE_RANGES), "0..1", "values of pixels that the network was trained on"),
    "window": Option(_integer, 64, "side of the input in pixels, where no position embedding tells"),
    "depths": Option(_integers, None, "blocks of every stage, where names and widths do not tell"),
    "container": Option(str, None, "dictionary of the file that holds the weights, where there are several"),
    "prefix": Option(str, None, "start of the names of this network's tensors, where the file holds others too"),
}  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """The answers and where they come from."""

    values: dict[str, Any]
    sources: dict[str, str]  # "option", "sidecar", "metadata" or "default"

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def assumed(self, name: str) -> bool:
        """Whether nobody answered, so that the default stands."""
        return self.sources[name] == "default"


def settle(options: Mapping[str, Any] | None = None, sidecar: Mapping[str, Any] | None = None,
           metadata: Mapping[str, Any] | None = None) -> Answers:  # fmt: skip
    """Collect the answers by precedence: of the caller (None: not given), of a JSON file beside the
    checkpoint and of a safetensors file's metadata, which may hold them as one JSON object under
    ``dense_iso_vit``; other entries of the two are ignored. ModelLoadError: an impossible one."""
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if unknown := ", ".join(sorted(set(given) - set(OPTIONS))):
        raise ModelLoadError(f"unknown options {unknown}; Dense-Iso-ViT knows {', '.join(OPTIONS)}")
    try:
        nested = json.loads((metadata or {}).get(METADATA_KEY) or "{}")
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"metadata entry {METADATA_KEY!r} is not JSON: {error}") from error
    nested = nested if isinstance(nested, dict) else {}
    sources = {
        "option": given,
        "sidecar": sidecar or {},
        "metadata": {**(metadata or {}), **nested},
    }
    values = {name: option.default for name, option in OPTIONS.items()}
    origin = dict.fromkeys(OPTIONS, "default")
    for source, entries in reversed(sources.items()):
        for name, only in RETIRED.items():
            if str(entries.get(name) or only).lower() != only:
                what = f"{source} {name}={entries[name]!r}"
                raise ModelLoadError(f"{what} is no longer read; see CHANGELOG.md")
        for name, (parse, _, _) in OPTIONS.items():
            try:
                if entries.get(name) is not None:
                    values[name], origin[name] = parse(entries[name]), source
            except (ValueError, TypeError, OverflowError) as error:
                raise ModelLoadError(f"{source} {name}={entries[name]!r}: {error}") from error
    return Answers(values, origin)


def activations(
    head: Sequence[HeadLayer], names: Sequence[str], place: str | None = None
) -> list[str]:
    """The activation after every convolution: one name for each, or one at a ``place``."""
    if 1 < len(names) != len(head):
        raise ModelLoadError(f"head_activation: {len(names)} entries for {len(head)} convolutions")
    if len(names) > 1:
        return list(names)
    name, _, given = names[0].partition("@")
    shuffles = [i for i, layer in enumerate(head) if layer.shuffle > 1]
    first, last, end = *(shuffles[:1] or [len(head)]), *(shuffles[-1:] or [0]), len(head) - 1
    places = {
        "all": range(end),
        "fusion": range(min(first, end)),
        "shuffle": [i for i in shuffles if i < end],
        "between": [i for i in shuffles if i < last],
    }[place or given or "all"]
    return [name if i in places else "none" for i in range(len(head))]
