"""Reads state dicts of a Dense-Iso-ViT in this project's own naming."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ModelLoadError
from ..windowed.network import NETWORK_PREFIX
from .config import RGB, DenseIsoViTConfig, HeadLayer
from .meta import META_KEY, decode
from .network import DenseIsoViT


def without_wrapper(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A new dict, in this project's naming, without the prefix that `WindowedUpscaler` adds."""
    if all(key.startswith(NETWORK_PREFIX) for key in state_dict):
        return {key[len(NETWORK_PREFIX) :]: tensor for key, tensor in state_dict.items()}
    return dict(state_dict)


def infer_config(state_dict: Mapping[str, Tensor]) -> DenseIsoViTConfig:
    """The configuration of a state dict in this project's own naming.

    With a `META_KEY` nothing is left open: ``infer_config(DenseIsoViT(c).state_dict()) == c``.
    Without it, the tensors can't tell these, which keep their defaults: heads (`default_heads`),
    stage_norm_routing, activations of the head, gated_half, norm_eps, skip, align_corners,
    value_range; and window without a position embedding.

    Raises:
        ModelLoadError: a tensor is missing, left over or of a shape that does not fit.
    """
    state_dict = without_wrapper(state_dict)
    if META_KEY in state_dict:
        config = decode(state_dict.pop(META_KEY))
        try:
            check_shapes(config, state_dict)
        except ModelLoadError as error:
            raise ModelLoadError(
                f"what the file says of its network ({META_KEY}) and its tensors contradict each "
                f"other, so it is damaged: {error}; download or save it again"
            ) from error
        except (RuntimeError, OverflowError, MemoryError) as error:  # sizes that no tensor can have
            raise ModelLoadError(f"{META_KEY} describes no network: {error}") from error
        return config

    def indices(pattern: str) -> list[int]:
        return sorted({int(match[1]) for key in state_dict if (match := re.match(pattern, key))})

    try:
        patch = state_dict["patch_embedding.weight"]
        stages = indices(r"stages\.(\d+)\.blocks\.")
        blocks = [f"stages.{i}.blocks.0." for i in stages]
        position = state_dict.get("position_embedding")
        convolutions = [state_dict[f"head.{i}.weight"] for i in indices(r"head\.(\d+)\.weight")]
        # channels after the PixelShuffle of every layer
        entered = [weight.shape[1] for weight in convolutions[1:]] + [RGB]
        patch_size = patch.shape[-1]
        config = DenseIsoViTConfig(
            window=64 if position is None else math.isqrt(position.shape[1]) * patch_size,
            patch_size=patch_size,
            dims=tuple(state_dict[block + "norm1.weight"].shape[0] for block in blocks),
            depths=tuple(len(indices(rf"stages\.{i}\.blocks\.(\d+)\.")) for i in stages),
            hidden=tuple(state_dict[block + "gdfn.path_1.weight"].shape[0] for block in blocks),
            patch_bias="patch_embedding.bias" in state_dict,
            qkv_bias=blocks[0] + "attention.qkv.bias" in state_dict,
            projection=blocks[0] + "attention.projection.weight" in state_dict,
            projection_bias=blocks[0] + "attention.projection.bias" in state_dict,
            g_proj_bias=blocks[0] + "gdfn.g_proj.bias" in state_dict,
            path_bias=blocks[0] + "gdfn.path_1.bias" in state_dict,
            out_proj_bias=blocks[0] + "gdfn.out_proj.bias" in state_dict,
            layer_scale=blocks[0] + "layer_scale_1" in state_dict,
            patch_norm="patch_norm.weight" in state_dict,
            position_embedding=position is not None,
            stage_norms=tuple(f"stages.{i}.norm.weight" in state_dict for i in stages),
            transitions=tuple(f"transitions.{i}.linear.weight" in state_dict for i in stages[:-1]),
            transition_bias=bool(indices(r"transitions\.(\d+)\.linear\.bias")),
            transition_norm=next(
                (
                    place
                    for place in ("before", "after")
                    if indices(rf"transitions\.(\d+)\.norm_{place}\.")
                ),
                "none",
            ),
            fusion_norm="fusion_norm.weight" in state_dict,
            head=tuple(
                HeadLayer(
                    channels=weight.shape[0],
                    kernel=weight.shape[-1],
                    shuffle=math.isqrt(weight.shape[0] // after),
                    bias=f"head.{i}.bias" in state_dict,
                )
                for i, (weight, after) in enumerate(zip(convolutions, entered))
            ),
        )
        check_shapes(config, state_dict)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"not a Dense-Iso-ViT in this project's naming: {error}") from error
    return config


def check_shapes(config: DenseIsoViTConfig, state_dict: Mapping[str, Tensor]) -> None:
    """Raise ModelLoadError unless ``state_dict`` has exactly the tensors of ``config``."""
    with torch.device("meta"):
        expected = {
            key: tuple(tensor.shape) for key, tensor in DenseIsoViT(config).state_dict().items()
        }
    del expected[META_KEY]  # a file need not have it
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items() if key != META_KEY}
    wrong = [
        f"{key}: found {found.get(key, 'nothing')}, expected {expected.get(key, 'nothing')}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    if wrong:
        raise ModelLoadError(
            "tensors do not fit: " + "; ".join(wrong[:5]) + (" ..." if len(wrong) > 5 else "")
        )
