"""What a checkpoint of this project says of itself, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from clipseg_model.errors import CheckpointError, FileError
from clipseg_model.files.small_files import parse_json, shorten
from clipseg_model.model_card import ModelCard

FORMAT = 'clipseg_ros'
VERSION = '1'
MOST_BYTES = 1 << 24
"""Of settings, indices and headers; those of the largest models are smaller."""


def read_metadata(path: Path) -> dict[str, str]:
    """Read the text entries in the header of a safetensors file; empty where it has none.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f'There is no checkpoint {path}')
    try:
        check_header(path)
        with safe_open(path, framework='numpy') as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def check_header(path: Path) -> None:
    """Raise CheckpointError if a header would take more memory than any has."""
    with path.open('rb') as file:
        length = int.from_bytes(file.read(8), 'little')
    if length > MOST_BYTES:
        raise CheckpointError(
            f'{path} is not a readable safetensors file: its header would have {length} bytes'
        )


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a file that is damaged."""
    return CheckpointError(
        f'{path} is not a readable safetensors file (damaged, or cut off?): {error}'
    )


def read_own_card(path: Path) -> ModelCard:
    """Read the card of a checkpoint of this project.

    Raises:
        CheckpointError: The file is missing, damaged, or of another kind or version.
    """
    return card_of(own_metadata(path), path)


def own_metadata(path: Path) -> dict[str, str]:
    """Return the entries of a checkpoint of this project; errors as :func:`read_own_card`."""
    if path.is_file() and path.suffix != '.safetensors':
        raise CheckpointError(f'A checkpoint is a .safetensors file, unlike {path}')
    metadata = read_metadata(path)
    if metadata.get('format') != FORMAT:
        raise CheckpointError(
            f'{path} holds weights, but is no checkpoint of this project: it has no configuration '
            'inside; save_checkpoint() writes one'
        )
    if metadata.get('version') != VERSION:
        raise CheckpointError(
            f'{path} is of version {shorten(metadata.get("version"))}, and this program reads '
            f'version {VERSION!r}: update the program'
        )
    return metadata


def read_entry(metadata: Mapping[str, str], key: str, kind: type, path: Path) -> Any:
    """Return an entry of a checkpoint, which is of JSON; errors as :func:`read_own_card`."""
    if key not in metadata:
        raise CheckpointError(f'The {key} in {path} is missing: get the file anew')
    try:
        value = parse_json(metadata[key], f'The {key} in {path}')
    except FileError as error:
        raise CheckpointError(f'{error}. The file is damaged: get it anew') from error
    if not isinstance(value, kind):
        raise CheckpointError(f'The {key} in {path} is not a {kind.__name__}')
    return value


def card_of(metadata: Mapping[str, str], path: Path) -> ModelCard:
    """Return the card in the entries of a checkpoint; errors as :func:`read_own_card`."""
    config = read_entry(metadata, 'config', dict, path)
    try:
        return ModelCard.from_stored(read_entry(metadata, 'card', dict, path), config, path)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
