"""The settings in a Hugging Face folder of CLIPSeg, read and written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_model.errors import CheckpointError
from clipseg_model.files.small_files import shorten
from clipseg_model.model_card import ModelCard, to_json
from clipseg_model.weights.files import read_json

if TYPE_CHECKING:
    from clipseg_model.modeling.clipseg import CLIPSeg

CARD_FILE = 'clipseg_ros.json'
"""This project's own file in a folder that it writes: the model's card."""

ARCHITECTURE = 'ViT-B-16-quickgelu'
"""open_clip's name of OpenAI's CLIP ViT-B/16, which the released models are built on."""

VOCABULARY = 49408
"""Tokens of CLIP's vocabulary; the last two start and end a text."""

# transformers' values of settings that a file leaves out, as newer files do. They are not the
# released models', which have patches of 16.
_TOWER_DEFAULTS = {'num_hidden_layers': 12, 'hidden_act': 'quick_gelu', 'layer_norm_eps': 1e-5}
_VISION_DEFAULTS: dict[str, Any] = {
    **_TOWER_DEFAULTS,
    'hidden_size': 768,
    'intermediate_size': 3072,
    'num_attention_heads': 12,
    'num_channels': 3,
    'image_size': 224,
    'patch_size': 32,
}
_TEXT_DEFAULTS: dict[str, Any] = {
    **_TOWER_DEFAULTS,
    'vocab_size': VOCABULARY,
    'hidden_size': 512,
    'intermediate_size': 2048,
    'num_attention_heads': 8,
    'max_position_embeddings': 77,
}
_DEFAULTS: dict[str, Any] = {
    'projection_dim': 512,
    'extract_layers': [3, 6, 9],
    'reduce_dim': 64,
    'decoder_num_attention_heads': 4,
    'decoder_intermediate_size': 2048,
    'conditional_layer': 0,
    'use_complex_transposed_convolution': False,
}
# Options of the decoder: ours → theirs.
_DECODER = {
    'dim': 'reduce_dim',
    'cond_layer': 'conditional_layer',
    'num_heads': 'decoder_num_attention_heads',
    'feedforward': 'decoder_intermediate_size',
}
_BILINEAR = 2
_ACTIVATIONS = {'quick_gelu': True, 'gelu': False}


def read_config(folder: Path) -> dict[str, Any]:
    """Read the model's settings in a folder, as the file has them.

    Raises:
        CheckpointError: There are none, or they are of another kind of model.
    """
    config = read_json(folder / 'config.json')
    if config.get('model_type') != 'clipseg':
        raise CheckpointError(
            f'{folder / "config.json"} is of a {shorten(config.get("model_type"))} model, and only '
            "'clipseg' can be read here"
        )
    return config


def find_processor(folder: Path) -> dict[str, Any]:
    """Read how a folder says that images are prepared.

    Raises:
        CheckpointError: It says nothing.
    """
    if (folder / 'preprocessor_config.json').is_file():
        return read_json(folder / 'preprocessor_config.json')
    newer = folder / 'processor_config.json'
    if newer.is_file() and isinstance(found := read_json(newer).get('image_processor'), dict):
        return found
    raise CheckpointError(
        f'{folder} has no preprocessor_config.json, so the normalisation of its images is not '
        'known: copy that file beside the weights, or call save_pretrained() of their '
        'CLIPSegProcessor'
    )


def to_our_config(
    config: Mapping[str, Any], processor: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], int]:
    """Translate a folder's settings to those that ``CLIPSeg.config()`` of this project returns.

    Return these and the side of the square that images are resized to, pixels.

    Raises:
        CheckpointError: A setting is wrong, or is one that this model does not have.
    """
    try:
        vision = _section(config, 'vision', _VISION_DEFAULTS)
        text = _section(config, 'text', _TEXT_DEFAULTS)
        own = {**_DEFAULTS, **config}
        _require(vision, 'num_channels', 3)
        _require(text, 'vocab_size', VOCABULARY)
        refined = bool(own['use_complex_transposed_convolution'])
        if refined and (patch := _side(vision, 'patch_size')) != 16:
            raise ValueError(
                f'patch_size is {patch}, and must be 16 with use_complex_transposed_convolution: '
                'with others, transformers makes an output of another size than the input'
            )
        mean, std, size = _normalisation(processor)
        ours = {
            'architecture': 'clipseg',
            'backbone': {
                'type': 'open_clip',
                'architecture': ARCHITECTURE,
                'mean': mean,
                'std': std,
                'overrides': _overrides(vision, text, int(own['projection_dim'])),
            },
            'layers': [int(layer) for layer in own['extract_layers']],
            'decoder': {
                **{name: int(own[theirs]) for name, theirs in _DECODER.items()},
                'head': 'refined' if refined else 'plain',
            },
        }
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(
            f'The settings in {folder} cannot be read: {repr(error)[:500]}'
        ) from error
    return ours, size


def settings_files(model: CLIPSeg, card: ModelCard) -> dict[str, str]:
    """Names and contents of all files of a folder but the weights.

    Raises:
        CheckpointError: transformers has no such model.
    """
    decoder = model.decoder.options
    patch = model.backbone.patch_size
    problem = ''
    if decoder['head'] == 'refined' and patch != 16:
        problem = f'its refined head needs patches of 16 pixels there, and it has {patch}'
    if getattr(model.backbone, 'n_tokens', None) is not None:
        problem = 'transformers has no n_tokens'
    if problem:
        raise CheckpointError(f'{card.name!r} cannot be written for Hugging Face: {problem}')
    vision, text = _tower_settings(model)
    config = {
        'architectures': ['CLIPSegForImageSegmentation'],
        'model_type': 'clipseg',
        'projection_dim': model.backbone.embed_dim,
        'extract_layers': list(model.layers),
        **{theirs: decoder[name] for name, theirs in _DECODER.items()},
        'use_complex_transposed_convolution': decoder['head'] == 'refined',
        'vision_config': {'model_type': 'clipseg_vision_model', **vision},
        'text_config': {'model_type': 'clipseg_text_model', **text},
    }
    processor = {
        'image_processor_type': 'ViTImageProcessor',
        'processor_class': 'CLIPSegProcessor',
        'do_resize': True,
        'size': {'height': card.input_size, 'width': card.input_size},
        'resample': _BILINEAR,
        'do_rescale': True,
        'rescale_factor': 1 / 255,
        'do_normalize': True,
        'image_mean': list(model.backbone.mean),
        'image_std': list(model.backbone.std),
    }
    return {
        'config.json': json.dumps(config, indent=2),
        'preprocessor_config.json': json.dumps(processor, indent=2),
        CARD_FILE: to_json(card.stored_fields(), 'card'),
        **_tokenizer_files(),
    }


def _section(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    # Files of 2022 have the same once more as vision_config_dict, which then prevails.
    return {
        **defaults,
        **(config.get(f'{name}_config') or {}),
        **(config.get(f'{name}_config_dict') or {}),
    }


def _overrides(
    vision: Mapping[str, Any], text: Mapping[str, Any], embed_dim: int
) -> dict[str, Any]:
    """open_clip's configuration, as far as it differs from that of the architecture."""
    import open_clip

    activation = vision['hidden_act']
    if activation not in _ACTIVATIONS or text['hidden_act'] != activation:
        raise ValueError(
            f'hidden_act is {shorten(activation)} and {shorten(text["hidden_act"])}, and must be '
            f'one of {sorted(_ACTIVATIONS)}, the same in both towers'
        )
    wanted: dict[str, Any] = {
        'embed_dim': embed_dim,
        'quick_gelu': _ACTIVATIONS[activation],
        'vision_cfg': {
            'image_size': _side(vision, 'image_size'),
            'layers': int(vision['num_hidden_layers']),
            'width': int(vision['hidden_size']),
            'patch_size': _side(vision, 'patch_size'),
        },
        'text_cfg': {
            'context_length': int(text['max_position_embeddings']),
            'vocab_size': int(text['vocab_size']),
            'width': int(text['hidden_size']),
            'heads': int(text['num_attention_heads']),
            'layers': int(text['num_hidden_layers']),
        },
    }
    head_width, rest = divmod(vision['hidden_size'], vision['num_attention_heads'])
    if rest:
        raise ValueError(
            f'num_attention_heads is {vision["num_attention_heads"]}, and must be a divisor of '
            f'hidden_size, {vision["hidden_size"]}'
        )
    if head_width != 64:
        wanted['vision_cfg']['head_width'] = head_width
    for section, tower in (('vision_cfg', vision), ('text_cfg', text)):
        ratio = tower['intermediate_size'] / tower['hidden_size']
        if ratio != 4:
            wanted[section]['mlp_ratio'] = ratio
        if not math.isclose(tower['layer_norm_eps'], 1e-5):
            wanted[section]['norm_kwargs'] = {'eps': tower['layer_norm_eps']}
    known = open_clip.get_model_config(ARCHITECTURE)
    return {key: value for key, value in wanted.items() if known.get(key) != value}


def _normalisation(processor: Mapping[str, Any]) -> tuple[list[float], list[float], int]:
    wanted = {'do_resize': True, 'do_normalize': True, 'do_rescale': True, 'resample': _BILINEAR}
    given = {**wanted, **processor}
    for key, value in wanted.items():
        _require(given, key, value)
    if processor.get('do_center_crop'):
        _require(processor, 'do_center_crop', False)
    factor = processor.get('rescale_factor', 1 / 255)
    if not math.isclose(factor, 1 / 255):
        raise ValueError(f'rescale_factor is {factor}, and must be 1 / 255')
    size = processor['size']
    if isinstance(size, Mapping):
        if size.get('height') is None or size['height'] != size.get('width'):
            raise ValueError(
                f'size is {shorten(dict(size))}, and must be a square of one height and width'
            )
        size = size['height']
    # Given always: transformers' own default, 0.5, is not what CLIPSeg was trained with.
    mean, std = ([float(value) for value in processor[f'image_{key}']] for key in ('mean', 'std'))
    return mean, std, int(size)


def _tower_settings(model: CLIPSeg) -> tuple[dict[str, Any], dict[str, Any]]:
    clip: Any = model.backbone.model  # type: ignore[attr-defined]
    visual = clip.visual
    sides = visual.image_size
    if sides[0] != sides[1]:
        raise CheckpointError(f'Hugging Face has towers for square images, unlike {sides}')
    vision = {**_block_settings(visual.transformer), 'image_size': sides[0]}
    vision['patch_size'] = model.backbone.patch_size
    text = {**_block_settings(clip.transformer), 'vocab_size': clip.vocab_size}
    text['max_position_embeddings'] = clip.context_length
    # The tokens that start and end a text, and the padding that transformers' own class has.
    text.update(bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1, pad_token_id=1)
    return vision, text


def _block_settings(transformer: Any) -> dict[str, Any]:
    block = transformer.resblocks[0]
    return {
        'hidden_size': transformer.width,
        'intermediate_size': block.mlp.c_fc.out_features,
        'num_hidden_layers': len(transformer.resblocks),
        'num_attention_heads': block.attn.num_heads,
        'hidden_act': 'quick_gelu' if type(block.mlp.gelu).__name__ == 'QuickGELU' else 'gelu',
        'layer_norm_eps': block.ln_1.eps,
    }


def _tokenizer_files() -> dict[str, str]:
    """CLIP's tokenizer, as open_clip brings it, in the files that transformers reads."""
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    start, end = '<|startoftext|>', '<|endoftext|>'
    vocabulary = dict(tokenizer.encoder)
    for token, number in ((start, VOCABULARY - 2), (end, VOCABULARY - 1)):
        old = next(key for key, value in vocabulary.items() if value == number)
        vocabulary[token] = vocabulary.pop(old)
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    special = {'bos_token': start, 'eos_token': end, 'unk_token': end, 'pad_token': end}
    settings = {
        'tokenizer_class': 'CLIPTokenizer',
        'processor_class': 'CLIPSegProcessor',
        'model_max_length': 77,
        'do_lower_case': True,
        'errors': 'replace',
        **special,
    }
    return {
        'vocab.json': json.dumps(vocabulary, ensure_ascii=False),
        'merges.txt': '\n'.join(['#version: 0.2', *(' '.join(pair) for pair in merges), '']),
        'special_tokens_map.json': json.dumps(special, indent=2),
        'tokenizer_config.json': json.dumps(settings, indent=2),
    }


def _side(settings: Mapping[str, Any], key: str) -> int:
    """Return the side of a square that is given as a number or as two."""
    value = settings[key]
    if isinstance(value, (list, tuple)):
        if len(value) != 2 or value[0] != value[1]:
            raise ValueError(f'{key} is {shorten(value)}, and must be square')
        value = value[0]
    return int(value)


def _require(settings: Mapping[str, Any], key: str, wanted: object) -> None:
    if settings[key] != wanted:
        raise ValueError(f'{key} is {shorten(settings[key])}, and must be {wanted!r}')
