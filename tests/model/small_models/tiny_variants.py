"""A tiny model of each architecture, on towers of both kinds."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import make_small_clip
from torch import nn

from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.base import SegmentationModel, build_model

BLOCKS = 3

CLIPSEG_DECODER = {'dim': 16, 'num_heads': 4, 'feedforward': 32}
CLSCLIP_DECODER = {'dim': 16, 'num_layers': 2, 'num_heads': 4, 'feedforward': 32}
IMAGE_TOWER = {
    'architecture': 'vit_tiny_patch16_224',
    'overrides': {'img_size': 64, 'depth': 3, 'embed_dim': 32, 'num_heads': 2},
}


def clsclip(guidance: str, blocks: list[int], learned_tokens: int = 0) -> dict[str, Any]:
    return {
        'architecture': 'clsclip',
        'blocks': blocks,
        'guidance': guidance,
        'learned_tokens': learned_tokens,
        'decoder': {**CLSCLIP_DECODER, 'head': 'plain'},
    }


#: Configurations without their towers.
VARIANTS: dict[str, dict[str, Any]] = {
    'clipseg': {
        'architecture': 'clipseg',
        'layers': [0, 2],
        'decoder': {**CLIPSEG_DECODER, 'cond_layer': 1, 'head': 'refined'},
    },
    'clip-deconv': {
        'architecture': 'clip-deconv',
        'layers': [1],
        'decoder': {'dim': 16, 'hidden': 24},
    },
    'vitseg': {
        'architecture': 'vitseg',
        'image_tower': IMAGE_TOWER,
        'layers': [0, 2],
        'decoder': {**CLIPSEG_DECODER, 'cond_layer': 0, 'head': 'plain'},
    },
    'clsclip': clsclip('cls', [1, 2]),
    'clsclip-channel': clsclip('channel', [BLOCKS]),
    'clsclip-spatial': clsclip('spatial', [BLOCKS]),
    'clsclip-vpt': clsclip('channel', [BLOCKS], learned_tokens=5),
}

#: Names of models that are another variant, on larger towers.
LARGER = {'clipseg-vit-l-14-336': 'clipseg'}

TOWERS = ('small_clip', 'open_clip')


def make_towers(kind: str) -> nn.Module:
    if kind == 'small_clip':
        return make_small_clip()
    vision = {'image_size': 64, 'layers': BLOCKS, 'width': 32, 'head_width': 16, 'patch_size': 16}
    text = {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1}
    return OpenClipBackbone(
        overrides={'embed_dim': 16, 'vision_cfg': vision, 'text_cfg': text},
    )


def make(variant: str, kind: str = 'small_clip') -> SegmentationModel:
    """A tiny model with frozen towers, built from its configuration alone."""
    torch.manual_seed(0)
    towers = make_towers(kind)
    model = build_model({**VARIANTS[LARGER.get(variant, variant)], 'backbone': towers.config()})
    model.backbone.load_state_dict(towers.state_dict())
    model.backbone.requires_grad_(False)
    return model.eval()
