"""The start that an MP4 file holds and does not show, as trimming without re-encoding leaves it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def hidden_seconds(path: Path) -> float:
    """Return how much of the video at its start the edit list hides; 0 in other files.

    ISO/IEC 14496-12: ``elst`` counts in the time scale of ``mdhd``, from the first composition time
    (``ctts``) on.
    """
    with path.open('rb') as file, suppress(struct.error, IndexError):
        while header := file.read(8):
            size, kind = struct.unpack('>I4s', header)
            head = 8
            if size == 1:
                (size,), head = struct.unpack('>Q', file.read(8)), 16
            if size < head:
                break
            if kind == b'moov':
                tracks = _boxes(file.read(min(size, 1 << 28) - head), b'trak')
                return max(map(_hidden, tracks), default=0.0)
            file.seek(size - head, 1)
    return 0.0


def _boxes(data: bytes, *kinds: bytes) -> Iterator[bytes]:
    """Yield the content of the boxes at the end of a path of kinds."""
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from('>I4s', data, place)
        if size < 8:
            return
        if kind == kinds[0]:
            content = data[place + 8 : place + size]
            yield from _boxes(content, *kinds[1:]) if len(kinds) > 1 else [content]
        place += size


def _hidden(track: bytes) -> float:
    if not any(box[8:12] == b'vide' for box in _boxes(track, b'mdia', b'hdlr')):
        return 0.0
    header = next(_boxes(track, b'mdia', b'mdhd'), b'')
    (scale,) = struct.unpack_from('>I', header, 20 if header[0] else 12)
    offsets = (b'mdia', b'minf', b'stbl', b'ctts')
    first = [struct.unpack_from('>i', box, 12)[0] for box in _boxes(track, *offsets)]
    starts = [
        struct.unpack_from('>q', box, 16)[0] if box[0] else struct.unpack_from('>i', box, 12)[0]
        for box in _boxes(track, b'edts', b'elst')
    ]
    return max(0, sum(starts[:1]) - sum(first[:1])) / max(scale, 1)
