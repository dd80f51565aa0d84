"""Files of tensors, opened without running what is in them, and checked against a model."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipseg_model.errors import CheckpointError


def read_metadata(path: Path) -> dict[str, str]:
    """Read the text entries in the header of a safetensors file; empty where it has none.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f'There is no checkpoint {path}')
    with _opened(path) as opened:
        return dict(opened.metadata() or {})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: The file is damaged.
    """
    with _opened(path) as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file of ``torch.save``, without running code that it may hold.

    Raises:
        CheckpointError: The file is missing, damaged, or no flat dictionary of tensors alone.
    """
    if not path.is_file():
        raise CheckpointError(f'There is no checkpoint {path}')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text advises to load it unsafely, so only its gist is passed on.
        raise CheckpointError(
            f'{path} was refused: it is damaged, or holds Python objects beside weights, which '
            'could run code when they are opened. Get the file from its authors, or a '
            f'.safetensors file in its place ({_gist(error)})'
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f'{path} is not a readable file of weights (damaged, or cut off?): {_gist(error)}'
        ) from error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f'{path} holds a {type(content).__name__} and not a set of weights')
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f'{path} is no plain set of weights: {key!r} is a {type(value).__name__} and not '
                'a tensor. Save the model.state_dict() alone'
            )
    return content


def check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Make sure that a file holds exactly the weights of a model, finite ones.

    Raises:
        CheckpointError: It does not; the first five differences are named with their shapes.
    """
    problems = [
        f'{key} is missing, and has to be {tuple(value.shape)}'
        for key, value in wanted.items()
        if key not in found
    ]
    problems += [
        f'{key} is unknown, and is {tuple(value.shape)}'
        for key, value in found.items()
        if key not in wanted
    ]
    for key, value in found.items():
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework='pt') as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f'{path} is not a readable safetensors file (damaged, or cut off?): {error}'
        ) from error


def _gist(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if 'WeightsUnpickler error' in line]
    return (told or lines or [type(error).__name__])[0][:200]
