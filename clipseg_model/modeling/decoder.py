"""CLIPSeg's decoder (Lüddecke & Ecker, CVPR 2022, section 3.1): blocks, FiLM, heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.attention import attend
from clipseg_model.modeling.dense import Dense, convolve


class DecoderBlock(nn.Module):
    """A post-norm transformer encoder layer with ReLU, as both public implementations use."""

    def __init__(self, dim: int, num_heads: int, feedforward: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim {dim} is not divisible by num_heads {num_heads}')
        self.num_heads = num_heads
        self.in_proj = Dense(dim, 3 * dim)
        self.out_proj = Dense(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = Dense(dim, feedforward)
        self.linear2 = Dense(feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (M, N, D) to (M, N, D)."""
        sequences, length, dim = tokens.shape
        qkv = self.in_proj(tokens).view(sequences, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value).transpose(1, 2)
        attended = attended.reshape(sequences, length, dim)
        tokens = self.norm1(tokens + self.out_proj(attended))
        hidden = self.linear2(self.linear1(tokens, 'relu'))
        return self.norm2(tokens + hidden)


def upscale(tokens: Tensor, deconv: nn.ConvTranspose2d) -> Tensor:
    """Compute a transposed convolution whose stride is its kernel, as one matrix product.

    No two of its outputs overlap, so each token meets the whole kernel at once. Of tokens (…, D)
    and kernels of k × k to O channels, returns the pixels of each token, (…, k, k, O).
    """
    side = deconv.kernel_size[0]
    # Channels last, so that what belongs together lies together.
    weight = deconv.weight.permute(0, 2, 3, 1).flatten(1)
    assert deconv.bias is not None
    bias = deconv.bias.repeat(side * side)
    pixels = torch.addmm(bias, tokens.flatten(0, -2), weight)
    return pixels.view(*tokens.shape[:-1], side, side, deconv.out_channels)


class PlainHead(nn.Module):
    """One transposed convolution from tokens to pixels."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(dim, 1, patch_size, stride=patch_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (M, D, gh, gw), best channels last, to logits (M, 1, gh·P, gw·P)."""
        pixels = upscale(tokens.permute(0, 2, 3, 1), self.deconv)
        batch, height, width, side, _, _ = pixels.shape
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(batch, 1, height * side, width * side)


class RefinedHead(nn.Module):
    """A 3 × 3 convolution and two transposed convolutions (the released "refined" weights).

    The released weights have patches of 16 pixels, 4 from each transposed convolution. The second
    makes the largest divisor of a patch that is 4 at most, the first the rest: 7 and 2 of 14.
    """

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        last = next(step for step in (4, 3, 2, 1) if patch_size % step == 0)
        first = patch_size // last
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.deconv1 = nn.ConvTranspose2d(dim, dim // 2, first, stride=first)
        self.deconv2 = nn.ConvTranspose2d(dim // 2, 1, last, stride=last)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (M, D, gh, gw), best channels last, to logits (M, 1, gh·P, gw·P)."""
        # Not fused: oneDNN's ReLU makes NaN 0, and damage shall show in the logits.
        hidden = functional.relu(convolve(tokens, self.conv)).permute(0, 2, 3, 1)
        # The second works on each pixel of the first alone, wherever that lies in memory: they
        # are put in their places once, at the end.
        pixels = upscale(functional.relu(upscale(hidden, self.deconv1)), self.deconv2)
        batch, height, width, first, _, last, _, _ = pixels.shape
        side = first * last
        pixels = pixels.permute(0, 7, 1, 3, 5, 2, 4, 6)
        return pixels.reshape(batch, 1, height * side, width * side)


def make_head(name: str, dim: int, patch_size: int) -> nn.Module:
    """Make the head ``plain`` or ``refined`` of ``dim`` channels; raise ValueError for others."""
    heads = {'plain': PlainHead, 'refined': RefinedHead}
    if name not in heads:
        raise ValueError(f'head must be one of {sorted(heads)}, not {name!r}')
    return heads[name](dim, patch_size)


class CLIPSegDecoder(nn.Module):
    """The decoder of the paper (section 3.1): reduce, FiLM, transformer blocks, head.

    The deepest tap enters first. Each further tap is reduced to D and added before its block; FiLM
    (Dumoulin et al. 2018) modulates the sum at the conditioning layer.

    Args:
        token_width: Channels C of the taps.
        embed_dim: Size E of the conditional vector.
        dim: Width D of the decoder.
        num_layers: Number of taps and of blocks.
        cond_layer: Block before which FiLM is applied, counted from 0.
        num_heads: Attention heads.
        feedforward: Hidden width of the blocks' two-layer network.
        head: ``plain`` or ``refined``.
        patch_size: Pixels a token covers in each direction.

    Raises:
        ValueError: The sizes do not fit together.
    """

    def __init__(
        self,
        token_width: int,
        embed_dim: int,
        dim: int = 64,
        num_layers: int = 3,
        cond_layer: int = 0,
        num_heads: int = 4,
        feedforward: int = 2048,
        head: str = 'plain',
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        if not 0 <= cond_layer < num_layers:
            raise ValueError(f'cond_layer must be in 0…{num_layers - 1}, not {cond_layer}')
        self.cond_layer = cond_layer
        self.options: dict[str, Any] = {
            'dim': dim,
            'cond_layer': cond_layer,
            'num_heads': num_heads,
            'feedforward': feedforward,
            'head': head,
        }
        self.film_mul = nn.Linear(embed_dim, dim)
        self.film_add = nn.Linear(embed_dim, dim)
        self.reduces = nn.ModuleList(Dense(token_width, dim) for _ in range(num_layers))
        self.blocks = nn.ModuleList(
            DecoderBlock(dim, num_heads, feedforward) for _ in range(num_layers)
        )
        self.head = make_head(head, dim, patch_size)

    def forward(self, taps: Sequence[Tensor], grid: tuple[int, int], condition: Tensor) -> Tensor:
        """Decode P prompts, conditional vectors (B, P, E), on each of B images.

        Taps are (B, 1 + gh·gw, C), CLS first, shallowest first. Returns logits (B, P, gh·patch,
        gw·patch).
        """
        return self.decode(self.project(taps), grid, self.modulate(condition))

    def project(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Reduce taps as :meth:`forward` takes them to (B, 1 + gh·gw, D), deepest first."""
        pairs = zip(reversed(taps), self.reduces, strict=True)
        return tuple(reduce(tap) for tap, reduce in pairs)

    def modulate(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Compute FiLM's scale and shift, (…, D) each, of conditional vectors (…, E)."""
        return self.film_mul(condition), self.film_add(condition)

    def decode(
        self,
        projected: Sequence[Tensor],
        grid: tuple[int, int],
        modulation: Sequence[Tensor],
    ) -> Tensor:
        """Decode what :meth:`project` made of B images and :meth:`modulate` of P prompts each.

        Returns logits (B, P, gh·patch, gw·patch).
        """
        scale, shift = modulation
        batch, prompts, _ = scale.shape
        # What comes before FiLM does not depend on the prompt, so it keeps a prompt axis of 1.
        state: Tensor | None = None
        for index, (tap, block) in enumerate(zip(projected, self.blocks, strict=True)):
            reduced = tap.unsqueeze(1)
            state = reduced if state is None else state + reduced
            if index == self.cond_layer:
                state = torch.addcmul(shift.unsqueeze(2), scale.unsqueeze(2), state)
            shape = state.shape
            state = block(state.reshape(-1, *shape[2:])).view(shape)
        assert state is not None
        patches = state[:, :, 1:].reshape(batch * prompts, grid[0], grid[1], -1)
        logits = self.head(patches.permute(0, 3, 1, 2))
        return logits.view(batch, prompts, *logits.shape[-2:])
