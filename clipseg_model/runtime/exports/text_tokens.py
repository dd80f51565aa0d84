"""How texts become the inputs of an exported text tower, without torch."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ExportError, PromptError
from clipseg_model.files.small_files import is_file_beside, shorten
from clipseg_model.modeling.bundled.word_pieces import tokenize, unpack_tokenizer

ReadTexts = Callable[[Sequence[str]], dict[str, NDArray[Any]]]
"""Returns the inputs of a text tower by their names, each (P, T)."""

WORD_PIECES, CLIP = 'word pieces', 'clip'

_MOST_BYTES = 1 << 24  # Of a packed vocabulary, or of the file of a tokenizer.


def open_tokenizer(entry: Mapping[str, Any], folder: Path) -> ReadTexts:
    """Return what reads texts for an export.

    Args:
        entry: What its manifest says of the tokenizer: ``kind``, ``file`` and the rest.
        folder: Where the files are.

    Raises:
        ExportError: The entry is damaged or of another kind.
        CheckpointError: The vocabulary is damaged.
    """
    try:
        kind, path = entry['kind'], _beside(folder, entry['file'])
        if kind == WORD_PIECES:
            offset, size = int(entry['offset']), int(entry['bytes'])
            if offset < 0 or not 0 < size <= _MOST_BYTES:
                raise ValueError(f'no vocabulary has {size} bytes from {offset} on')
            with path.open('rb') as file:
                file.seek(offset)
                packed = file.read(size)
            return _word_pieces(packed, int(entry['pieces']), int(entry['most']))
        if kind == CLIP:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f'{path.name} is larger than any tokenizer')
            return _clip(path, int(entry['most']))
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise ExportError(
            f'What the export in {folder} says of its tokenizer is damaged '
            f'({type(error).__name__}: {error}): export the model again (clipseg export)'
        ) from error
    raise ExportError(
        f'The export in {folder} has a tokenizer of the kind {shorten(kind)}, which this version '
        'does not know: update the program, or export the model again (clipseg export)'
    )


def _beside(folder: Path, name: Any) -> Path:
    """Return a file of a folder; raises a ValueError for any other, which a manifest may name."""
    if not is_file_beside(folder, name):
        raise ValueError(f'{shorten(name)} is no file beside it')
    return folder / str(name)


def _word_pieces(packed: bytes, pieces: int, most: int) -> ReadTexts:
    tokenizer = unpack_tokenizer(packed, pieces)

    def read(texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        tokens, mask = tokenize(tokenizer, texts, most)
        return {'tokens': tokens, 'mask': mask}

    return read


def _clip(path: Path, most: int) -> ReadTexts:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # It has no kind of its own.
        raise ValueError(f'{path.name}: {error}') from error
    start, end = (tokenizer.token_to_id(f'<{name}_of_text>') for name in ('start', 'end'))
    if start is None or end is None:
        raise ValueError(f'{path.name} has no start or end of a text')

    def read(texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        rows = []
        for text in texts:
            ids = [start, *tokenizer.encode(clean(text), add_special_tokens=False).ids, end]
            if len(ids) > most:
                raise PromptError(
                    f'A prompt is longer than the {most} tokens that the text tower takes, '
                    f'shorten it: {text[:60]!r}'
                )
            rows.append(ids)
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return {'tokens': tokens}

    return read


def clean(text: str) -> str:
    """Return a text as CLIP's tokenizer reads it: mended, spaces joined, in small letters."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return ' '.join(text.split()).lower()
