"""Files of tensors, opened without running what is in them, and checked against a model."""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipseg_model.errors import CheckpointError, ClipsegError, FileError, refusal_of
from clipseg_model.files import small_files
from clipseg_model.files.archives import check_archive
from clipseg_model.files.small_files import shorten
from clipseg_model.modeling.base import build_model

MOST_BLOCKS = 256
"""Most blocks of a tower or a decoder, and most layers that are tapped."""

_LARGEST = 1 << 20  # Of any number in a configuration.
_MOST_VALUES = 4_000_000_000  # Of a model: half as many again as the largest CLIP has.
_MOST_BESIDE = 1 << 24  # Values that a model computes when it is built, such as masks.
_MOST_BYTES = 1 << 24  # Of settings, indices and headers; those of the largest models are smaller.
_MOST_TENSORS = 20_000
_DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        CheckpointError: The file is missing, damaged, too large, or holds something else.
    """
    try:
        value = small_files.read_json(path, _MOST_BYTES)
    except FileError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(value, dict):
        raise CheckpointError(f'{path} holds a {type(value).__name__} and not settings')
    return value


def read_weights(path: Path, wanted: Mapping[str, Tensor], ignored: str) -> dict[str, Tensor]:
    """Read the tensors of a file, or of all parts that an index (``.json``) names beside it.

    Args:
        path: The file, or the index.
        wanted: What the tensors have to be like: of files that state what they hold
            (``.safetensors``) nothing else is read.
        ignored: How the names end of tensors that are left out.

    Raises:
        CheckpointError: A file is missing or damaged, holds other tensors than are wanted, or the
            index names something else.
    """
    if path.suffix != '.json':
        return _read_part(path, wanted, wanted, ignored)
    places = read_json(path).get('weight_map')
    parts = sorted({str(part) for part in places.values()}) if isinstance(places, dict) else []
    tensors: dict[str, Tensor] = {}
    for part in parts:
        file = path.parent / part
        if Path(part).name != part or file.suffix == '.json' or not os.path.isfile(file):
            raise CheckpointError(
                f'The weights are in {len(parts)} files that {path} names, and {part[:260]!r} is '
                'not beside it: get all of them from where they came from'
            )
        tensors.update(_read_part(file, wanted, (), ignored))
    if not tensors:
        raise CheckpointError(f'{path} names no files of weights (weight_map)')
    return tensors


def _read_part(
    path: Path, wanted: Mapping[str, Tensor], needed: Collection[str], ignored: str
) -> dict[str, Tensor]:
    """Read a file of tensors that are wanted, among them all that are needed."""
    if path.suffix != '.safetensors':
        read = read_pickled(path)
        return {key: value for key, value in read.items() if not key.endswith(ignored)}
    found = {key: one for key, one in read_outline(path).items() if not key.endswith(ignored)}
    check_fit({key: wanted[key] for key in wanted if key in found or key in needed}, found, path)
    return read_tensors(path, found)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the text entries in the header of a safetensors file; empty where it has none.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f'There is no checkpoint {path}')
    with _opened(path) as opened:
        return dict(opened.metadata() or {})


def read_outline(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file without their values, on torch's device ``meta``.

    Raises:
        CheckpointError: The file is damaged, or has more tensors than any model.
    """
    with _opened(path) as opened:
        keys = list(opened.keys())
        if len(keys) > _MOST_TENSORS:
            raise CheckpointError(f'{path} has {len(keys)} tensors, and no model here has so many')
        outlines = {}
        for key in keys:
            part = opened.get_slice(key)
            dtype = _DTYPES.get(part.get_dtype())
            if dtype is None:
                raise CheckpointError(
                    f'{path} has {key[:200]!r} as {part.get_dtype()}, which is not read here'
                )
            outlines[key] = torch.empty(part.get_shape(), dtype=dtype, device='meta')
    return outlines


def read_tensors(path: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read tensors of a safetensors file, all of them where no names are given, on the CPU.

    Raises:
        CheckpointError: The file is damaged.
    """
    with _opened(path) as opened:
        wanted = opened.keys() if names is None else names
        return {key: opened.get_tensor(key) for key in wanted}


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file of ``torch.save``, without running code that it may hold.

    Raises:
        CheckpointError: The file is missing, damaged, or no flat dictionary of tensors alone.
    """
    if not path.is_file():
        raise CheckpointError(f'There is no checkpoint {path}')
    check_archive(path)
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
                f'{path} is no plain set of weights: {shorten(key)} is a {type(value).__name__} '
                'and not a tensor. Save the model.state_dict() alone'
            )
        plain = value.layout == torch.strided and value.device.type == 'cpu'
        if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise CheckpointError(f'{path} is damaged: it does not hold the values of {key}')
    return content


def outline(config: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights of the model that a configuration describes, without their memory.

    A configuration that is damaged may describe a model that no memory holds: compare these with
    the weights that are there before it is built.

    Raises:
        CheckpointError: There is no such model; or it names a file, is larger than any that is
            meant, or takes more memory than its weights.
    """
    try:
        _check_settings(config)
        with torch.device('meta'):
            model = build_model(config)
        weights = model.state_dict()
        size = sum(value.numel() for value in weights.values())
        beside = sum(value.numel() for value in model.buffers()) - size
        beside += sum(value.numel() for value in model.parameters())
        if size > _MOST_VALUES or beside > _MOST_BESIDE:
            raise ValueError(f'the model has {size} values, and {beside} beside its weights')
        return weights
    except ClipsegError as error:
        raise CheckpointError(f'The configuration in {path} is wrong: {error}') from error
    except Exception as error:  # Wrong settings make constructors raise errors of any kind.
        raise CheckpointError(
            f'The configuration in {path} is wrong: {repr(error)[:500]}'
        ) from error


def _check_settings(value: object, key: str = '') -> None:
    """Raise ValueError for a setting that no model has: too large, too many, or naming a file."""
    # Each block is built, which takes time; other numbers are sizes of tensors.
    repeated = any(word in key for word in ('layers', 'blocks', 'depth'))
    most = MOST_BLOCKS if repeated else _LARGEST
    if key == 'pretrained' and value is not None:
        raise ValueError('it names a file of weights (pretrained), and has to be with its own')
    if isinstance(value, Mapping):
        for name, entry in value.items():
            _check_settings(entry, str(name))
    elif isinstance(value, (list, tuple)):
        if len(value) > most:
            raise ValueError(f'{key} has {len(value)} entries')
        for entry in value:
            _check_settings(entry, key)
    elif isinstance(value, (int, float)) and value > most:
        raise ValueError(f'{key} is {value}')


def check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Make sure that a file holds exactly the weights of a model, finite ones where it was read.

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
        elif not _is_finite(value):
            problems.append(f'{key} is not finite')
    if problems:
        shown = '; '.join(problems[:5])
        more = f'; and {len(problems) - 5} more' if len(problems) > 5 else ''
        raise CheckpointError(
            f'The weights in {path} do not fit the model that it describes: {shown}{more}'
        )


def _is_finite(value: Tensor) -> bool:
    """Whether all values of a tensor are finite; one without values has none that is not."""
    return value.is_meta or not value.is_floating_point() or bool(value.isfinite().all())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open('rb') as file:
            length = int.from_bytes(file.read(8), 'little')
        if length > _MOST_BYTES:
            raise CheckpointError(
                f'{path} is not a readable safetensors file: its header would have {length} bytes'
            )
        with safe_open(path, framework='pt') as opened:
            yield opened
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: torch cannot map it.
        raise CheckpointError(
            f'{path} is not a readable safetensors file (damaged, or cut off?): {error}'
        ) from error
