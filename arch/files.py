"""Reads checkpoint files without running code that is in them."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import ModelLoadError
from .kinds import PICKLED, SAFETENSORS, kind_of

SAFE_PICKLES = (2, 6)
"""Before this torch, ``weights_only`` could be got round (CVE-2025-32434)."""

MOST_SHARED = 2000  # names of tensors that a safetensors file stores under another name


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a checkpoint onto the CPU.

    Args:
        path: a safetensors file, or one that torch.save wrote and that holds nothing but tensors
            and plain containers. Its first bytes tell which, whatever it is called.

    Returns:
        The content (a state dict, or containers around one) and the metadata of a safetensors file.

    Raises:
        ModelLoadError: no such file, of another kind, damaged, holding anything else than data, or
            pickled where torch is older than `SAFE_PICKLES`.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "a pipe, a device or a socket"
        if not path.exists():
            what = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise ModelLoadError(f"{path}: {what}; check the path")
    if path.stat().st_size == 0:
        raise ModelLoadError(f"{path.name}: the file is empty; download it again")
    kind = kind_of(path)
    if kind not in (SAFETENSORS, PICKLED):
        raise ModelLoadError(f"{path.name}: {kind}")
    content = _read_safetensors(path) if kind == SAFETENSORS else (_read_pickled(path), {})
    if isinstance(content[0], list | tuple) and any(isinstance(one, Mapping) for one in content[0]):
        return {str(index): one for index, one in enumerate(content[0])}, content[1]
    if not isinstance(content[0], Mapping):
        found = type(content[0]).__name__
        raise ModelLoadError(
            f"{path.name}: holds a {found}, not a state dict; save model.state_dict() instead"
        )
    return content  # type: ignore[return-value]


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError, json.JSONDecodeError) as error:
        raise ModelLoadError(
            f"{path.name}: not a readable safetensors file ({error}); it is truncated or damaged: "
            "download it again"
        ) from error
    # safetensors' save_model stores a shared tensor under one of its names; the metadata map its
    # other names to that one
    shared = {
        name: kept
        for name, kept in metadata.items()
        if kept in tensors and name not in tensors and kept != name
    }
    if len(shared) > MOST_SHARED:
        raise ModelLoadError(
            f"{path.name}: its metadata name {len(shared)} more tensors than it holds, and no "
            f"network shares more than {MOST_SHARED}; it is damaged: download it again"
        )
    return tensors | {name: tensors[kept] for name, kept in shared.items()}, metadata


def _plain_data() -> list[Any]:
    """Parsed arguments and numpy's numbers: training programs store them beside tensors, and they
    are only data."""
    number: Any = numpy.float64().__reduce__()[0]
    names = [(number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = [type(numpy.dtype(code)) for code in "?bBhHiIlLqQefd"]
    return [argparse.Namespace, numpy.dtype, *names, *kinds]


def _read_pickled(path: Path) -> Any:
    if torch.__version__ < SAFE_PICKLES:  # type: ignore[operator]
        raise ModelLoadError(
            f"{path.name}: torch {torch.__version__} can't read files of torch.save without risk "
            "(CVE-2025-32434); install torch 2.6 or newer, or convert the file to .safetensors"
        )
    try:
        # an open file: of a path torch.load looks at the name
        with torch.serialization.safe_globals(_plain_data()), path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"holds more than tensors: {wanted[1]}"
            if wanted
            else "is truncated, damaged, or holds more than tensors"
        )
        raise ModelLoadError(
            f"{path.name}: refused, because it {reason}. Nothing in it was run. If you trust its source, convert it to "
            ".safetensors with the program that made it"
        ) from error
    except Exception as error:  # a damaged pickle can raise almost any exception
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ModelLoadError(
            f"{path.name}: can't be read: truncated, or no PyTorch checkpoint ({reason}); download it again"
        ) from error


def read_sidecar(checkpoint: str | Path) -> dict[str, Any]:
    """The options in the JSON file beside a checkpoint, "model.json" for "model.pth".

    Empty if there is no such file.

    Raises:
        ModelLoadError: the file is there and holds no JSON object.
    """
    path = Path(checkpoint).with_suffix(".json")
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ModelLoadError(f"sidecar {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(
            f"sidecar {path.name} holds a {type(content).__name__}, expected an object of options"
        )
    return content
