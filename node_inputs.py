"""Inputs of the nodes, made of declared options, and what comes of their values."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from comfy_api.latest import io

from .common.option import Option, Place, offered_in

FOLDED: dict[str, Any] = (
    {"advanced": True}
    if "advanced" in inspect.signature(io.String.Input.__init__).parameters
    else {}
)
"""Of an input that a node hides until one asks for all; older hosts show every input."""


def schema(**fields: Any) -> io.Schema:
    """A schema without the fields that this host's version does not know yet."""
    return io.Schema(
        **{name: value for name, value in fields.items() if name in io.Schema.__dataclass_fields__}
    )


def model_input() -> io.Input:
    """The model of every node that upscales."""
    return io.UpscaleModel.Input(
        "upscale_model", tooltip="A model from this pack's, ComfyUI's or another pack's loader."
    )


def option_inputs(options: Iterable[Option], place: Place) -> list[io.Input]:
    """Inputs for the options that the node of this place offers."""
    offered = sorted(offered_in(place, options), key=lambda option: option.appended)
    return [option_input(option) for option in offered]


def option_input(option: Option) -> io.Input:
    """The input for one option; none has to be given."""
    fields: dict[str, Any] = {"optional": True, "tooltip": option.sentence("picture")}
    if option.advanced:
        fields |= FOLDED
    if option.kind == "mask":  # a socket, which has no value of its own
        return io.Mask.Input(option.name, **fields)
    fields["default"] = option.shown
    if option.kind == "choice":
        return io.Combo.Input(option.name, options=list(option.choices), **fields)
    if option.kind == "text":
        return io.String.Input(option.name, **fields)
    if option.kind == "bool":
        return io.Boolean.Input(option.name, **fields)
    limits = {
        "min": option.least if option.unset is None else option.unset,
        "max": option.offered if option.largest is None else option.largest,
        "step": option.step,
    }
    fields |= {name: limit for name, limit in limits.items() if limit is not None}
    kinds = {"int": io.Int, "float": io.Float}
    return kinds[option.kind].Input(option.name, **fields)


def option_values(
    options: Iterable[Option], place: Place, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Values by name, as the engine takes them; an option that was not given has its default."""
    values = {}
    for option in offered_in(place, options):
        shown = given.get(option.name)
        values[option.name] = option.default if shown is None else option.value(shown)
    return values
