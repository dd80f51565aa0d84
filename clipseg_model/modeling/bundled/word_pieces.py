"""Vocabularies that travel inside of weights."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer

from clipseg_model.errors import CheckpointError, PromptError

_MOST_BYTES = 1 << 22
"""More than any vocabulary has: a damaged one may unpack to gigabytes."""

_MOST_PIECES = 1 << 18
"""Likewise."""


def unpack_tokenizer(packed: bytes, size: int) -> BertWordPieceTokenizer:
    """Make the tokenizer of a vocabulary: zlib-compressed UTF-8, one word piece a line.

    Args:
        packed: The vocabulary.
        size: How many pieces it has.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, _MOST_BYTES)
        if unpacking.unconsumed_tail or not unpacking.eof:
            raise ValueError(f'cut off, or longer than {_MOST_BYTES} bytes')
        count = text.count(b'\n') + 1
        if count != size or count > _MOST_PIECES:
            raise ValueError(f'{count} pieces for {size} vectors, of {_MOST_PIECES} at most')
        pieces = text.decode().split('\n')
        if '[UNK]' not in pieces:
            raise ValueError('there is no [UNK]')
        return BertWordPieceTokenizer(
            {piece: index for index, piece in enumerate(pieces)}, lowercase=True
        )
    except (zlib.error, ValueError, TypeError) as error:  # TypeError: it lacks a special piece.
        raise CheckpointError(
            f'The vocabulary in the weights is damaged ({error}): get the file anew'
        ) from error


def tokenize(
    tokenizer: BertWordPieceTokenizer, texts: Sequence[str], most: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Split texts into word pieces.

    Args:
        tokenizer: Of :func:`unpack_tokenizer`.
        texts: P texts.
        most: Most pieces of a text.

    Returns:
        Piece ids (P, T), zero-padded to the longest, and a mask (P, T) that is true on pieces.

    Raises:
        PromptError: If no piece of a text is known (another script, say), or there are too many.
    """
    unknown = tokenizer.token_to_id('[UNK]')
    rows: list[list[int]] = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > most:
            raise PromptError(
                f'the prompt {text[:60]!r} has {len(ids)} word pieces, and this model reads '
                f'{most} at most: say it in fewer words'
            )
        if not any(piece != unknown for piece in ids):
            raise PromptError(
                f'no word of the prompt {text[:60]!r} is in the vocabulary of this model, '
                'which knows English only: write the prompt in English, or choose a model '
                'that reads this script'
            )
        rows.append(ids)
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.zeros(mask.shape, np.int64)
    tokens[mask] = np.concatenate(rows)
    return tokens, mask
