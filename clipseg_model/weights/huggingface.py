"""CLIPSeg as Hugging Face's transformers stores it: a folder of weights and settings.

There, query, key and value are apart, which are one matrix here in that order; the projections
into the embedding space are transposed; and old files carry ``position_ids``, which are no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from clipseg_model.errors import CheckpointError
from clipseg_model.files.atomic_files import replacing
from clipseg_model.model_card import AS_RELEASED, ModelCard
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.modeling.clipseg import CLIPSeg, build_clipseg
from clipseg_model.weights.files import check_fit, outline, read_json, read_weights
from clipseg_model.weights.huggingface_config import (
    CARD_FILE,
    find_processor,
    read_config,
    settings_files,
    to_our_config,
)
from clipseg_model.weights.store import WEIGHT_FILES

_VISUAL, _TEXT, _DECODER = 'backbone.model.visual.', 'backbone.model.', 'decoder.'

# Ours → Hugging Face's, whole names.
_NAMES = {
    f'{_VISUAL}class_embedding': 'clip.vision_model.embeddings.class_embedding',
    f'{_VISUAL}positional_embedding': 'clip.vision_model.embeddings.position_embedding.weight',
    f'{_VISUAL}conv1.weight': 'clip.vision_model.embeddings.patch_embedding.weight',
    f'{_VISUAL}proj': 'clip.visual_projection.weight',
    f'{_TEXT}positional_embedding': 'clip.text_model.embeddings.position_embedding.weight',
    f'{_TEXT}token_embedding.weight': 'clip.text_model.embeddings.token_embedding.weight',
    f'{_TEXT}text_projection': 'clip.text_projection.weight',
    f'{_TEXT}logit_scale': 'clip.logit_scale',
}
_TRANSPOSED = frozenset([f'{_VISUAL}proj', f'{_TEXT}text_projection'])

# Layers with a weight and a bias, or lists of them.
_LAYERS = {
    f'{_VISUAL}ln_pre.': 'clip.vision_model.pre_layrnorm.',
    f'{_VISUAL}ln_post.': 'clip.vision_model.post_layernorm.',
    f'{_TEXT}ln_final.': 'clip.text_model.final_layer_norm.',
    f'{_DECODER}film_mul.': 'decoder.film_mul.',
    f'{_DECODER}film_add.': 'decoder.film_add.',
    f'{_DECODER}reduces.': 'decoder.reduces.',
    f'{_DECODER}head.deconv.': 'decoder.transposed_convolution.',
    f'{_DECODER}head.conv.': 'decoder.transposed_convolution.0.',
    f'{_DECODER}head.deconv1.': 'decoder.transposed_convolution.2.',
    f'{_DECODER}head.deconv2.': 'decoder.transposed_convolution.4.',
}

# Transformer blocks: <list><number>.<part>
_BLOCKS = {
    f'{_VISUAL}transformer.resblocks.': 'clip.vision_model.encoder.layers.',
    f'{_TEXT}transformer.resblocks.': 'clip.text_model.encoder.layers.',
    f'{_DECODER}blocks.': 'decoder.layers.',
}
_TOWER_PARTS = {
    'ln_1.': 'layer_norm1.',
    'ln_2.': 'layer_norm2.',
    'mlp.c_fc.': 'mlp.fc1.',
    'mlp.c_proj.': 'mlp.fc2.',
    'attn.out_proj.': 'self_attn.out_proj.',
    'attn.in_proj_': '',
}
_DECODER_PARTS = {
    'norm1.': 'layer_norm1.',
    'norm2.': 'layer_norm2.',
    'linear1.': 'mlp.fc1.',
    'linear2.': 'mlp.fc2.',
    'out_proj.': 'self_attn.out_proj.',
    'in_proj.': '',
}


def load_huggingface(path: str | Path) -> tuple[CLIPSeg, ModelCard]:
    """Read a model that transformers' ``CLIPSegForImageSegmentation`` and processor saved.

    The folder, which ``path`` or its parent is, needs ``config.json``; ``preprocessor_config.json``
    (or ``processor_config.json``); and one of :data:`~clipseg_model.weights.store.WEIGHT_FILES`.

    Returns:
        The model with both towers on the CPU, in evaluation mode and float32, and its card.

    Raises:
        CheckpointError: A file is missing or damaged, a setting is one that this model does not
            have, or the weights are not exactly those that the configuration describes.
    """
    card = read_card(path)
    assert card.weights is not None
    ours = outline(card.config, card.weights.with_name('config.json'))
    wanted = _to_theirs(ours)
    tensors = read_weights(card.weights, wanted, '.position_ids')
    check_fit(wanted, tensors, card.weights)
    model = build_clipseg(dict(card.config))
    model.load_state_dict(_to_ours(tensors, ours), strict=True)
    return model.eval(), card


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a folder as :func:`load_huggingface` does, without its weights.

    Raises:
        CheckpointError: A file is missing or damaged, or a setting is one that CLIPSeg lacks here.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    weights = _find_weights(folder) if path.is_dir() else path
    config, size = to_our_config(read_config(folder), find_processor(folder), folder)
    stored: dict[str, Any] = {
        'name': folder.resolve().name.rpartition('--')[2],
        **AS_RELEASED,
        'description': "A CLIPSeg in Hugging Face's format.",
    }
    if (folder / CARD_FILE).is_file():
        stored = read_json(folder / CARD_FILE)
    return ModelCard.from_stored({**stored, 'input_size': size}, config, weights)


def save_huggingface(folder: str | Path, model: SegmentationModel, card: ModelCard) -> None:
    """Write a new folder that transformers' ``CLIPSegForImageSegmentation`` and processor load.

    The card lies in a file of its own, which only :func:`load_huggingface` reads.

    Raises:
        CheckpointError: The folder is there, the model is no CLIPSeg on plain CLIP towers or one
            that transformers does not have, or the disk refuses.
    """
    folder = Path(folder)
    backbone = getattr(model, 'backbone', None)
    if not isinstance(model, CLIPSeg) or not isinstance(backbone, OpenClipBackbone):
        raise CheckpointError(
            f"{card.name!r} cannot be written for Hugging Face: transformers' CLIPSeg has plain "
            f'CLIP towers, and this is a {type(model).__name__} on a {type(backbone).__name__}. A '
            '.safetensors checkpoint holds any model'
        )
    if folder.exists():
        raise CheckpointError(f'{folder} is there already: name a folder that is not')
    files = settings_files(model, card)
    tensors = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in _to_theirs(model.state_dict()).items()
    }
    try:
        with replacing(folder) as temporary:
            temporary.mkdir()
            save_file(tensors, temporary / WEIGHT_FILES[0], {'format': 'pt'})
            for name, text in files.items():
                (temporary / name).write_text(text, encoding='utf-8')
    except OSError as error:
        raise CheckpointError(f'{folder} could not be written: {error}') from error


def _find_weights(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f'The folder {folder} holds no weights: there is none of {", ".join(WEIGHT_FILES)}'
    )


def _names(key: str) -> list[str]:
    """Return Hugging Face's names of one of our weights: one, or three that are joined here."""
    if key in _NAMES:
        return [_NAMES[key]]
    for ours, theirs in _BLOCKS.items():
        if not key.startswith(ours):
            continue
        number, _, part = key[len(ours) :].partition('.')
        parts = _DECODER_PARTS if ours.startswith(_DECODER) else _TOWER_PARTS
        for our_part, their_part in parts.items():
            if part.startswith(our_part):
                kind = part[len(our_part) :]
                if their_part:
                    return [f'{theirs}{number}.{their_part}{kind}']
                return [f'{theirs}{number}.self_attn.{name}_proj.{kind}' for name in 'qkv']
    for ours, theirs in _LAYERS.items():
        if key.startswith(ours):
            return [theirs + key[len(ours) :]]
    raise CheckpointError(
        f"Hugging Face's CLIPSeg has no place for {key}: a .safetensors checkpoint holds any model"
    )


def _to_theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = {}
    for key, value in state.items():
        names = _names(key)
        value = value.T if key in _TRANSPOSED else value
        theirs.update(zip(names, value.chunk(3) if len(names) == 3 else [value], strict=True))
    return theirs


def _to_ours(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for key in state:
        parts = [tensors[name] for name in _names(key)]
        value = torch.cat(parts) if len(parts) == 3 else parts[0]
        ours[key] = value.T if key in _TRANSPOSED else value
    return ours
