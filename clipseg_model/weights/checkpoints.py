"""Weights on disk: this project's safetensors files, and the formats of others.

The metadata of a file of this project has ``format`` (``clipseg_ros``), ``version`` (``1``),
``config`` and ``card`` (JSON), and ``without`` (JSON list of key prefixes that were left out).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from clipseg_model.errors import CheckpointError, FileError
from clipseg_model.files.atomic_files import replacing
from clipseg_model.files.small_files import parse_json, shorten
from clipseg_model.files.user_folders import expanded
from clipseg_model.model_card import AS_RELEASED, ModelCard, to_json
from clipseg_model.modeling.backbone import Backbone, OpenClipBackbone, build_backbone
from clipseg_model.modeling.base import SegmentationModel, build_model
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.weights import huggingface, official, store
from clipseg_model.weights.files import (
    check_fit,
    outline,
    read_json,
    read_metadata,
    read_outline,
    read_tensors,
)

_FORMAT = 'clipseg_ros'
_VERSION = '1'
_BACKBONE = 'backbone.'
_PICKLED = ('.bin', '.pt', '.pth')


def save_checkpoint(
    path: str | Path,
    model: SegmentationModel,
    card_fields: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    include_backbone: bool = True,
) -> None:
    """Write a model to a ``.safetensors`` file, which replaces an older one once it is complete.

    Args:
        path: The file; its folder is made.
        model: The model; it is not changed.
        card_fields: Fields of :class:`~clipseg_model.model_card.ModelCard` other than
            ``architecture``, ``config``, ``weights`` and ``sha256``.
        dtype: Storage type of floating-point values; None keeps theirs. Integers stay as they are.
        include_backbone: False leaves the towers out, where they come from a file of their own.

    Raises:
        CheckpointError: A card field is unknown or out of range, a weight is not finite, or the
            file cannot be written.
    """
    path = _checked_suffix(path)
    config = model.config()
    card = ModelCard.from_stored(card_fields, config, path)
    without = [] if include_backbone else [_BACKBONE]
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if key.startswith(tuple(without)):
            continue
        stored = value.detach().cpu()
        if dtype is not None and stored.is_floating_point():
            stored = stored.to(dtype)
        if stored.is_floating_point() and not bool(stored.isfinite().all()):
            raise CheckpointError(f'{key} is not finite as {stored.dtype}: {path} was not written')
        # A clone: safetensors refuses tensors that share memory.
        tensors[key] = stored.clone(memory_format=torch.contiguous_format)
    metadata = {
        'format': _FORMAT,
        'version': _VERSION,
        'config': to_json(config, 'configuration'),
        'card': to_json(card.stored_fields(), 'card'),
        'without': json.dumps(without),
    }
    _write(path, tensors, metadata)


def load_checkpoint(
    path: str | Path,
    *,
    backbone_weights: str | Path | None = None,
    layers: Sequence[int] | None = None,
) -> tuple[SegmentationModel, ModelCard]:
    """Read a model in any of the formats that there are. Nothing is downloaded.

    Args:
        path: A ``.safetensors`` file of :func:`save_checkpoint`; a folder of Hugging Face's
            CLIPSeg, or the file of weights in it; an official decoder (``.pth``); or, as text, the
            name of downloaded weights: of :data:`clipseg_model.weights.store.SOURCES`, or
            ``owner/name`` at the Hugging Face hub.
        backbone_weights: Towers for a file without them, as :func:`load_towers` takes them. An
            official decoder gets OpenAI's ViT-B/16 or B/32, as it needs, where None, if they were
            downloaded.
        layers: Blocks that an official decoder taps, 0-based, since its file does not say them;
            3, 6, 9 where None.

    Returns:
        The model on the CPU, in evaluation mode and float32, and its card.

    Raises:
        CheckpointError: The file is missing or damaged, would run code, is of another kind or
            version, or does not hold exactly the weights of the model that it describes.
    """
    path, source = _locate(path)
    pickled = path.suffix in _PICKLED and not _is_huggingface(path)
    if layers is not None and not pickled:
        raise CheckpointError(f'{path} says itself which layers it taps: layers is for .pth files')
    if pickled:
        return _load_official(path, backbone_weights, layers)
    if _is_huggingface(path):
        published, card = huggingface.load_huggingface(path)
        return published, _published(card, source)
    metadata = _own_metadata(path)
    card = _card(metadata, path)
    without = tuple(_json(metadata, 'without', list, path))
    if without and backbone_weights is None:
        raise CheckpointError(
            f'{path} was written without the weights of {", ".join(map(str, without))}: name the '
            'file that has them as backbone_weights'
        )
    found = read_outline(path)
    wanted = outline(card.config, path)
    left_out = tuple(str(prefix) for prefix in without)
    check_fit({k: v for k, v in wanted.items() if not k.startswith(left_out)}, found, path)
    tensors = read_tensors(path)
    if without and backbone_weights is not None:
        towers = load_towers(backbone_weights, card.config.get('backbone'))
        tensors.update(_prefixed(towers))
    check_fit(wanted, tensors, path)
    model = build_model(card.config)
    model.load_state_dict(tensors, strict=True)
    return model.eval(), card


def load_card(path: str | Path) -> ModelCard:
    """Read the card of a checkpoint without its weights; an official decoder has none.

    Raises:
        CheckpointError: The file is missing, damaged, or of another kind or version.
    """
    path, source = _locate(path)
    if _is_huggingface(path):
        return _published(huggingface.read_card(path), source)
    return _card(_own_metadata(path), path)


def load_towers(path: str | Path, config: Mapping[str, Any] | None = None) -> Backbone:
    """Read CLIP towers alone, an ``nn.Module``.

    The file is a checkpoint of this project with towers, a folder of Hugging Face's CLIPSeg, or one
    that open_clip reads, which has no configuration: ``config`` is that of the towers; where None,
    that of the source of this name, else OpenAI's CLIP ViT-B/16, with CLIPSeg's normalisation.

    Raises:
        CheckpointError: The file is missing, damaged, or holds no such towers.
    """
    path, source = _locate(path)
    if _is_huggingface(path):
        return huggingface.load_huggingface(path)[0].backbone
    if path.suffix in _PICKLED or read_metadata(path).get('format') != _FORMAT:
        architecture = (source and source.architecture) or store.SOURCES[
            store.TOWERS[16]
        ].architecture
        settings = dict(config or {'type': 'open_clip', 'architecture': architecture})
        if settings.pop('type', None) != 'open_clip':
            raise CheckpointError(
                f'{path} is no checkpoint of this project, so it has no such towers'
            )
        return OpenClipBackbone(**settings, pretrained=path)
    card = _card(_own_metadata(path), path)
    found = {key: one for key, one in read_outline(path).items() if key.startswith(_BACKBONE)}
    whole = outline(card.config, path)
    wanted = {key: value for key, value in whole.items() if key.startswith(_BACKBONE)}
    check_fit(wanted, found, path)
    tensors = {key: value for key, value in read_tensors(path).items() if key.startswith(_BACKBONE)}
    check_fit(wanted, tensors, path)
    towers = build_backbone(card.config['backbone'])
    assert isinstance(towers, nn.Module)
    towers.load_state_dict({key[len(_BACKBONE) :]: value for key, value in tensors.items()})
    return towers


def _locate(path: str | Path) -> tuple[Path, store.Source | None]:
    """Return the path of a checkpoint, and its source if it was given by name."""
    # Not Path.exists, which raises an error where a name is too long.
    if isinstance(path, str) and (path in store.SOURCES or not os.path.exists(path)):
        source = store.source_of(path)
        if source is not None and not path.endswith(('.safetensors', *_PICKLED)):
            return store.required(source), source
    path = expanded(path)
    if not os.path.exists(path):
        raise CheckpointError(f'There is no checkpoint {path}')
    folder = path if path.is_dir() else path.parent
    if folder is path or path.name.startswith('adapter_model.'):
        settings = folder / 'adapter_config.json'
        if settings.is_file():
            base = read_json(settings).get('base_model_name_or_path')
            raise CheckpointError(
                f'{folder} holds an adapter (LoRA) and not a model: merge it first, into its base '
                f'({shorten(base)}), with PeftModel.from_pretrained(...).merge_and_unload() of peft'
                ', and save_pretrained() what that returns'
            )
    if path.is_file() and re.search(r'-\d{5}-of-\d{5}\.(safetensors|bin)$', path.name):
        raise CheckpointError(
            f'{path} is one of several files that make a model: give its folder {folder}'
        )
    return path, None


def _is_huggingface(path: Path) -> bool:
    if path.is_dir():
        return True
    if path.name not in store.WEIGHT_FILES or not path.with_name('config.json').is_file():
        return False
    return path.suffix != '.safetensors' or read_metadata(path).get('format') != _FORMAT


def _published(card: ModelCard, source: store.Source | None) -> ModelCard:
    """Return a card with what is known of the source of weights that were given by name."""
    if source is None:
        return card
    return replace(
        card,
        name=source.name,
        description=source.description,
        licence=source.licence,
        source=source.url,
    )


def _load_official(
    path: Path, backbone_weights: str | Path | None, layers: Sequence[int] | None
) -> tuple[CLIPSeg, ModelCard]:
    tensors, options, unused = official.read_official(path)
    patch = options['patch_size']
    source = store.SOURCES[store.TOWERS.get(patch, store.TOWERS[16])]
    if backbone_weights is None:
        downloaded = store.find_downloaded(source) if patch in store.TOWERS else None
        if downloaded is None:
            fetch = f'; or fetch them once with "clipseg download {source.name}"'
            raise CheckpointError(
                f'{path} holds a decoder alone, which works on a CLIP with patches of {patch} px '
                f"(OpenAI's ViT-B/16 and B/32 are known here): name a file with these towers as "
                'backbone_weights (--towers on the command line), such as a Hugging Face folder of '
                f'CLIPSeg{fetch if patch in store.TOWERS else ""}'
            )
        backbone_weights = downloaded
    towers = load_towers(
        backbone_weights, {'type': 'open_clip', 'architecture': source.architecture}
    )
    sizes = {'token_width': 'tokens', 'embed_dim': 'embeddings', 'patch_size': 'patches'}
    for key, what in sizes.items():
        wanted, found = options.pop(key), getattr(towers, key)
        if wanted != found:
            raise CheckpointError(
                f'The decoder in {path} is for towers with {what} of size {wanted}, and those in '
                f'{backbone_weights} have {found}'
            )
    taps = official.LAYERS if layers is None else tuple(layers)
    if options.pop('num_layers') != len(taps):
        raise CheckpointError(
            f'The decoder in {path} has another number of blocks than {len(taps)}, the layers '
            f'{list(taps)}: name the layers that it was trained with'
        )
    try:
        model = CLIPSeg(towers, taps, **options)
    except ValueError as error:
        raise CheckpointError(f'{path} does not fit the towers: {error}') from error
    tensors.update(_prefixed(towers))
    model.load_state_dict(tensors, strict=True)
    stored = {
        'name': path.stem,
        'input_size': official.INPUT_SIZE,
        **AS_RELEASED,
        'description': 'An official decoder of CLIPSeg on the towers of CLIP.',
        'licence': 'of the weights given; not MIT, as the code that came with them',
        'details': {'unused weights': unused},
    }
    return model.eval(), ModelCard.from_stored(stored, model.config(), path)


def _prefixed(towers: Backbone) -> dict[str, Tensor]:
    assert isinstance(towers, nn.Module)
    return {f'{_BACKBONE}{key}': value for key, value in towers.state_dict().items()}


def _checked_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != '.safetensors':
        raise CheckpointError(f'A checkpoint is a .safetensors file, unlike {path}')
    return path


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f'{path} could not be written: {error}') from error


def _own_metadata(path: Path) -> dict[str, str]:
    if path.is_file():
        _checked_suffix(path)
    metadata = read_metadata(path)
    if metadata.get('format') != _FORMAT:
        raise CheckpointError(
            f'{path} holds weights, but is no checkpoint of this project: it has no configuration '
            'inside; save_checkpoint() writes one'
        )
    if metadata.get('version') != _VERSION:
        raise CheckpointError(
            f'{path} is of version {shorten(metadata.get("version"))}, and this program reads '
            f'version {_VERSION!r}: update the program'
        )
    return metadata


def _json(metadata: Mapping[str, str], key: str, kind: type, path: Path) -> Any:
    if key not in metadata:
        raise CheckpointError(f'The {key} in {path} is missing: get the file anew')
    try:
        value = parse_json(metadata[key], f'The {key} in {path}')
    except FileError as error:
        raise CheckpointError(f'{error}. The file is damaged: get it anew') from error
    if not isinstance(value, kind):
        raise CheckpointError(f'The {key} in {path} is not a {kind.__name__}')
    return value


def _card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    config = _json(metadata, 'config', dict, path)
    try:
        return ModelCard.from_stored(_json(metadata, 'card', dict, path), config, path)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
