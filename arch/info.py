"""Describes a model as text: architecture, scale, channels, precision, training, assumptions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from spandrel import ModelBase
from torch import nn

from ..common.printable import printable, shortened

PURPOSES = {
    "SR": "super resolution",
    "FaceSR": "super resolution of faces",
    "Restoration": "restoration",
    "Inpainting": "inpainting",
}
COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}
LONGEST_VALUE = 160  # characters of a metadata entry
MOST_ENTRIES = 50
_SAID_ABOVE = ("architecture", "scale")  # by other lines


@dataclass(frozen=True)
class CheckpointFile:
    """What is known of the file that a model came from.

    Attributes:
        name: the file's name without folders.
        size: in bytes.
        metadata: those of a safetensors file; other types have none.
        path: where it is.
        options: with which it was loaded.
    """

    name: str
    size: int
    metadata: Mapping[str, str]
    path: Path
    options: Mapping[str, Any]


_files: WeakKeyDictionary[nn.Module, CheckpointFile] = WeakKeyDictionary()


def remember_file(
    descriptor: ModelBase, path: Path, metadata: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    """Remember the file of a model as long as the model lives."""
    _files[descriptor.model] = CheckpointFile(
        path.name, path.stat().st_size, dict(metadata), path, dict(options)
    )


def origin(descriptor: ModelBase) -> tuple[Path, Mapping[str, Any]] | None:
    """The file that `arch.load_model` read a model from, and with which options; None for models of
    other loaders."""
    file = _files.get(descriptor.model)
    return file and (file.path, file.options)


def describe(descriptor: ModelBase, *, whole: bool = False) -> str:
    """Say what a model is, in lines of ``Name: value``, in English.

    The first two are for everyone: what it does, and on which pictures it was trained.

    Args:
        descriptor: of any architecture and from any loader. File and training metadata are known
            for models that `arch.load_model` read from a file. A network may say what its loader
            assumed in an attribute ``assumptions`` (strings).
        whole: also long values of the training metadata, and all of them.

    Raises:
        ValueError: ``descriptor`` is not a spandrel descriptor.
    """
    if not isinstance(descriptor, ModelBase):
        raise ValueError(
            f"the model is a {type(descriptor).__name__}; a model of an upscale model loader was expected "
            "(a spandrel descriptor)"
        )
    file = _files.get(descriptor.model)
    assumptions = list(getattr(descriptor.model, "assumptions", ()))
    tags = [tag for tag in descriptor.tags if tag not in assumptions]
    metadata = file.metadata if file else {}
    facts = {
        "What it does": _deed(descriptor, metadata),
        "Trained on": _training(metadata),
        "File": f"{file.name}, {_mebibytes(file.size)}"
        if file
        else "not known (from another loader or a state dict)",
        "Architecture": descriptor.architecture.name,
        "Purpose": PURPOSES.get(descriptor.purpose, descriptor.purpose),
        "Scale": f"x{descriptor.scale}",
        "Channels": _channels(descriptor),
        "Parameters": f"{sum(parameter.numel() for parameter in descriptor.model.parameters()):,}",
        "Size": _size(descriptor),
        "Precision": _precisions(descriptor),
        "Input": _input(descriptor),
        "Modes": "exact, tile, whole"
        if hasattr(descriptor.model, "exact_engine")
        else "tile, whole",
        "Tags": ", ".join(tags) or "none",
    }
    lines = [f"{name}: {shortened(value)}" for name, value in facts.items()]
    lines += _listed("Assumed", [shortened(assumption) for assumption in assumptions])
    if file is None:
        return "\n".join([*lines, "Training metadata: not known without the file"])
    entries, rest = [], []
    for name, value in sorted(file.metadata.items()):
        text = _readable(value)
        name = printable(name.replace("_", " "))
        if text is None:
            rest.append(name)
        elif name.lower() not in _SAID_ABOVE:
            entries.append(f"{name}: {printable(text) if whole else _shortened(text)}")
    if (left_out := len(entries[MOST_ENTRIES:])) and not whole:
        entries = [*entries[:MOST_ENTRIES], f"… {left_out} more"]
    if rest:
        names = ", ".join(rest)
        entries.append(f"for programs: {names if whole else _shortened(names)}")
    return "\n".join(
        lines + (_listed("Training metadata", entries) or ["Training metadata: none in the file"])
    )


def _listed(title: str, entries: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {entry}" for entry in entries)] if entries else []


def _deed(descriptor: ModelBase, metadata: Mapping[str, str]) -> str:
    """What the model does to a picture, and how many times it enlarges it."""
    scale = descriptor.scale
    enlarges = f"enlarges pictures {scale} times" if scale > 1 else "does not enlarge them"
    deeds = {
        "SR": enlarges if scale > 1 else "cleans pictures, and does not enlarge them",
        "FaceSR": enlarges.replace("pictures", "faces"),
        "Restoration": f"restores pictures, and {enlarges.replace('pictures', 'them')}",
        "Inpainting": "fills in what a mask covers",
    }
    said = metadata.get("purpose") or deeds.get(descriptor.purpose, enlarges)
    says_scale = re.search(rf"\b{scale}\b", said)
    return said if scale == 1 or says_scale else f"{said}; {enlarges}"


def _training(metadata: Mapping[str, str]) -> str:
    """The pictures that the model was trained on, and what had been done to them."""
    parts = []
    if pictures := metadata.get("training_data"):
        licence = metadata.get("training_data_licence")
        count = len(pictures.split(", "))
        parts.append(
            (f"{count} pictures" if count > 1 else pictures) + f" ({licence})" * bool(licence)
        )
    if worse := metadata.get("degradation"):
        parts.append(worse if worse.startswith("made ") else f"degradation: {worse}")
    return ", ".join(parts) or "not known; the file does not say"


def _channels(descriptor: ModelBase) -> str:
    entering, leaving = (
        f"{count} ({COLOURS[count]})" if count in COLOURS else str(count)
        for count in (descriptor.input_channels, descriptor.output_channels)
    )
    return entering if entering == leaving else f"{entering} in, {leaving} out"


def _size(descriptor: ModelBase) -> str:
    """Size and type of the weights in memory now."""
    tensors = [*descriptor.model.parameters(), *descriptor.model.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return f"{_mebibytes(size)} in memory, as {str(descriptor.dtype).removeprefix('torch.')}"


def _precisions(descriptor: ModelBase) -> str:
    supported = {
        "fp32": True,
        "fp16": descriptor.supports_half,
        "bf16": descriptor.supports_bfloat16,
    }
    without = [name for name, works in supported.items() if not works]
    text = ", ".join(name for name, works in supported.items() if works)
    return f"{text} (not {', '.join(without)})" if without else text


def _input(descriptor: ModelBase) -> str:
    clip = getattr(descriptor.model, "clip_contract", None)
    size = _size_of_input(descriptor)
    return f"{clip.before + 1 + clip.after} successive frames, {size}" if clip else size


def _size_of_input(descriptor: ModelBase) -> str:
    contract = getattr(descriptor.model, "tile_contract", None)
    if contract is not None and contract.window is not None:
        return f"any size, in windows of {contract.window}x{contract.window}"
    wanted = descriptor.size_requirements
    limits = [f"at least {wanted.minimum} pixels"] if wanted.minimum > 1 else []
    limits += [f"multiples of {wanted.multiple_of}"] if wanted.multiple_of > 1 else []
    limits += ["square"] if wanted.square else []
    return f"any size, padded ({', '.join(limits)})" if limits else "any size"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.2f} MiB"


def _readable(value: str) -> str | None:
    """A value of the metadata in words; None for data that only programs read."""
    try:
        data = json.loads(value) if value[:1] in "[{" else None
    except (ValueError, RecursionError):  # no JSON after all
        return value
    if data is None:
        return value
    plain = str | int | float
    if not isinstance(data, dict) or not all(isinstance(one, plain) for one in data.values()):
        return None
    text = ", ".join(f"{name} {one}" for name, one in data.items())
    return text if len(text) <= LONGEST_VALUE else None


def _shortened(value: str) -> str:
    if len(value) > LONGEST_VALUE:
        value = f"{value[:LONGEST_VALUE]}… ({len(value):,} characters)"
    return printable(value)
