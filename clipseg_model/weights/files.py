"""Files of tensors, opened without running what is in them, and checked against a model."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipseg_model.errors import CheckpointError, ClipsegError, refusal_of
from clipseg_model.modeling.base import build_model

_LARGEST = 1 << 20  # Of any number in a configuration.


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        CheckpointError: The file is missing, damaged, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise CheckpointError(f'There is no file {path}') from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f'{path} is not readable as JSON: {error}') from error
    if not isinstance(value, dict):
        raise CheckpointError(f'{path} holds a {type(value).__name__} and not settings')
    return value


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, or of all parts that an index (``.json``) names beside it.

    Raises:
        CheckpointError: A file is missing or damaged, or the index names something else.
    """
    if path.suffix != '.json':
        return read_tensors(path) if path.suffix == '.safetensors' else read_pickled(path)
    places = read_json(path).get('weight_map')
    parts = sorted({str(part) for part in places.values()}) if isinstance(places, dict) else []
    tensors: dict[str, Tensor] = {}
    for part in parts:
        file = path.parent / part
        if Path(part).name != part or file.suffix == '.json' or not os.path.isfile(file):
            raise CheckpointError(
                f'The weights are in {len(parts)} files that {path} names, and {part!r} is not '
                'beside it: get all of them from where they came from'
            )
        tensors.update(read_weights(file))
    if not tensors:
        raise CheckpointError(f'{path} names no files of weights (weight_map)')
    return tensors


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
        # A file that is mapped never yields more bytes than it has, whatever lengths it states.
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as opened:
            content = torch.load(cast(IO[bytes], opened), map_location='cpu', weights_only=True)
    except Exception as error:  # A damaged pickle makes its reader raise errors of any kind.
        raise CheckpointError(
            f'{path} was refused (damaged, cut off, or not weights alone?): {refusal_of(error)}. '
            'Get the file from its authors, or a .safetensors file in its place'
        ) from error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f'{path} holds a {type(content).__name__} and not a set of weights')
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f'{path} is no plain set of weights: {key!r} is a {type(value).__name__} and not '
                'a tensor. Save the model.state_dict() alone'
            )
        plain = value.layout == torch.strided and value.device.type == 'cpu'
        if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise CheckpointError(f'{path} is damaged: it does not hold the values of {key}')
    return content


def outline(config: Mapping[str, Any], tensors: int, path: Path) -> dict[str, Tensor]:
    """Return the weights of the model that a configuration describes, without their memory.

    A configuration that is damaged may describe a model that no memory holds: compare these with
    the weights that are there, of which there are ``tensors``, before it is built.

    Raises:
        CheckpointError: There is no such model.
    """
    try:
        for key, value in _numbers(config):
            repeated = any(word in str(key) for word in ('layers', 'blocks', 'depth'))
            if value > (max(tensors, 100) if repeated else _LARGEST):
                raise ValueError(f'{key} is {value}')
        with torch.device('meta'):
            return build_model(config).state_dict()
    except ClipsegError:
        raise
    except Exception as error:  # Wrong settings make constructors raise errors of any kind.
        raise CheckpointError(f'The configuration in {path} is wrong: {error!r}') from error


def _numbers(value: object, key: str = '') -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _numbers(entry, name)
    elif isinstance(value, (int, float)):
        yield key, value


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
