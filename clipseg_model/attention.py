"""Scaled dot-product attention, in the form that is fastest for what is being done."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Computes softmax(q·kᵀ / √d + bias)·v (Vaswani et al. 2017, eq. 1).

    On a CPU with gradients the plain products are faster than the fused kernel, most of all in
    bfloat16; everywhere else the fused kernel is.

    Args:
        query: (M, heads, N, d).
        key: (M, heads, N, d).
        value: (M, heads, N, d).
        bias: Added to the scores, broadcastable to (M, heads, N, N), or None.

    Returns:
        (M, heads, N, d).
    """
    if query.is_cuda or not torch.is_grad_enabled():
        mask = None if bias is None else bias.to(query.dtype)
        return functional.scaled_dot_product_attention(query, key, value, mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return scores.softmax(-1).to(value.dtype) @ value
