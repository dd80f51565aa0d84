"""Weights on disk: safetensors files that hold the model's configuration and card as well.

The metadata of a file has the entries ``format`` (``clipseg_ros``), ``version`` (``1``),
``config`` and ``card`` (JSON), and ``without`` (JSON list of key prefixes that were left out).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipseg_model.errors import CheckpointError
from clipseg_model.model_card import ModelCard, to_json
from clipseg_model.models import SegmentationModel, build_model

__all__ = ['load_card', 'load_checkpoint', 'save_checkpoint']

_FORMAT = 'clipseg_ros'
_VERSION = '1'
_BACKBONE = 'backbone.'


def save_checkpoint(
    path: str | Path,
    model: SegmentationModel,
    card_fields: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    include_backbone: bool = True,
) -> None:
    """Write a model to a file, which replaces an older one only once it is complete.

    Args:
        path: A ``.safetensors`` file; its folder is made.
        model: The model; it is not changed.
        card_fields: Fields of :class:`~clipseg_model.model_card.ModelCard` other than
            ``architecture``, ``config``, ``weights`` and ``sha256``.
        dtype: Storage type of floating-point values, such as ``torch.float16``; None keeps
            theirs. Integers, an int8 table say, stay as they are.
        include_backbone: False leaves the towers out, for frozen towers that come from a file of
            their own.

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
    path: str | Path, *, backbone_weights: str | Path | None = None
) -> tuple[SegmentationModel, ModelCard]:
    """Read a model from a file that :func:`save_checkpoint` wrote.

    Args:
        path: The file.
        backbone_weights: A second such file whose towers are taken, for a file that was written
            without them.

    Returns:
        The model on the CPU, in evaluation mode and float32, and its card.

    Raises:
        CheckpointError: The file is missing or damaged, is of another kind or version, or does
            not hold exactly the weights of the model that it describes.
    """
    path = Path(path)
    metadata = _read_metadata(path)
    card = _card(metadata, path)
    without = tuple(_json(metadata, 'without', list, path))
    if without and backbone_weights is None:
        raise CheckpointError(
            f'{path} was written without the weights of {", ".join(without)}: name the file that '
            'has them as backbone_weights'
        )
    tensors = _read_tensors(path)
    if without and backbone_weights is not None:
        others = Path(backbone_weights)
        _read_metadata(others)
        tensors.update(
            (key, value) for key, value in _read_tensors(others).items() if key.startswith(without)
        )
    try:
        model = build_model(dict(card.config))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f'The configuration in {path} is wrong: {error!r}') from error
    _fill(model, tensors, path)
    return model.eval(), card


def load_card(path: str | Path) -> ModelCard:
    """Read the card of a checkpoint without its weights.

    Raises:
        CheckpointError: The file is missing, damaged, or of another kind or version.
    """
    path = Path(path)
    return _card(_read_metadata(path), path)


def _checked_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != '.safetensors':
        raise CheckpointError(f'A checkpoint is a .safetensors file, unlike {path}')
    return path


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.stem}-', suffix='.tmp')
        os.close(handle)
        temporary = Path(name)
        try:
            save_file(tensors, temporary, metadata)
            # mkstemp makes files private; weights are as readable as any other file.
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f'{path} could not be written: {error}') from error


def _open_error(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f'{path} is not a readable safetensors file (damaged, or cut off?): {error}'
    )


def _read_metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise CheckpointError(f'There is no checkpoint {path}')
    _checked_suffix(path)
    try:
        with safe_open(path, framework='pt') as opened:
            metadata: dict[str, str] = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _open_error(path, error) from error
    if metadata.get('format') != _FORMAT:
        raise CheckpointError(
            f'{path} holds weights, but is no checkpoint of this project: it has no configuration '
            'inside; save_checkpoint() writes one'
        )
    if metadata.get('version') != _VERSION:
        raise CheckpointError(
            f'{path} is of version {metadata.get("version")!r}, and this program reads version '
            f'{_VERSION!r}: update the program'
        )
    return metadata


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework='pt') as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _open_error(path, error) from error


def _json(metadata: Mapping[str, str], key: str, kind: type, path: Path) -> Any:
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f'The {key} in {path} is missing or damaged: {error!r}') from error
    if not isinstance(value, kind):
        raise CheckpointError(f'The {key} in {path} is not a {kind.__name__}')
    return value


def _card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    config = _json(metadata, 'config', dict, path)
    try:
        return ModelCard.from_stored(_json(metadata, 'card', dict, path), config, path)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error


def _fill(model: SegmentationModel, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    problems = [f'{key} is missing' for key in wanted if key not in tensors]
    problems += [f'{key} is unknown' for key in tensors if key not in wanted]
    for key, value in tensors.items():
        if key not in wanted:
            continue
        target = wanted[key]
        if value.shape != target.shape:
            problems.append(f'{key} is {tuple(value.shape)}, not {tuple(target.shape)}')
        elif value.dtype != target.dtype and not (
            value.is_floating_point() and target.is_floating_point()
        ):
            problems.append(f'{key} is {value.dtype}, not {target.dtype}')
        elif value.is_floating_point() and not bool(value.isfinite().all()):
            problems.append(f'{key} is not finite')
    if problems:
        shown = '; '.join(problems[:5])
        more = f'; and {len(problems) - 5} more' if len(problems) > 5 else ''
        raise CheckpointError(
            f'The weights in {path} do not fit the model that it describes: {shown}{more}'
        )
    model.load_state_dict(dict(tensors), strict=True)
