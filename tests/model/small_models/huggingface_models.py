"""Small models of transformers with random weights, and folders that they are saved to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from safetensors.torch import load_file, save_file

from clipseg_model.modeling.backbone import IMAGENET_MEAN, IMAGENET_STD

TEXTS = ['a red mug', 'something to drink from, on the table', 'chair', '茶碗 №5!']


def make(
    dim: int = 16,
    refined: bool = False,
    *,
    act: str = 'quick_gelu',
    eps: float = 1e-5,
    seed: int = 0,
    **changes: Any,
) -> transformers.CLIPSegForImageSegmentation:
    """A CLIPSeg on little towers, whose every weight is random and matters."""
    towers = {'hidden_act': act, 'layer_norm_eps': eps}
    settings: dict[str, Any] = {
        'text_config': {
            'hidden_size': 32,
            'intermediate_size': 80,
            'num_hidden_layers': 2,
            'num_attention_heads': 2,
            **towers,
        },
        'vision_config': {
            'hidden_size': 48,
            'intermediate_size': 96,
            'num_hidden_layers': 5,
            'num_attention_heads': 4,
            'image_size': 64,
            'patch_size': 16,
            **towers,
        },
        'projection_dim': 24,
        'reduce_dim': dim,
        'extract_layers': [0, 2, 3],
        'conditional_layer': 1,
        'decoder_intermediate_size': 40,
        'use_complex_transposed_convolution': refined,
    }
    settings.update(changes)
    model = transformers.CLIPSegForImageSegmentation(transformers.CLIPSegConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if 'norm' in name and name.endswith('weight'):
            parameter.data = 1 + 0.1 * noise
        elif parameter.ndim > 1:
            parameter.data = noise / parameter[0].numel() ** 0.5
        else:
            parameter.data = 0.1 * noise
    return model.eval()


def save(model: transformers.CLIPSegForImageSegmentation, folder: Path, size: int = 64) -> Path:
    """Save a model and its processor's settings, as transformers does."""
    model.save_pretrained(folder)
    processor(size).save_pretrained(folder)
    return folder


def processor(size: int) -> transformers.ViTImageProcessor:
    return transformers.ViTImageProcessor(
        size={'height': size, 'width': size},
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )


def tokens(texts: list[str]) -> torch.Tensor:
    """Token numbers, padded to the whole context, which no result may depend on."""
    ids: torch.Tensor = open_clip.SimpleTokenizer()(texts)
    return ids


def edit_json(path: Path, **changes: Any) -> None:
    """Change settings in a file; None removes."""
    settings = {**json.loads(path.read_text()), **changes}
    settings = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps(settings))


def edit_weights(folder: Path, **changes: Any) -> None:
    """Change weights in a folder by name, with __ for a point; None removes."""
    path = folder / 'model.safetensors'
    weights = load_file(path)
    for name, value in changes.items():
        key = name.replace('__', '.')
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    save_file(weights, path, {'format': 'pt'})
