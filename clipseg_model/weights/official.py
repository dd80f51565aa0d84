"""The decoders that the authors of CLIPSeg published: ``rd64-uni.pth``, ``rd16-uni.pth``, ….

Such a file holds the decoder alone, which works on the towers of OpenAI's CLIP ViT-B/16.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipseg_model.errors import CheckpointError
from clipseg_model.modeling.decoder import CLIPSegDecoder
from clipseg_model.weights.files import MOST_BLOCKS, check_fit, read_pickled

logger = logging.getLogger(__name__)

LAYERS = (3, 6, 9)
"""Taps that the published decoders were made with. No file says them."""

HEADS = 4
"""Attention heads of the published decoders. No file says them."""

INPUT_SIZE = 352
"""Side of the square that images are resized to, pixels, in the official code."""

# Weights that every official model has and none uses: they are left out, and this is said.
_UNUSED = ('reduce.weight', 'reduce.bias')

# Ours → official, after the number of a block.
_PARTS = {
    'in_proj.weight': 'self_attn.in_proj_weight',
    'in_proj.bias': 'self_attn.in_proj_bias',
    'out_proj.weight': 'self_attn.out_proj.weight',
    'out_proj.bias': 'self_attn.out_proj.bias',
}
_HEADS = {
    'head.deconv.': 'trans_conv.',
    'head.conv.': 'trans_conv.0.',
    'head.deconv1.': 'trans_conv.2.',
    'head.deconv2.': 'trans_conv.4.',
}


def read_official(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Read an official decoder without running code that its file may hold.

    Returns:
        The weights under this project's names (``decoder.…``); what they say of the decoder:
        ``token_width``, ``embed_dim``, ``patch_size``, ``num_layers`` and the options of
        :class:`~clipseg_model.modeling.decoder.CLIPSegDecoder`; and the names in the file that the
        model does not use.

    Raises:
        CheckpointError: The file is missing, damaged, would run code, is of another kind, or
            holds not exactly the weights of a decoder.
    """
    path = Path(path)
    tensors = read_pickled(path)
    if not {'film_mul.weight', 'film_add.weight', 'reduces.0.weight'} <= set(tensors):
        raise CheckpointError(
            f'{path} is no decoder of the official CLIPSeg, which has film_mul, film_add and '
            f'reduces.0: it has {", ".join(list(tensors)[:5])}, …'
        )
    unused = [key for key in _UNUSED if key in tensors]
    tensors = {key: value for key, value in tensors.items() if key not in unused}
    options = _options(tensors, path)
    if options['num_layers'] > MOST_BLOCKS:
        raise CheckpointError(f'{path} describes no decoder: it has {options["num_layers"]} blocks')
    try:
        # Small tensors may describe a decoder that no memory holds.
        with torch.device('meta'):
            wanted = CLIPSegDecoder(**options).state_dict()
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f'{path} describes no decoder: {error}') from error
    names = {key: _official(key) for key in wanted}
    check_fit({names[key]: value for key, value in wanted.items()}, tensors, path)
    if unused:
        logger.info('%s: %s are not used by the model, and left out', path, ', '.join(unused))
    ours = {f'decoder.{key}': tensors[official] for key, official in names.items()}
    return ours, options, unused


def _options(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        value = tensors.get(key)
        if value is None or value.ndim != dimensions:
            found = 'missing' if value is None else tuple(value.shape)
            raise CheckpointError(
                f'{path}: {key} must have {dimensions} dimensions, and is {found}'
            )
        return tuple(value.shape)

    dim, embed_dim = shape('film_mul.weight', 2)
    refined = 'trans_conv.4.weight' in tensors
    if refined:
        patch = shape('trans_conv.2.weight', 4)[2] * shape('trans_conv.4.weight', 4)[2]
    else:
        patch = shape('trans_conv.weight', 4)[2]
    blocks = {match[1] for key in tensors if (match := re.match(r'reduces\.(\d+)\.weight$', key))}
    return {
        'token_width': shape('reduces.0.weight', 2)[1],
        'embed_dim': embed_dim,
        'patch_size': patch,
        'num_layers': len(blocks),
        'dim': dim,
        'num_heads': HEADS,
        'feedforward': shape('blocks.0.linear1.weight', 2)[0],
        'head': 'refined' if refined else 'plain',
    }


def _official(key: str) -> str:
    """Return the official name of one of the decoder's weights."""
    for ours, official in _HEADS.items():
        if key.startswith(ours):
            return official + key[len(ours) :]
    parts = key.split('.', 2)
    if parts[0] == 'blocks' and parts[2] in _PARTS:
        return f'blocks.{parts[1]}.{_PARTS[parts[2]]}'
    return key
