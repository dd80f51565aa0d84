"""Vocabularies that travel inside of weights."""

from __future__ import annotations

import zlib

from tokenizers import BertWordPieceTokenizer

from clipseg_model.errors import CheckpointError

_MOST_BYTES = 1 << 24
"""More than any vocabulary has: a damaged one may unpack to gigabytes."""


def unpack_tokenizer(packed: bytes, size: int) -> BertWordPieceTokenizer:
    """Make the tokenizer of a vocabulary: zlib-compressed UTF-8, one word piece a line.

    Args:
        packed: The vocabulary.
        size: How many pieces it has.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        pieces = zlib.decompressobj().decompress(packed, _MOST_BYTES).decode().split('\n')
        if '[UNK]' not in pieces or len(pieces) != size:
            raise ValueError(f'{len(pieces)} pieces for {size} vectors')
    except (zlib.error, ValueError) as error:
        raise CheckpointError(
            f'The vocabulary in the weights is damaged ({error}): get the file anew'
        ) from error
    return BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(pieces)}, lowercase=True
    )
