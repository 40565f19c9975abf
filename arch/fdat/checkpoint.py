"""Infers the configuration of an FDAT from the tensors of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import ModelLoadError
from .config import PRESETS, UNSHUFFLED_SCALE, FDATConfig, preset_name
from .upsampler import DYSAMPLE_GROUPS, UPSAMPLER_TYPES


def simplest_ratio(dim: int, hidden_dim: int) -> float:
    """The decimal with the fewest digits for which ``int(dim * ratio) == hidden_dim``.

    For example 1.7 for a ``hidden_dim`` of 183 at a ``dim`` of 108.
    """
    for digits in range(4):
        first = math.floor(hidden_dim / dim * 10**digits)
        for numerator in (first, first + 1):
            if int(dim * (numerator / 10**digits)) == hidden_dim:
                return numerator / 10**digits
    return (hidden_dim + 0.5) / dim


def _kind(state_dict: Mapping[str, Tensor], prefix: str) -> str:
    """What a block's attention works on, by the tensor that only this kind has."""
    for kind, name in (("spatial", "bias"), ("channel", "temp")):
        if prefix + name in state_dict:
            return kind
    raise ModelLoadError(
        f"FDAT: '{prefix}bias' (attention in windows) and '{prefix}temp' (between channels) are both missing, and a "
        "block has one of them; the checkpoint is damaged, or of a variant"
    )


def shortest_pattern(kinds: list[str]) -> tuple[str, ...]:
    """The shortest sequence whose repetition is ``kinds``."""
    for length in range(1, len(kinds) + 1):
        if len(kinds) % length == 0 and kinds[:length] * (len(kinds) // length) == kinds:
            return tuple(kinds[:length])
    raise ModelLoadError("FDAT: the first group has no blocks")


def infer_config(state_dict: Mapping[str, Tensor], *, scale: int | None = None) -> FDATConfig:
    """Infer the configuration from the tensors of a checkpoint.

    ``infer_config(FDAT(c).state_dict()) == c``, up to what tensors don't determine:
        drop_path_rate: that of the preset with the same sizes, else 0.1; it has no effect in
            inference.
        window_size: 8 if the pattern has no spatial block; it has no effect then.
        mid_dim: from MetaUpsample (64 without) for the upsamplers that don't use it; it has no
            effect then.
        scale: for ``lda``, and for ``pa_up`` and ``nearest+conv`` with one step (2 or 3), from
            MetaUpsample.
        aim_reduction_ratio, ffn_expansion_ratio: several ratios give the same integer width. Taken
            is a power of two for the first, and the shortest decimal for the second.

    Args:
        state_dict: a checkpoint's tensors, without wrappers and prefixes. Not modified.
        scale: output size / input size; needed if neither tensors nor MetaUpsample determine it.

    Raises:
        ModelLoadError: something is missing or contradicts itself.
    """
    unshuffled = "conv_first.1.weight" in state_dict
    first = state_dict["conv_first.1.weight" if unshuffled else "conv_first.weight"].shape
    embed_dim = first[0]
    prefix = "groups.0.blocks."
    depth = len({key.split(".")[3] for key in state_dict if key.startswith(prefix)})
    kinds = [_kind(state_dict, f"{prefix}{i}.attn.") for i in range(depth)]
    pattern = shortest_pattern(kinds)
    if "spatial" in kinds:
        heads, positions, _ = state_dict[f"{prefix}{kinds.index('spatial')}.attn.bias"].shape
        window_size = math.isqrt(positions)
    else:
        heads, window_size = state_dict[f"{prefix}0.attn.temp"].shape[0], 8
    bottleneck = state_dict[f"{prefix}0.inter.cg.1.weight"].shape[0]
    reductions = [r for r in (8, 4, 16, 2, 32, 1) if embed_dim // r == bottleneck]
    upsampler = infer_upsampler(
        {
            key.removeprefix("upsampler."): value
            for key, value in state_dict.items()
            if key.startswith("upsampler.")
        },
        embed_dim,
        None if unshuffled else first[1],
        UNSHUFFLED_SCALE if unshuffled else scale,
    )
    if unshuffled:
        unshuffle = infer_unshuffle(first[1], int(upsampler["num_out_ch"]), scale)
        num_in_ch, net_scale = first[1] // unshuffle**2, UNSHUFFLED_SCALE // unshuffle
    else:
        num_in_ch, net_scale = first[1], int(upsampler["scale"])
    if scale is not None and scale != net_scale:
        raise ModelLoadError(
            f"FDAT: the option scale={scale} contradicts the checkpoint, which upscales x{net_scale}"
        )
    config = FDATConfig(
        num_in_ch=num_in_ch,
        num_out_ch=int(upsampler["num_out_ch"]),
        scale=net_scale,
        embed_dim=embed_dim,
        num_groups=len({key.split(".")[1] for key in state_dict if key.startswith("groups.")}),
        depth_per_group=depth // len(pattern),
        num_heads=heads,
        window_size=window_size,
        ffn_expansion_ratio=simplest_ratio(
            embed_dim, state_dict[f"{prefix}0.ffn.fc1.weight"].shape[0]
        ),
        aim_reduction_ratio=reductions[0] if reductions else embed_dim // bottleneck,
        group_block_pattern=pattern,
        upsampler_type=str(upsampler["upsampler_type"]),
        mid_dim=int(upsampler["mid_dim"]),
        unshuffle_mod=unshuffled,
    )
    name = preset_name(config)
    return replace(config, drop_path_rate=PRESETS[name].drop_path_rate) if name else config


def infer_unshuffle(channels: int, num_out_ch: int, scale: int | None) -> int:
    """The factor, 2 or 4, of a pixel unshuffle that makes ``channels`` of an image's.

    Where both are possible, the image has as many channels as the result, else those of grey, RGB
    or RGBA; ``scale``, of the network, settles what is left open.

    Raises:
        ModelLoadError: neither is possible, or both are.
    """
    possible = {factor: channels // factor**2 for factor in (2, 4) if channels % factor**2 == 0}
    for likely in ((num_out_ch,), (1, 3, 4)):
        factors = [factor for factor, count in possible.items() if count in likely]
        if len(factors) > 1 and scale is not None:
            factors = [factor for factor in factors if UNSHUFFLED_SCALE // factor == scale]
        if len(factors) == 1:
            return factors[0]
    given = [factor for factor in possible if UNSHUFFLED_SCALE // factor == scale]
    if len(possible) == 1 or given:
        return (given or list(possible))[0]
    if possible:
        raise ModelLoadError(
            f"FDAT: conv_first.1 takes {channels} channels, which may be a pixel unshuffle by 2 (an x2 network) or 4 "
            "(an x1 network); pass the option scale="
        )
    raise ModelLoadError(
        f"FDAT: conv_first.1 takes {channels} channels; a pixel unshuffle by 2 or 4 was expected"
    )


def infer_upsampler(
    state_dict: Mapping[str, Tensor],
    embed_dim: int,
    num_in_ch: int | None,
    scale: int | None = None,
    of: str = "FDAT",
) -> dict[str, int | str]:
    """Infer type and sizes of an upsampler from its tensors (keys without ``upsampler.``).

    The weights decide; ``MetaUpsample`` settles what they leave open: the scale of ``lda`` and of
    one-step ``nearest+conv`` and ``pa_up`` (2 or 3), the unused ``mid_dim``, and which of the types
    a single convolution is.

    Args:
        state_dict: the tensors below ``upsampler.``.
        embed_dim: width of the features.
        num_in_ch: input channels of the image, the first guess for ``num_out_ch`` if the weights
            leave it open; None if unknown.
        scale: the upsampler's scale if the caller knows it; needed if neither the tensors nor
            ``MetaUpsample`` determine it.
        of: the network's name, for errors.

    Returns:
        ``upsampler_type``, ``scale`` (of the upsampler itself), ``num_out_ch``, ``mid_dim``.

    Raises:
        ModelLoadError: no known upsampler fits, or the scale can't be inferred.
    """
    meta = None
    # a checkpoint that was cast as a whole holds these integers in half precision
    if "MetaUpsample" in state_dict:
        meta = [round(number) for number in state_dict["MetaUpsample"].flatten().tolist()]
    if meta is not None and (
        len(meta) != 7 or not 0 <= meta[1] < len(UPSAMPLER_TYPES) or meta[2] < 1
    ):
        raise ModelLoadError(
            f"{of}: upsampler.MetaUpsample holds {meta[:9]}; expected 7 numbers, the second below 8, the "
            "third, a scale, at least 1: the checkpoint is damaged"
        )
    meta_type = UPSAMPLER_TYPES[meta[1]] if meta else None
    meta_mid = meta[5] if meta else 64
    convs = {
        int(key.split(".")[0]): value.shape
        for key, value in state_dict.items()
        if key.endswith(".weight") and key.count(".") == 1 and value.ndim == 4
    }
    chain = [convs[index] for index in sorted(convs)]

    def told_scale(kind: str) -> int:
        found = scale or (meta[2] if meta and meta_type == kind else None)
        if found is None:
            raise ModelLoadError(
                f"{of}: the scale of upsampler {kind!r} can't be told from its tensors and there is no MetaUpsample; "
                "pass the option scale="
            )
        return found

    def found(
        kind: str, scale: int, num_out_ch: int, mid_dim: int = meta_mid
    ) -> dict[str, int | str]:
        return {
            "upsampler_type": kind,
            "scale": scale,
            "num_out_ch": num_out_ch,
            "mid_dim": mid_dim,
        }

    def suffixed(suffix: str) -> list[torch.Size]:
        return [value.shape for key, value in state_dict.items() if key.endswith(suffix)]

    if offsets := suffixed(".offset.weight"):
        steps = math.isqrt(offsets[0][0] // (2 * DYSAMPLE_GROUPS))
        return found("dysample", steps, suffixed(".end_conv.weight")[0][0], offsets[0][1])
    if queries := suffixed(".proj_q.weight"):
        return found("lda", told_scale("lda"), chain[-1][0], queries[0][1])
    if gates := suffixed(".conv.0.weight"):
        pa_scale = 2 ** len(gates) if len(gates) > 1 else told_scale("pa_up")
        return found("pa_up", pa_scale, chain[-1][0], gates[0][0])
    if sorted(convs) in ([0, 1], [0, 2, 3]):
        transposed = {(2, 4): 2, (2, 3): 3, (3, 4): 4}.get((len(chain), chain[0][2]))
        if transposed and chain[-1][0] == chain[-1][1]:
            return found("transpose+conv", transposed, chain[-1][0])
    if len(chain) == 1:
        return _infer_single_conv(chain[0][0], meta, meta_type, num_in_ch, scale, found, of)
    if len(chain) > 2 and chain[0][0] == embed_dim == chain[1][0]:
        return found(
            "nearest+conv",
            2 ** (len(chain) - 2) if len(chain) > 3 else told_scale("nearest+conv"),
            chain[-1][0],
        )
    if len(chain) > 2 and chain[1][0] in (4 * chain[0][0], 9 * chain[0][0]):
        shuffle = 3 if chain[1][0] == 9 * chain[0][0] else 2 ** (len(chain) - 2)
        return found("pixelshuffle", shuffle, chain[-1][0], chain[0][0])
    raise ModelLoadError(
        f"{of}: no known upsampler has the weights { ({i: tuple(s) for i, s in sorted(convs.items())}) }; "
        f"known types: {', '.join(UPSAMPLER_TYPES)}"
    )


def _infer_single_conv(rows, meta, meta_type, num_in_ch, scale, found, of):  # type: ignore[no-untyped-def]
    """One 3x3 convolution to ``rows`` channels: ``pixelshuffledirect``, or any type at scale 1."""
    if meta_type == "pixelshuffledirect":
        if rows % meta[2] ** 2:
            raise ModelLoadError(
                f"{of}: an upsampler convolution with {rows} outputs is no pixel shuffle by {meta[2]}, which "
                "upsampler.MetaUpsample names as its scale: the checkpoint is damaged"
            )
        return found("pixelshuffledirect", meta[2], rows // meta[2] ** 2)
    if meta_type is not None:  # whatever scale a "conv" checkpoint claims, it does not upscale
        return found(meta_type, 1, rows)
    if scale is not None and rows % scale**2 == 0:
        return found("pixelshuffledirect" if scale > 1 else "conv", scale, rows // scale**2)
    for channels in (num_in_ch, 3, 1, 4):
        if (
            channels
            and rows % channels == 0
            and math.isqrt(rows // channels) ** 2 == rows // channels
        ):
            factor = math.isqrt(rows // channels)
            return found("pixelshuffledirect" if factor > 1 else "conv", factor, channels)
    raise ModelLoadError(
        f"{of}: an upsampler convolution with {rows} outputs is no image and no pixel shuffle of one"
    )
