"""Tensors as others store them, brought to the plain form that the rest of the loader reads.

Weight normalisation is multiplied out, query and value biases beside a fused qkv are joined, shapes
that only broadcast ((C, 1, 1), (1, 1, C)) become vectors, and numbers that describe rather than
compute are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import ModelLoadError

MOST_NUMBERS = (
    4  # elements of an integer tensor that can only describe: a window size, a counter, a flag
)
_MAGNITUDE = re.compile(
    r"(?P<module>.*?)(?:parametrizations\.(?P<new>\w+)\.original0|(?P<old>\w+)_g)"
)


def plain(tensors: Mapping[str, Tensor], chosen: list[str]) -> dict[str, Tensor]:
    """The same network's tensors in plain form and in the same order; what was left out is added to
    ``chosen``.

    Raises:
        ModelLoadError: spectral normalisation or pruning.
    """
    tensors = _without_numbers(tensors, chosen)
    tensors = _without_weight_norm(tensors)
    tensors = _with_joined_biases(tensors)
    return {key: _without_unit_sides(tensor) for key, tensor in tensors.items()}


def counts(tensor: Tensor) -> bool:
    """A buffer 0, 1, 2, ... that indexes an embedding carries nothing."""
    flat = tensor.flatten()
    integral = (
        tensor.dtype in (torch.int64, torch.int32) and not tensor.is_meta and tensor.numel() > 1
    )
    return integral and bool((flat == torch.arange(flat.numel(), device=flat.device)).all())


def _without_numbers(tensors: Mapping[str, Tensor], chosen: list[str]) -> dict[str, Tensor]:
    numbers = [
        key
        for key, tensor in tensors.items()
        if not tensor.is_floating_point() and not tensor.is_complex()
        if tensor.numel() <= MOST_NUMBERS or counts(tensor)
    ]
    described = [key for key in numbers if not counts(tensors[key])]
    if described:
        chosen.append(f"numbers that are no weights left out: {', '.join(described[:4])}")
    return {key: tensor for key, tensor in tensors.items() if key not in set(numbers)}


def _without_weight_norm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``magnitude * direction / |direction|`` in the place of both, before the bias as in a plain
    module."""
    folded: dict[str, dict[str, Tensor]] = {}  # module -> weights
    used: set[str] = set()
    for key, magnitude in tensors.items():
        match = _MAGNITUDE.fullmatch(key)
        if match is None:
            _refuse_reparametrised(key, tensors)
            continue
        other = key[:-1] + "1" if match["new"] else key[:-1] + "v"
        direction = tensors.get(other)
        if direction is None or not _normalises(magnitude, direction):
            continue
        along = [
            axis
            for axis in range(direction.ndim)
            if magnitude.ndim == 0 or magnitude.shape[axis] == 1
        ]
        length = torch.linalg.vector_norm(direction.float(), dim=along, keepdim=True)
        module = match["module"]
        folded.setdefault(module, {})[module + (match["new"] or match["old"])] = (
            magnitude * direction / length
        )
        used |= {key, other}
    if not folded:
        return tensors
    plain: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        own = (
            key[: key.index("parametrizations.")]
            if "parametrizations." in key
            else key[: key.rfind(".") + 1]
        )
        plain.update(folded.pop(own, {}))
        if key not in used:
            plain[key] = tensor
    return plain


def _refuse_reparametrised(key: str, tensors: Mapping[str, Tensor]) -> None:
    start = key.removesuffix("_orig")
    if key.endswith("0._u") or (
        start != key and (start + "_u" in tensors or start + "_mask" in tensors)
    ):
        raise ModelLoadError(
            f"{key}: spectral normalisation or pruning, not a plain weight; save the model again after "
            "torch.nn.utils.parametrize.remove_parametrizations, remove_spectral_norm or prune.remove"
        )


def _normalises(magnitude: Tensor, direction: Tensor) -> bool:
    if magnitude.ndim == 0:
        return True
    sides = list(zip(magnitude.shape, direction.shape))
    return (
        magnitude.ndim == direction.ndim > 1
        and all(m in (1, d) for m, d in sides)
        and any(m == 1 for m, _ in sides)
    )


def _with_joined_biases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``q_bias`` and ``v_bias`` (and perhaps ``k_bias``) beside a fused qkv without bias, as in
    BEiT and Swin V2."""
    result = dict(tensors)
    for key in tensors:
        if not key.endswith("q_bias") or key[:-6] + "v_bias" not in tensors:
            continue
        start = key[:-6]
        names = [start + letter + "_bias" for letter in "qkv"]
        fused = [
            name
            for name, tensor in tensors.items()
            if name.startswith(start)
            and name.endswith("qkv.weight")
            and tensor.shape[0] == 3 * tensors[key].numel()
        ]
        if len(fused) != 1 or fused[0].removesuffix("weight") + "bias" in tensors:
            continue
        zeros = torch.zeros_like(tensors[key])
        joined = torch.cat([tensors.get(name, zeros) for name in names])
        plain: dict[str, Tensor] = {}
        for name, tensor in result.items():
            if name not in names:
                plain[name] = tensor
            if name == fused[0]:
                plain[name.removesuffix("weight") + "bias"] = joined
        result = plain
    return result


def _without_unit_sides(tensor: Tensor) -> Tensor:
    """(C, 1, 1), (1, C, 1, 1), (1, 1, C) as (C,); a single number as (1,)."""
    if (
        tensor.is_floating_point()
        and tensor.ndim != 1
        and tensor.numel() == max(tensor.shape, default=1)
    ):
        return tensor.reshape(-1)
    return tensor
