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
    if bias is None and query.dtype == torch.float32 and query.shape[2] > 64:
        attended: Tensor = _Chunked.apply(query, key, value)
        return attended
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return scores.softmax(-1).to(value.dtype) @ value


class _Chunked(torch.autograd.Function):
    """Attention with gradients whose scores never leave a CPU's caches: two to three times faster.

    The scores of a few heads at a time are computed, and once more for the gradients.
    """

    BYTES = 2 << 20

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scale = query.shape[-1] ** -0.5
        flat = [
            part.flatten(0, 1) * factor
            for part, factor in ((query, scale), (key, 1.0), (value, 1.0))
        ]
        result = torch.empty_like(flat[2])
        count = max(1, _Chunked.BYTES // (4 * query.shape[2] * key.shape[2]))
        for part in torch.arange(len(result)).split(count):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            q, k, v = (tensor[rows] for tensor in flat)
            torch.bmm(torch.bmm(q, k.mT).softmax(-1), v, out=result[rows])
        ctx.save_for_backward(*flat, result)
        ctx.count = count
        return result.view(value.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        *flat, result = ctx.saved_tensors
        shape, gradient = gradients[0].shape, gradients[0].flatten(0, 1)
        changes = [torch.empty_like(part) for part in flat]
        inner = (gradient * result).sum(-1, keepdim=True)
        for part in torch.arange(len(result)).split(ctx.count):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            q, k, v = (tensor[rows] for tensor in flat)
            weights = torch.bmm(q, k.mT).softmax(-1)
            torch.bmm(weights.mT, gradient[rows], out=changes[2][rows])
            scores = torch.bmm(gradient[rows], v.mT).sub_(inner[rows]).mul_(weights)
            torch.bmm(scores, k, out=changes[0][rows])
            torch.bmm(scores.mT, q, out=changes[1][rows])
        changes[0] *= shape[-1] ** -0.5
        return tuple(change.view(*shape[:2], *change.shape[1:]) for change in changes)


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
