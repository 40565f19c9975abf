"""Networks whose tensors look like FDAT's, and which compute something else.

Sources of the names: traiNNer-redux (TFDAT, which `arch.more.tfdat` reads; LHAN, FDAT's forerunner
of June 2025, whose first version had upsamplers of its own) and the description of FDAT-RD by its author.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

REQUIRED = (
    "groups.0.blocks.0.n1.weight",
    "groups.0.blocks.0.inter.cg.1.weight",
    "groups.0.blocks.0.ffn.fc1.weight",
    "groups.0.blocks.0.ffn.smix.weight",
    "conv_after.weight",
)


def is_named_like_fdat(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of FDAT or of a relative."""
    first = "conv_first.weight" in state_dict or "conv_first.1.weight" in state_dict
    return first and all(key in state_dict for key in REQUIRED)


def takes_frames(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether there are tensors of TFDAT beside FDAT's."""
    return any(key.startswith(("flow_net.", "temporal_fuse.")) for key in state_dict)


def relative(state_dict: Mapping[str, Tensor]) -> str | None:
    """What the tensors of a relative of FDAT belong to, in half a sentence; None for others."""
    if not is_named_like_fdat(state_dict):
        return None
    if any(key.endswith(".dictionary") and key.startswith("groups.") for key in state_dict):
        return "FDAT-RD (rectangular windows and a dictionary of tokens)"
    biases = (
        v for k, v in state_dict.items() if k.startswith("groups.") and k.endswith(".attn.bias")
    )
    for positions in {value.shape[1] for value in biases if value.ndim == 3}:
        if math.isqrt(positions) ** 2 != positions:
            return f"an FDAT with windows of {positions} positions, which are no squares"
    early = ("upsampler.conv_pre.", "upsampler.conv.", "upsampler.up.", "upsampler.refine.")
    if any(key.startswith(early) for key in state_dict):
        return "the first version of LHAN, FDAT's forerunner, with an upsampler of its own"
    return None
