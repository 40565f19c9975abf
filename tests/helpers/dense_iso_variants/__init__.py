"""Dense-Iso-ViT as others might have written it: each variant with its own classes, names, layouts
and equations.

None uses this project's network. `VARIANTS` maps a name to (constructor, options that tensors can't
tell).
"""

# ruff: noqa: E501

from __future__ import annotations

import math

import torch
from torch import nn

from tests.helpers.dense_iso_variants import (
    layouts,
    libraries,
    orders,
    plans,
    restoration,
    sizes,
    storage,
    transformers,
)
from tests.helpers.dense_iso_variants.random_author import RandomAuthor as RandomAuthor


def published_first() -> nn.Module:
    return libraries.TimmLike((192, 256, 288, 384), (6, 8, 6, 8), 3, 4.0, 192, img=64)


def published_second() -> nn.Module:
    return libraries.TimmLike(
        (192, 256, 288, 384), (6, 8, 6, 8), 3, 3.0, 256, norms=True, fuse="1x1", img=64
    )


VARIANTS = {
    "timm": (libraries.TimmLike, {"heads": (2, 3, 2)}),
    "timm with stage norms": (lambda: libraries.TimmLike(norms=True), {"heads": (2, 3, 2)}),
    "lucid": (libraries.Lucid, {"heads": (2, 5)}),
    "small sibling": (sizes.Small, {"heads": (4, 3, 5), "window": 16}),
    "MultiheadAttention": (libraries.TorchNet, {"heads": (2, 4, 2), "align_corners": True, "head_activation": "gelu"}),
    "Restormer": (libraries.Restormish, {"heads": (3, 4), "gated_half": "first", "head_activation": "none,leaky_relu_0.2,none,none"}),
    "layer scale": (sizes.Scaled, {"heads": (2, 2), "norm_eps": 1e-6}),
    "inside stages": (layouts.InsideStages, {"heads": (2, 3, 4), "stage_norm_routing": "head", "head_activation": "silu@fusion"}),
    "final norm": (sizes.FinalNorm, {"heads": (1, 2), "head_activation": "relu,relu,relu,relu,relu,none,none"}),
    "x2": (sizes.TimesTwo, {"heads": 2, "window": 16, "head_activation": "leaky_relu_0.1@shuffle"}),
    "flat names": (layouts.Flat, {"heads": (2, 3)}),
    "parallel lists": (layouts.ParallelLists, {"heads": (2, 2)}),
    "equal widths, x3": (sizes.EqualWidths, {"heads": (3, 3, 3)}),
    "no transitions, x8": (sizes.TimesEight, {"heads": (2, 2)}),
    "HuggingFace": (libraries.HuggingFace, {"heads": (2, 2), "norm_eps": 1e-12, "head_activation": "gelu@fusion"}),
    "head by head": (sizes.HeadMajor, {"heads": (4, 3), "qkv_layout": "h3d", "value_range": "-1..1"}),
    "token fusion": (sizes.TokenFusion, {"heads": (2, 2), "head_activation": "leaky_relu_0.2@between"}),
    "backwards": (layouts.BackwardsNet, {"heads": (2, 4)}),
    "named gate, patch 8": (layouts.NamedGateNet, {"heads": (2, 3, 4)}),
    "grid, x1": (layouts.Grid, {"heads": (2, 2, 2), "gated_half": "first"}),
    "one stage": (sizes.OneStage, {"heads": 4, "value_range": "0..255"}),
    "timm with everything": (transformers.TimmFull, {"heads": (2, 3, 4), "head_activation": "gelu"}),
    "BERT": (transformers.Bert, {"heads": 4, "head_activation": "silu"}),
    "vit-pytorch": (transformers.VitPytorch, {"heads": 2}),
    "vit-pytorch with unfold": (lambda: transformers.VitPytorch(unfold=True), {"heads": 2}),
    "BEiT in Swin": (transformers.Beit, {"heads": 2}),
    "LLaMA": (transformers.Llama, {"heads": 4, "norm_eps": 1e-6, "gated_half": "first"}),
    "Restormer throughout": (restoration.Restormer, {"heads": (1, 2, 2, 4), "gated_half": "first"}),
    "BasicSR, mean": (restoration.BasicSR, {"heads": 2}),
    "BasicSR, mean and std": (lambda: restoration.BasicSR(std=True), {"heads": 2}),
    "EDSR": (restoration.EDSR, {"heads": 4}),
    "SAFMN": (restoration.Safmn, {"heads": 2, "norm_eps": 1e-6}),
    "SRVGG, x3": (restoration.SrVgg, {"heads": 3}),
    "six in a row": (plans.SixInARow, {"heads": 2}),
    "some transitions": (plans.SomeTransitions, {"heads": 3, "head_activation": "gelu,none,none"}),
    "pointwise head": (plans.PointwiseHead, {"heads": 4}),
    "position like a transition": (plans.PositionLikeTransition, {"heads": 2}),
    "wide grid, x2": (plans.WideGrid, {"heads": 2}),
    "weight norm": (storage.WeightNormed, {"heads": 2}),
    "weight norm, old": (lambda: storage.WeightNormed(old=True), {"heads": 2}),
    "sequence first": (storage.SequenceFirst, {"heads": 4}),
    "odd names": (storage.OddNames, {"heads": 2}),
    "plain residual": (storage.PlainResidual, {"heads": 2, "value_range": "-1..1", "skip": "bicubic"}),
    "q, k, v innermost, four shuffles": (orders.four_shuffles, {"heads": 2, "shuffles": "twos"}),
    "heads innermost, two and two shuffles": (orders.two_and_two_shuffles, {"heads": 2, "shuffles": "twos"}),
    "q, kv head by head": (lambda: orders.with_attention(orders.KeyValuePerHead), {"heads": 2, "qkv_layout": "h3d"}),
    "vk": (lambda: orders.with_attention(orders.ValueKey), {"heads": 2}),
    "kvq": (lambda: orders.with_attention(orders.KeyValueQuery), {"heads": 2}),
    "list of q, k, v": (lambda: orders.with_attention(orders.ListOfThree), {"heads": 2}),
    "NAFNet's scales": (lambda: orders.Net(orders.ScaledBlock, orders.one_shuffle()), {"heads": 2}),
    "x @ W": (lambda: orders.with_attention(orders.BareMatrices), {"heads": 2}),
    "x @ W, fused": (lambda: orders.with_attention(orders.BareFused), {"heads": 2}),
    "last first": (orders.LastFirst, {"heads": 2}),
    "gate, up, down": (lambda: orders.Net(orders.GateUpDownBlock, orders.one_shuffle()), {"heads": 2}),
    "published, first reading": (published_first, {}),
    "published, second reading": (published_second, {}),
}  # fmt: skip

RMS = "norms without bias .* perhaps RMSNorms"
VECTORS = "tensors that this network does not have: .*vectors may be of PReLU, RMSNorm, or means and deviations"
LINEAR_PATCH = "0 convolutions from 3 channels .* a linear layer there is not read"
REFUSED = {
    "timm with everything": RMS,
    "LLaMA": RMS,
    "Restormer throughout": RMS,
    "vit-pytorch": LINEAR_PATCH,
    "vit-pytorch with unfold": LINEAR_PATCH,
    "SAFMN": LINEAR_PATCH,
    "BEiT in Swin": "vectors .*q_bias.*, expected none, or two of width .* that scale the branches",
    "BasicSR, mean": VECTORS,
    "BasicSR, mean and std": VECTORS,
    "SRVGG, x3": VECTORS,
    "heads innermost, two and two shuffles": VECTORS,
    "EDSR": "convolutions from colours to colours, perhaps of means and deviations; neither is read",
    "plain residual": "2 position embeddings: .*row.*, expected one",
    "wide grid, x2": r"channels first or last: both fit; store it as \(1, tokens, 8\)",
    "weight norm": "weight or spectral normalisation or pruning, no plain weight; remove it",
    "weight norm, old": "weight or spectral normalisation or pruning, no plain weight; remove it",
    "vk": "holds v, k by its name, expected kv: put its rows in this order and rename it",
    "kvq": "holds k, v, q by its name, expected qkv: put its rows in this order and rename it",
    "x @ W": "square matrices .* perhaps for x @ W: store them as nn.Linear does",
    "x @ W, fused": "linear layers .* do not make attention",
}
"""Variants that hold what the reader does not take, and what it must say of them."""
READ = [name for name in VARIANTS if name not in REFUSED]
SMALL = [name for name in READ if not name.startswith("published")]
UNORDERED = {"odd names", "list of q, k, v"}
"""Names that do not say it all: read in the order of definition, refused in any other."""
REMARKED = {
    "q, k, v innermost, four shuffles": "assumed qkv_layout=3hd",
    "list of q, k, v": "by file order: q/k/v/projection",
}
"""Variants that are read wrongly, and the remark that says what they may be wrong in."""


def build(name: str, seed: int = 0) -> tuple[nn.Module, dict]:
    """A variant in eval mode with random weights, and its options."""
    constructor, options = VARIANTS[name]
    torch.manual_seed(seed)
    module = constructor().eval()
    randomise(module)
    return module, options


def randomise(module: nn.Module) -> None:
    """Weights as large as trained ones, so that no part is without effect."""
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(
                    torch.randn_like(parameter) * 0.2 + (0 if key.endswith(("bias", "beta")) else 1)
                )
            else:
                parameter.copy_(
                    torch.randn_like(parameter) / math.sqrt(max(parameter[0].numel(), 1))
                )
        for part in module.modules():
            if hasattr(part, "settle"):
                part.settle()  # weights that are constants
