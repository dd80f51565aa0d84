"""Cards of the papers' models whose authors published no weights: to be trained, then used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipseg_model.model_card import ModelCard

_BACKBONE = {'type': 'open_clip', 'architecture': 'ViT-B-16-quickgelu'}

_DECODER = {'dim': 64, 'num_heads': 4, 'feedforward': 2048, 'head': 'plain'}


def _card(name: str, description: str, input_size: int = 352, **config: Any) -> ModelCard:
    return ModelCard(
        name=name,
        architecture=config['architecture'],
        config={'backbone': dict(_BACKBONE), **config},
        input_size=input_size,
        licence='as the weights given',
        description=f'{description} No trained weights are published: docs/models.md tells how '
        'to train it.',
    )


def _clsclip(name: str, description: str, **config: Any) -> ModelCard:
    whole = {'blocks': [2, 3, 4], 'guidance': 'cls', 'learned_tokens': 0, **config}
    decoder = {**_DECODER, 'num_layers': 2}
    return _card(name, description, architecture='clsclip', decoder=decoder, **whole)


#: By name.
UNTRAINED = {
    card.name: card
    for card in (
        _card(
            'clipseg-vit-l-14-336',
            'CLIPSeg on CLIP ViT-L/14@336px, which its authors name as better and could not have: '
            'D = 64, refined head, taps 7, 15, 19 of 24 blocks.',
            input_size=336,
            architecture='clipseg',
            backbone={'type': 'open_clip', 'architecture': 'ViT-L-14-336-quickgelu'},
            # Where 3, 7, 9 of 12 lie: after the same shares of the tower.
            layers=[7, 15, 19],
            decoder={**_DECODER, 'head': 'refined', 'cond_layer': 0},
        ),
        _card(
            'clip-deconv',
            "CLIPSeg's baseline without a transformer: FiLM, projection and transposed "
            'convolution on CLIP ViT-B/16 after block 9.',
            architecture='clip-deconv',
            layers=[9],
            decoder={'dim': 64, 'hidden': 64},
        ),
        _card(
            'vitseg',
            "CLIPSeg's decoder on an ImageNet ViT-B/16, taps 3, 6, 9; prompts through CLIP.",
            architecture='vitseg',
            image_tower={'architecture': 'vit_base_patch16_384', 'overrides': {}},
            layers=[3, 6, 9],
            decoder={**_DECODER, 'cond_layer': 0},
        ),
        _clsclip(
            'clsclip',
            'ClsCLIP: the prompt replaces the CLS token in blocks 2, 3, 4 of CLIP ViT-B/16.',
        ),
        _clsclip(
            'clsclip-channel',
            'Ablation of ClsCLIP: the prompt weighs the channels of what the image tower gives.',
            blocks=[12],
            guidance='channel',
        ),
        _clsclip(
            'clsclip-spatial',
            'Ablation of ClsCLIP: the prompt weighs the patches of what the image tower gives.',
            blocks=[12],
            guidance='spatial',
        ),
        _clsclip(
            'clsclip-vpt',
            'Ablation of ClsCLIP: 50 learned tokens, the prompt weighs the channels at the end.',
            blocks=[12],
            guidance='channel',
            learned_tokens=50,
        ),
    )
}


def how_to_train(name: str, weights: Path) -> str:
    """Say what to do where the weights of one of these models are asked for."""
    return (
        f'No trained weights of {name!r} are published, and there are none at {weights}. Build it '
        f'with random weights with build_model(get_card({name!r}).config), train it '
        '(docs/models.md), and put its .safetensors checkpoint there, or give its path in place '
        'of the name'
    )
