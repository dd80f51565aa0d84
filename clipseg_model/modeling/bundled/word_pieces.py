"""Vocabularies that travel inside of weights."""

from __future__ import annotations

import zlib

from tokenizers import BertWordPieceTokenizer

from clipseg_model.errors import CheckpointError

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
