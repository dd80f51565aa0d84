"""Visual prompts by attention: an image tower that reads only the tokens of an object.

Three rows of CLIPSeg's Table 2 leave the pixels alone and restrict the attention of CLIP's image
tower to the mask: of the CLS token in the last block, of the CLS token in every block, or of all
tokens in every block. Here a token outside the mask gets a score of -inf from a restricted one,
so no weight at all. The authors' published code multiplies its score by 0 before the softmax
instead, which leaves it a weight of exp(0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipseg_model.errors import PromptError
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.bundled.small_clip import SmallClip

SCOPES = ('cls_last', 'cls', 'all')
"""What is restricted: the CLS token in the last block, in every block, or every token."""


def tokens_inside(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Find the patches that show a part of the object, be it a single pixel.

    Of masks (B, H, W) bool and the token grid (gh, gw) returns (B, gh · gw) bool, never all false
    where the mask is not empty.
    """
    return F.adaptive_max_pool2d(mask.float()[:, None], grid).flatten(1) > 0


def attention_bias(inside: Tensor, scope: str, last: bool) -> Tensor | None:
    """Return what is added to the attention scores of one block.

    The CLS token may always be attended to, so no token is left without any.

    Args:
        inside: (B, N - 1) bool, as :func:`tokens_inside` returns it.
        scope: One of :data:`SCOPES`.
        last: Whether it is the last block of the tower.

    Returns:
        (B, 1, N, N) float32 of 0 and -inf, queries before keys, CLS first; None where this block is
        not restricted.
    """
    if scope == 'cls_last' and not last:
        return None
    allowed = F.pad(inside, (1, 0), value=True)
    keys = torch.zeros(allowed.shape, device=inside.device).masked_fill(~allowed, -math.inf)
    tokens = allowed.shape[1]
    if scope == 'all':
        return keys[:, None, None].expand(-1, 1, tokens, -1)
    bias = keys.new_zeros(len(keys), 1, tokens, tokens)
    bias[:, 0, 0] = keys
    return bias


@contextmanager
def masked_attention(model: nn.Module, mask: Tensor, scope: str) -> Iterator[None]:
    """While this lasts, restrict the attention of a model's image tower to an object.

    Meant for ``model.embed_images``. Outside tokens can then no longer influence the embedding at
    all (``all``), or not directly: in ``cls`` and ``cls_last`` they still speak to the tokens of
    the object, in every block but the last. In
    :class:`~clipseg_model.modeling.bundled.small_clip.SmallClip` a convolutional stem has mixed
    pixels of inside and outside before the transformer.

    Args:
        model: A model or its towers.
        mask: (B, H, W) bool, true on the object, one for each image of the batch; the images enter
            the tower as squares, as prompt images do.
        scope: One of :data:`SCOPES`.

    Raises:
        PromptError: The model has no image tower whose attention can be restricted.
        ValueError: The scope is unknown, or the masks do not fit the batch or the tokens.
    """
    if scope not in SCOPES:
        raise ValueError(f'scope must be one of {", ".join(SCOPES)}, not {scope!r}')
    blocks, argument = _image_blocks(model)

    def restrict(last: bool) -> Any:
        def hook(
            block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            tokens: Tensor = args[0]
            bias = attention_bias(_fitting(mask, tokens), scope, last)
            if bias is not None and argument == 'attn_mask':
                # torch's MultiheadAttention wants one mask for each head of each image.
                bias = bias.expand(-1, block.attn.num_heads, -1, -1).flatten(0, 1)
            return args, {**kwargs, argument: bias}

        return hook

    with ExitStack() as hooks:
        for number, block in enumerate(blocks):
            handle = block.register_forward_pre_hook(
                restrict(number == len(blocks) - 1), with_kwargs=True
            )
            hooks.callback(handle.remove)
        yield


def check_restrictable(model: nn.Module) -> None:
    """Raise PromptError if :func:`masked_attention` does not work with a model; touches nothing."""
    _image_blocks(model)


def _fitting(mask: Tensor, tokens: Tensor) -> Tensor:
    """Find which of these tokens (B, N, C) are inside."""
    side = math.isqrt(tokens.shape[1] - 1)
    if side * side != tokens.shape[1] - 1 or len(mask) != len(tokens):
        raise ValueError(
            f'{len(mask)} masks do not fit {len(tokens)} images of {tokens.shape[1] - 1} patches: '
            'one square image a mask is needed'
        )
    return tokens_inside(mask.to(tokens.device), (side, side))


def _image_blocks(model: nn.Module) -> tuple[list[nn.Module], str]:
    """Return the blocks of the image tower, and the name of their argument for a bias."""
    for module in model.modules():
        if isinstance(module, OpenClipBackbone):
            return list(module.model.visual.transformer.resblocks), 'attn_mask'
        if isinstance(module, SmallClip):
            return list(module.blocks), 'bias'
    raise PromptError(
        f'{type(model).__name__} has no CLIP image tower with a CLS token, so its attention '
        'cannot be restricted to a mask: choose a method for visual prompts that changes the '
        'pixels'
    )
