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
PLACES = ("all", "fusion", "shuffle", "between")
RETIRED = {"swap_paths": "false", "residual": "network", "head_activation_place": "all"}


def _integers(value: Any) -> tuple[int, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(int(item) for item in ([items] if isinstance(items, int) else items))


def _boolean(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError("expected true or false")
    return known[str(value).lower()]


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return value

    return parse


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


# name: parser; default (None: depends on the checkpoint). docs/dense-iso-vit.md explains them.
OPTIONS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "heads": (_integers, None),
    "qkv_layout": (_one_of(*QKV_LAYOUTS), "3hd"),
    "gated_half": (_one_of("second", "first", "second swapped", "first swapped"), "second"),
    "head_activation": (_activations, ("none",)),
    "shuffles": (_one_of("once", "twos"), "once"),
    "stage_norm_routing": (_one_of(*CHOICES["stage_norm_routing"]), "both"),
    "norm_eps": (float, 1e-5),
    "skip": (_one_of(*CHOICES["skip"]), "bilinear"),
    "align_corners": (_boolean, False),
    "value_range": (_one_of(*CHOICES["value_range"]), "0..1"),
    "window": (int, 64),
    "depths": (_integers, None),
    "container": (str, None),
    "prefix": (str, None),
}


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
    values = {name: default for name, (_, default) in OPTIONS.items()}
    origin = dict.fromkeys(OPTIONS, "default")
    for source, entries in reversed(sources.items()):
        for name, only in RETIRED.items():
            if str(entries.get(name) or only).lower() != only:
                raise ModelLoadError(f"{source} {name}={entries[name]!r} is no longer read")
        for name, (parse, _) in OPTIONS.items():
            try:
                if entries.get(name) is not None:
                    values[name], origin[name] = parse(entries[name]), source
            except (ValueError, TypeError, OverflowError) as error:
                raise ModelLoadError(f"{source} {name}={entries[name]!r}: {error}") from error
    return Answers(values, origin)


def activations(
    head: Sequence[HeadLayer], names: Sequence[str], place: str | None = None
) -> list[str]:
    """The activation after every convolution of the head, from one name for each, or one for all
    at a ``place``: without, at what stands behind its "@", or at "all"."""
    if 1 < len(names) != len(head):
        raise ModelLoadError(
            f"head_activation has {len(names)} entries for {len(head)} convolutions"
        )
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
