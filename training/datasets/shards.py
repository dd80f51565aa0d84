"""Reads WebDataset shards from end to end: tar files in which a sample's members share a name.

``a/0001.jpg``, ``a/0001.mask.png``, ``a/0001.json`` are the members ``jpg``, ``mask.png``, ``json``
of the sample ``a/0001``: the name ends at the first dot after the last slash. They lie side by
side. A shard is a file, or an address (http, https) that is read as it comes.
"""

from __future__ import annotations

import http.client
import io
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, Literal, cast

from training.datasets.samples import DataError

ADDRESSES = ('http://', 'https://')
#: How often a shard on a network is asked for before it is given up, and seconds between.
ATTEMPTS, PAUSE = 4, 1.0
#: Seconds that a network may be silent.
TIMEOUT = 60


class _Whole(io.RawIOBase):
    """An answer of a server, which must be as long as it said: a broken connection is no end."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer
        self._left = None if answer.length is None else int(answer.length)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._answer.read(None if size < 0 else size)
        if self._left is not None:
            self._left -= len(data)
            if self._left and (size < 0 or (size and not data)):
                raise ConnectionError(f'the connection broke, {self._left} bytes before the end')
        return data

    def close(self) -> None:
        self._answer.close()
        super().close()


def open_place(place: str) -> IO[bytes]:
    """Opens a file, or an address.

    Raises:
        OSError: It cannot be opened.
    """
    if place.startswith(ADDRESSES):
        return cast(IO[bytes], _Whole(urllib.request.urlopen(place, timeout=TIMEOUT)))
    return open(place, 'rb')


def read_shard(place: str, skip: int = 0) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yields the samples of a shard in the order in which they lie.

    Args:
        place: File or address of the shard. Where a network fails, it is read again up to the
            place that was reached, a few times.
        skip: Samples to leave out at its beginning; of a file they are not read.

    Yields:
        Name of the sample, and its members by the end of their names.

    Raises:
        DataError: The shard is missing, damaged, or does not come.
    """
    seen = skip
    for attempt in range(1, ATTEMPTS + 1):
        try:
            for sample in _read(place, seen):
                yield sample
                seen += 1
            return
        except tarfile.TarError as error:
            raise DataError(f'{place} is damaged after {seen} samples: {error}') from error
        except (OSError, http.client.HTTPException) as error:
            gone = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
            if gone or attempt == ATTEMPTS or not place.startswith(ADDRESSES):
                raise DataError(f'{place} cannot be read after {seen} samples: {error}') from error
            time.sleep(PAUSE * 2 ** (attempt - 1))


def _read(place: str, skip: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    name, members, count = None, dict[str, bytes](), 0
    # Of an address nothing is known but what came.
    mode: Literal['r|', 'r:'] = 'r|' if place.startswith(ADDRESSES) else 'r:'
    with open_place(place) as file, tarfile.open(fileobj=file, mode=mode) as tar:
        for member in tar:
            if not member.isfile():
                continue
            folder, slash, base = member.name.rpartition('/')
            stem, _, kind = base.partition('.')
            if folder + slash + stem != name:
                if name is not None and count > skip:
                    yield name, members
                name, members = folder + slash + stem, {}
                count += 1
            if count > skip:
                content = tar.extractfile(member)
                assert content is not None
                members[kind] = content.read()
                if len(members[kind]) != member.size:
                    raise tarfile.ReadError(f'{member.name} is cut off')
    if name is not None and count > skip:
        yield name, members
