"""Scaled dot-product attention, in the form that is fastest for what is being done."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.onednn import Packed, onednn_serves


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute softmax(q·kᵀ / √d + bias)·v (Vaswani et al. 2017, eq. 1), all of (M, heads, N, d).

    The bias is added to the scores: broadcastable to (M, heads, N, N), or None.
    """
    # On a CPU with gradients the plain products are faster than the fused kernel, most of all in
    # bfloat16. Without gradients they are in bfloat16, too, but scores rounded to it cost half as
    # much accuracy again: the fused kernel keeps them in float32.
    if query.device.type != 'cpu' or not torch.is_grad_enabled():
        mask = None if bias is None else bias.to(query.dtype)
        return functional.scaled_dot_product_attention(query, key, value, mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return scores.softmax(-1).to(value.dtype) @ value


class ImageAttention(nn.MultiheadAttention):
    """torch's multi-head attention, faster on a CPU without gradients.

    torch's own splits query, key and value by copies and knows MKL only.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take over the parameters of an attention of the usual kind, with the batch first."""
        # What is made here is replaced: it needs no memory.
        super().__init__(
            attention.embed_dim,
            attention.num_heads,
            attention.dropout,
            batch_first=True,
            device='meta',
        )
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.packed = Packed(), Packed()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention``; the fast way where (M, N, C) attends to itself."""
        itself = key is query and value is query and not need_weights
        known = attn_mask is None or (attn_mask.dim() == 3 and attn_mask.is_floating_point())
        weight, bias = self.in_proj_weight, self.in_proj_bias
        fast = itself and known and key_padding_mask is None and not is_causal
        if not fast or not onednn_serves(query, weight):
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        batch, length, width = query.shape
        heads = self.num_heads
        projected = self.packed[0](query, weight, bias)
        split = projected.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mask = None if attn_mask is None else attn_mask.view(batch, heads, length, length)
        attended = attend(split[0], split[1], split[2], mask).transpose(1, 2)
        attended = attended.reshape(batch, length, width)
        return self.packed[1](attended, self.out_proj.weight, self.out_proj.bias), None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for packed in self.packed:
            packed.clear()
        return super()._apply(fn, recurse)
