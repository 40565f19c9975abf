"""What the tensors of a Dense-Iso-ViT can't tell, and who may say it.

Precedence: options of the call (node, command line) > sidecar JSON > safetensors metadata > the
default below. Every value that comes from the default is reported as assumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ModelLoadError
from ..config import ACTIVATIONS, CHOICES, HeadLayer

METADATA_KEY = "dense_iso_vit"
QKV_LAYOUTS = ("3hd", "h3d")
SHUFFLES = ("once", "twos")
PLACES = ("all", "fusion", "shuffle", "between")
POSITION_LAYOUTS = ("auto", "channels_first", "channels_last")


def _integers(value: Any) -> tuple[int, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(int(item) for item in ([items] if isinstance(items, int) else items))


def _boolean(value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError("expected true or false")
    return text in ("true", "1", "yes")


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return value

    return parse


def _activations(value: Any) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (value.split(",") if isinstance(value, str) else value))
    unknown = [name for name in names if name.partition("@")[0] not in ACTIVATIONS]
    places = [name.partition("@")[2] for name in names if "@" in name]
    if unknown or not names or not set(places) <= set(PLACES) or (places and len(names) > 1):
        raise ValueError(
            f"expected {', '.join(ACTIVATIONS)}, perhaps with a place as in gelu@fusion "
            f"({', '.join(PLACES)}), or one activation per convolution"
        )
    return names


@dataclass(frozen=True)
class Option:
    """One open question.

    Attributes:
        parse: from JSON or text to the value; raises ValueError.
        default: the documented answer where nobody gives one; None: depends on the checkpoint.
        help: one line for the command line and the documentation.
    """

    parse: Callable[[Any], Any]
    default: Any
    help: str


OPTIONS: dict[str, Option] = {
    "heads": Option(
        _integers,
        None,
        "attention heads of every stage; published ones for published widths, else width / 32",
    ),
    "qkv_layout": Option(
        _one_of(*QKV_LAYOUTS),
        "3hd",
        "rows of a fused qkv, from the slowest index to the fastest: q, k and v (3), heads (h), place in a head (d)",
    ),
    "gated_half": Option(
        _one_of(*CHOICES["gated_half"]), "second", "half of GDFN that goes through GELU"
    ),
    "head_activation": Option(
        _activations,
        ("none",),
        "activation after all convolutions of the head but the last, or a comma-separated one per "
        "convolution; gelu@fusion: only before the first PixelShuffle, gelu@shuffle: after every "
        "PixelShuffle, gelu@between: after every PixelShuffle but the last",
    ),
    "shuffles": Option(
        _one_of(*SHUFFLES),
        "once",
        "an enlargement by 4, 8 or 16 after one convolution: PixelShuffle once, or by twos several times",
    ),
    "stage_norm_routing": Option(
        _one_of(*CHOICES["stage_norm_routing"]),
        "both",
        "who sees a stage's normalised output: both or head",
    ),
    "norm_eps": Option(float, 1e-5, "epsilon of every LayerNorm"),
    "skip": Option(
        _one_of(*CHOICES["skip"]),
        "bilinear",
        "how the image is enlarged that the residual is added to",
    ),
    "align_corners": Option(_boolean, False, "align_corners of a bilinear or bicubic skip"),
    "value_range": Option(
        _one_of(*CHOICES["value_range"]), "0..1", "value range that the network was trained on"
    ),
    "patch_layout": Option(
        _one_of("chw", "hwc"),
        None,
        "order of the pixels in a patch embedding that is a linear layer; chw for 1x1 convolutions, hwc for Linear",
    ),
    "position_layout": Option(
        _one_of(*POSITION_LAYOUTS),
        "auto",
        "of a position embedding whose shape fits both: channels first or last",
    ),
    "window": Option(int, 64, "side of the input in pixels, where no position embedding tells"),
    "depths": Option(_integers, None, "blocks of every stage, where names and widths do not tell"),
    "transitions": Option(
        _integers,
        None,
        "stages that a linear layer follows, where equal widths need none and nothing else tells",
    ),
    "stage_norms": Option(
        _integers,
        None,
        "stages that a norm follows, where others of equal width have none and nothing else tells",
    ),
    "order": Option(
        _one_of("auto", "file", "names"),
        "auto",
        "what to trust for the order of equal layers: the file's or the names'",
    ),
    "matrices": Option(
        _one_of("out_in", "in_out"),
        "out_in",
        "parameters used as x @ W have the shape (in, out); square ones do not tell",
    ),
    "container": Option(str, None, "dictionary of the file that holds the weights"),
    "prefix": Option(
        str, None, "start of the names of this network's tensors, where the file holds others too"
    ),
}


@dataclass(frozen=True)
class Answers:
    """The answers and where they come from: "option", "sidecar", "metadata" or "default"."""

    values: dict[str, Any]
    sources: dict[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def assumed(self, name: str) -> bool:
        """Whether nobody answered, so that the default stands."""
        return self.sources[name] == "default"


def settle(options: Mapping[str, Any] | None = None, sidecar: Mapping[str, Any] | None = None,
           metadata: Mapping[str, Any] | None = None) -> Answers:  # fmt: skip
    """Collect the answers by precedence.

    Args:
        options: from the caller; an unknown name is an error, None means not given.
        sidecar: contents of a JSON file beside the checkpoint; other entries are ignored.
        metadata: of a safetensors file: entries named as options, or one JSON object under
            ``dense_iso_vit``.

    Raises:
        ModelLoadError: an unknown option or an impossible value.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise ModelLoadError(
            f"unknown options {', '.join(unknown)}; Dense-Iso-ViT knows {', '.join(OPTIONS)}"
        )
    sources = {
        "option": given,
        "sidecar": sidecar or {},
        "metadata": _from_metadata(metadata or {}),
    }
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, option in OPTIONS.items():
        values[name], origin[name] = option.default, "default"
        for source, entries in sources.items():
            if entries.get(name) is None:
                continue
            try:
                values[name], origin[name] = option.parse(entries[name]), source
            except (ValueError, TypeError) as error:
                raise ModelLoadError(f"{source} {name}={entries[name]!r}: {error}") from error
            break
    return Answers(values, origin)


def _from_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        nested = json.loads(metadata.get(METADATA_KEY) or "{}")
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"metadata entry {METADATA_KEY!r} is not JSON: {error}") from error
    return {**metadata, **nested} if isinstance(nested, dict) else metadata


def activations(head: tuple[HeadLayer, ...], names: tuple[str, ...], place: str) -> list[str]:
    """The activation after every convolution of the head.

    Raises:
        ModelLoadError: a list of another length than the head.
    """
    if len(names) > 1:
        if len(names) != len(head):
            raise ModelLoadError(
                f"head_activation has {len(names)} entries for {len(head)} convolutions"
            )
        return list(names)
    name = next(iter(names), "none")
    places = at_place(head, place)
    return [name if i in places else "none" for i in range(len(head))]


def at_place(head: Sequence[HeadLayer], place: str) -> list[int]:
    """The convolutions that have an activation at ``place``, one of `PLACES`."""
    shuffles = [i for i, layer in enumerate(head) if layer.shuffle > 1]
    first = shuffles[0] if shuffles else len(head)
    last = shuffles[-1] if shuffles else len(head)
    return {
        "all": list(range(len(head) - 1)),
        "fusion": list(range(min(first, len(head) - 1))),
        "shuffle": [i for i in shuffles if i < len(head) - 1],
        "between": [i for i in shuffles if i < last],
    }[place]
