"""Models by name."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import torch

from clipseg_model.checkpoints import load_card, load_checkpoint
from clipseg_model.errors import CheckpointError, ClipsegError, ModelNotFoundError
from clipseg_model.model_card import ModelCard
from clipseg_model.segmenter import Segmenter
from clipseg_model.untrained import UNTRAINED, how_to_train

__all__ = ['DEFAULT_MODEL', 'ModelCard', 'create_model', 'get_card', 'list_models']

DEFAULT_MODEL = 'tabletop'

WEIGHTS_FOLDER = Path(__file__).parent / 'weights'

_DESCRIPTIONS = {
    'tabletop': 'Demonstration model of this project: tiny, and knows rendered scenes only.',
    'clipseg-rd64': 'CLIPSeg on CLIP ViT-B/16, D = 64, plain head, taps 3, 6, 9.',
    **{name: card.description for name, card in UNTRAINED.items()},
}


def list_models() -> list[str]:
    """The names that :func:`create_model` knows, the default first."""
    return list(_DESCRIPTIONS)


def get_card(name: str) -> ModelCard:
    """What is known of a model, its weights being here or not.

    Args:
        name: One of :func:`list_models`.

    Raises:
        ModelNotFoundError: There is no model of that name.
        CheckpointError: Its file is here and damaged.
    """
    if name not in _DESCRIPTIONS:
        raise _not_found(name)
    if name == 'clipseg-rd64':
        return _rd64_card()
    weights = WEIGHTS_FOLDER / f'{name}.safetensors'
    if weights.is_file():
        return load_card(weights)
    if name in UNTRAINED:
        return UNTRAINED[name]
    return ModelCard(
        name=name,
        architecture='clipseg',
        config={},
        input_size=256,
        description=_DESCRIPTIONS[name],
        weights=weights,
    )


def create_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str | torch.device = 'auto',
    threads: int | None = None,
) -> Segmenter:
    """Load a model, ready to segment.

    Args:
        name_or_path: One of :func:`list_models`, or a ``.safetensors`` checkpoint.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of torch's CPU operations, for the whole process; None leaves them.

    Raises:
        ModelNotFoundError: It is neither a name that is known nor a path.
        CheckpointError: The weights are missing or damaged.
        DeviceError: The device is not there.
        ValueError: ``threads`` is less than 1.
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f'threads must be at least 1, not {threads}')
        torch.set_num_threads(threads)
    model, card = load_checkpoint(_find_weights(os.fspath(name_or_path)))
    return Segmenter(model, card, device)


def _find_weights(name_or_path: str) -> Path:
    if name_or_path in _DESCRIPTIONS:
        weights = get_card(name_or_path).weights
        if weights is None and name_or_path in UNTRAINED:
            raise CheckpointError(how_to_train(name_or_path))
        if weights is None:
            raise CheckpointError(
                f'The weights of {name_or_path!r} are not part of this package, and nothing is '
                'downloaded: give the path of a .safetensors checkpoint with them in place of '
                f'the name, or use {DEFAULT_MODEL!r}, which is bundled'
            )
        if not weights.is_file():
            raise CheckpointError(
                f'The bundled weights of {name_or_path!r} are missing from this installation '
                f'({weights}): reinstall the package'
            )
        return weights
    path = Path(name_or_path).expanduser()
    if path.suffix or os.sep in name_or_path or path.is_file():
        return path
    raise _not_found(name_or_path)


def _not_found(name: str) -> ClipsegError:
    names = list_models()
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f'Did you mean {" or ".join(map(repr, close))}? ' if close else ''
    return ModelNotFoundError(
        f'There is no model {name!r}. {hint}There are {", ".join(names)}; '
        'or give the path of a .safetensors checkpoint'
    )


def _rd64_card() -> ModelCard:
    return ModelCard(
        name='clipseg-rd64',
        architecture='clipseg',
        config={
            'architecture': 'clipseg',
            'backbone': {'type': 'open_clip', 'architecture': 'ViT-B-16-quickgelu'},
            'layers': [3, 6, 9],
            'decoder': {
                'dim': 64,
                'cond_layer': 0,
                'num_heads': 4,
                'feedforward': 2048,
                'head': 'plain',
            },
        },
        input_size=352,
        licence='as the weights given',
        description=_DESCRIPTIONS['clipseg-rd64'],
    )
