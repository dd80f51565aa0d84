"""The files that hold the messages of a bag, in MCAP or SQLite.

`rosbags` reads them as well, but leaves out without a word what an index, metadata.yaml or the
journal of a database says otherwise, and fails at topics that nobody reads and at some paths. The
library `mcap` takes a record that is cut off for a whole one.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from binascii import crc32
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from io import SEEK_CUR, SEEK_END, BytesIO
from pathlib import Path, PurePath
from struct import iter_unpack, unpack, unpack_from
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple

from clipseg_model.files.small_files import read_yaml
from clipseg_ros.errors import BagError

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_MCAP_MAGIC, _SQLITE_MAGIC = b'\x89MCAP0\r\n', b'SQLite format 3\0'
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0B
_SUFFIXES = ('.mcap', '.db3', '.mcap.zstd', '.db3.zstd')
MAX_CHUNK = 2**29
"""Largest chunk and largest message that are read, bytes, packed or not; chunks have a few MB."""

MAX_METADATA = 16_000_000
"""Largest metadata.yaml that is read, bytes."""

_BLOCK = 1 << 20
_RECOVER = 'copy it again, or save what can be read: `mcap recover` or `sqlite3 FILE .recover`'


class Topic(NamedTuple):
    """A topic of one file."""

    id: int
    name: str
    kind: str
    serialization: str
    total: int


@contextmanager
def damage(path: Path, remedy: str = _RECOVER) -> Iterator[None]:
    """Raise a BagError with the file and the remedy for whatever is raised inside."""
    try:
        yield
    except Exception as error:
        # Parsers raise anything at a damaged file: struct.error, KeyError, EOFError and so on.
        reason = f'{type(error).__name__}: {error}'
        raise BagError(f'{path} cannot be read ({reason}): {remedy}') from error


class McapFile:
    """An open MCAP file. It is read to its end, because an index may lack what is there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, SEEK_END)
        file.seek(-min(37, file.seek(0, SEEK_END)), SEEK_END)
        tail = file.read()
        if tail[:9] != b'\x02\x14\0\0\0\0\0\0\0' or tail[-8:] != _MCAP_MAGIC:
            raise EOFError('the end is missing, recording or copying was interrupted')
        (summary,) = unpack_from('<Q', tail, 9)
        self.topics = (summary and self._topics(summary)) or self._topics(len(_MCAP_MAGIC))

    def messages(self, ids: Collection[int]) -> Iterator[tuple[int, Any, Any]]:
        """Yield topic, time of recording (ns) and data of the messages of some topics."""
        self._file.seek(len(_MCAP_MAGIC))
        for opcode, record in _records(self._file, self._size):
            if opcode == _MESSAGE and (channel := unpack_from('<H', record)[0]) in ids:
                yield channel, unpack_from('<Q', record, 6)[0], record[22:]

    def _topics(self, start: int) -> list[Topic]:
        """Return what stands from a position on; nothing if that is an incomplete summary."""
        from rosbags.rosbag2.storage_mcap import read_string

        kinds, channels, counts = {0: ''}, {}, Counter[int]()
        complete = start == len(_MCAP_MAGIC)
        self._file.seek(start)
        for opcode, record in _records(self._file, self._size):
            stream = BytesIO(record)
            if opcode == _SCHEMA:
                (key,) = unpack('<H', stream.read(2))
                kinds[key] = read_string(stream)
            elif opcode == _CHANNEL:
                key, schema = unpack('<HH', stream.read(4))
                channels[key] = schema, read_string(stream), read_string(stream)
            elif opcode == _MESSAGE:
                counts[unpack_from('<H', record)[0]] += 1
            else:
                _, schemas, number = unpack_from('<QHI', record)
                # Where more messages were read than are said to be there, that counts.
                counts |= Counter(dict(iter_unpack('<HQ', record[46:])))
                complete |= bool(counts) and (schemas, number) == (len(kinds) - 1, len(channels))
        return [
            Topic(key, topic, kinds.get(schema, ''), serialization, counts[key])
            for key, (schema, topic, serialization) in channels.items()
            if complete
        ]


def _records(stream: BinaryIO, total: int, inside: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and content of the records that matter here, those in chunks too.

    ``total`` is the size of the stream, which is the content of a chunk if ``inside``.
    """
    from rosbags.rosbag2.storage_mcap import read_exact, read_string

    while (first := stream.read(1)) > b'\0' and first[0] != _FOOTER:
        opcode, (size,) = first[0], unpack('<Q', read_exact(stream, 8))
        known = opcode in (_SCHEMA, _CHANNEL, _MESSAGE, _STATISTICS, _CHUNK)
        # A chunk that ends in another record has all its messages before that.
        if size > total - stream.tell() and (known or not inside):
            raise EOFError(f'a record of {size} bytes goes beyond the end')
        if known and size > MAX_CHUNK:
            raise ValueError(f'a record has {size} bytes, more than {MAX_CHUNK}')
        if opcode == _CHUNK and inside:
            raise ValueError('there is a chunk in a chunk')
        if opcode == _CHUNK:
            chunk = BytesIO(read_exact(stream, size))
            _, _, unpacked, crc = unpack('<QQQI', chunk.read(28))
            if unpacked > MAX_CHUNK:
                raise ValueError(f'a chunk would have {unpacked} bytes, more than {MAX_CHUNK}')
            compression, (packed,) = read_string(chunk), unpack('<Q', chunk.read(8))
            content = _decompress(read_exact(chunk, packed), compression, unpacked)
            if crc and crc32(content) != crc:
                raise ValueError('the checksum of a chunk is wrong')
            yield from _records(BytesIO(content), len(content), inside=True)
        elif known:
            yield opcode, read_exact(stream, size)
        else:
            stream.seek(size, SEEK_CUR)
    # A file ends with its footer, of which 36 bytes are left, and a chunk without one.
    if first == b'\0' or len(stream.read(37)) != (0 if inside else 36):
        raise ValueError(f'no record begins at offset {stream.tell()}')


def _decompress(packed: bytes, compression: str, size: int) -> bytes:
    """Return the content of a chunk, which says its size; no more than that is unpacked."""
    import lz4.frame

    # It chooses between the module of Python and its backport.
    from rosbags.rosbag2.reader import zstd

    kinds: dict[str, Any] = {'zstd': zstd.ZstdDecompressor, 'lz4': lz4.frame.LZ4FrameDecompressor}
    if not compression:
        content = packed
    elif compression not in kinds:
        raise ValueError(f'chunks are compressed as {compression[:20]!r}, which is not known')
    else:
        # One more than it says, so that more is noticed.
        content = kinds[compression]().decompress(packed, max_length=size + 1)
    if len(content) != size:
        raise ValueError(f'a chunk of {size} bytes has others')
    return content


class SqliteFile:
    """An open database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        # Of other kinds, each row may be a program that never ends.
        tables = database.execute(
            "SELECT count(*) FROM sqlite_master WHERE name IN ('topics', 'messages') AND "
            "type = 'table' AND sql LIKE 'CREATE TABLE%'"
        )
        if tables.fetchone() != (2,) or self._computes('topics') or self._computes('messages'):
            raise ValueError('it has no plain tables of topics and messages')
        database.text_factory = lambda text: text.decode(errors='replace')
        rows = database.execute(
            'SELECT topics.id, name, type, serialization_format, count(messages.id) '
            'FROM topics LEFT JOIN messages ON topics.id = messages.topic_id GROUP BY topics.id'
        )
        self.topics = [Topic(key, str(name), *others) for key, name, *others in rows]

    def _computes(self, table: str) -> bool:
        """Return whether a table computes columns: a row of some bytes may become megabytes."""
        columns = self._database.execute(f'PRAGMA table_xinfo({table})')
        return any(hidden for *_, hidden in columns)

    def messages(self, ids: Collection[int]) -> Iterator[tuple[int, Any, Any]]:
        """Yield topic, time of recording (ns) and data of the messages of some topics, by time."""
        yield from self._database.execute(
            'SELECT topic_id, timestamp, data FROM messages '
            f'WHERE topic_id IN ({",".join("?" * len(ids))}) ORDER BY timestamp',
            list(ids),
        )


BagFile = McapFile | SqliteFile


def bag_files(path: Path) -> tuple[list[Path], Counter[str]]:
    """Return the files of a bag, and how many messages its metadata.yaml counts of each topic.

    Raises:
        BagError: metadata.yaml is missing or damaged, or does not name the files beside it.
    """
    if not path.is_dir():
        return [path], Counter()
    metadata, counts = path / 'metadata.yaml', Counter[str]()
    remedy = 'write it anew with `ros2 bag reindex`, or give one of the .mcap or .db3 files'
    with damage(metadata, remedy):
        present = {one.name for one in path.iterdir() if one.name.endswith(_SUFFIXES)}
        about = read_yaml(metadata, MAX_METADATA)['rosbag2_bagfile_information']
        # Before version 4 of the format, names had the folder before them.
        listed = {PurePath(name).name for name in about['relative_file_paths'] or ()}
        for topic in about['topics_with_message_count'] or ():
            counts[topic['topic_metadata']['name']] += int(topic['message_count'])
    if listed != present or not listed:
        missing, others = listed - present or 'none', present - listed or 'none'
        raise BagError(
            f'{metadata} names other files than lie there (missing are {missing}, not named are '
            f'{others}): move files, or {remedy}'
        )
    return [path / name for name in sorted(listed)], counts


def open_file(path: Path, stack: ExitStack) -> BagFile:
    """Open a file of a bag, maybe compressed; raises a BagError if it is none, or damaged."""
    # It chooses between the module of Python and its backport.
    from rosbags.rosbag2.reader import zstd

    if not path.is_file():
        raise BagError(
            f'{path} is no regular file, but a pipe or a device: copy it to a file first'
        )
    with damage(path):
        source, file = path, stack.enter_context(path.open('rb'))
        start = file.read(16)
        if start.startswith(ZSTD_MAGIC):
            source = Path(stack.enter_context(TemporaryDirectory()), 'unpacked')
            with zstd.open(path, 'rb') as packed, source.open('wb') as unpacked:
                _unpack(packed, unpacked, source.parent)
            file = stack.enter_context(source.open('rb'))
            start = file.read(16)
        if start.startswith(_MCAP_MAGIC):
            return McapFile(file)
        if start == _SQLITE_MAGIC:
            return SqliteFile(_connect(source, stack))
    if path.suffix == '.bag' or start.startswith(b'#ROSBAG V'):
        raise BagError(
            f'{path} is a bag of ROS 1: convert it first, `rosbags-convert --src {path}`'
        )
    raise BagError(
        f'{path} cannot be read as a ROS 2 bag (a folder with metadata.yaml, or an .mcap or .db3 '
        f'file, also compressed with zstd): it begins with {start!r}'
    )


def _unpack(packed: Any, unpacked: BinaryIO, folder: Path) -> None:
    """Copy, as long as a tenth of the disk's room is left."""
    room = shutil.disk_usage(folder).free * 9 // 10
    while block := packed.read(_BLOCK):
        room -= len(block)
        if room < 0:
            raise OSError(
                f'unpacked it does not fit into {folder.parent}: let TMPDIR name a folder with '
                'more room'
            )
        unpacked.write(block)


def _connect(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """Open a database, or a copy: for a journal goes into it, and paths end at 512 bytes."""
    journals = [path.with_name(path.name + suffix) for suffix in ('-wal', '-journal')]
    journals = [one for one in journals if one.exists() and one.stat().st_size]
    if journals or len(bytes(path.absolute())) > 500:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        path, *_ = [Path(shutil.copyfile(one, folder / one.name)) for one in (path, *journals)]
    mode = '' if journals else '?immutable=1'
    database = sqlite3.connect(f'{path.absolute().as_uri()}{mode}', uri=True)
    stack.callback(database.close)
    if sys.version_info >= (3, 11):  # Before, SQLite's own limit of 1 GB holds.
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CHUNK)
    return database
