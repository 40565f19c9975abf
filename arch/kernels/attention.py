"""Attention from queries, keys and values side by side, by the quicker of two equal ways.

On a CPU two batched products and a softmax can beat ``scaled_dot_product_attention``, whose kernel
is tuned for Intel: on AMD by a third for windows of 64 tokens, and for 256 tokens in bfloat16. On
Intel the fused kernel is quicker by a fifth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .processor import is_intel

FEW_TOKENS = 64


def prefers_products(tokens: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `attend` is faster by products, for so many tokens in this precision."""
    if device.type != "cpu" or dtype == torch.float16 or is_intel():
        return False
    return tokens <= FEW_TOKENS or dtype == torch.bfloat16


def attend(qkv: Tensor, scale: float, bias: Tensor | None = None, *, products: bool) -> Tensor:
    """Multi-head self-attention of every sequence of a batch.

    Args:
        qkv: (B, N, 3, heads, c), queries, keys and values of N tokens. If the caller keeps no
            reference to it, it is freed before the logits are made.
        scale: of the logits.
        bias: added to the logits, (1, heads, N, N); by products (B * heads, N, N) or more of them.
        products: whether to compute it by products, see `prefers_products`.

    Returns:
        (B, N, heads * c)
    """
    heads = qkv.shape[3]
    if not products:
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, c) each
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        return attended.transpose(1, 2).flatten(2)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2)  # (B * heads, N, c) each
    del qkv
    added, beta = (q.new_empty(1, 1, 1), 0) if bias is None else (bias[: q.shape[0]], 1)
    logits = torch.baddbmm(added, q, k.mT, beta=beta, alpha=scale)  # (B * heads, N, N)
    attended = torch.bmm(logits.softmax(-1), v).unflatten(0, (-1, heads))
    return attended.transpose(1, 2).flatten(2)
