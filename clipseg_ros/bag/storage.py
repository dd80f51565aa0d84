"""The two kinds of file that hold the messages of a bag: MCAP, and databases of SQLite.

`rosbags` reads them as well, but leaves out without a word what the index of an MCAP file lacks,
fails at definitions of topics that nobody reads, and takes paths for URIs.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, BytesIO
from pathlib import Path
from struct import iter_unpack, unpack, unpack_from
from typing import Any, BinaryIO, NamedTuple

from clipseg_ros.errors import BagError

MCAP_MAGIC = b'\x89MCAP0\r\n'
SQLITE_MAGIC = b'SQLite format 3\0'

_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0B
_FOOTER_START = b'\x02\x14\0\0\0\0\0\0\0'

_RECOVER = (
    'copy it again, or save what can be read with `mcap recover` (MCAP) or `sqlite3 FILE .recover` '
    '(SQLite)'
)


class Topic(NamedTuple):
    """A topic of one file; ``definition`` is empty where there is none of the kind ros2msg."""

    id: int
    name: str
    kind: str
    serialization: str
    definition: str
    count: int


@contextmanager
def damage(path: Path, remedy: str = _RECOVER) -> Iterator[None]:
    """Raise a BagError that names the file and the remedy for whatever is raised inside."""
    try:
        yield
    except BagError:
        raise
    except OSError as error:
        raise BagError(f'{path} cannot be read: {error}') from error
    except Exception as error:
        # Parsers raise anything at a damaged file: struct.error, KeyError, EOFError and so on.
        reason = f'{type(error).__name__}: {error}'
        raise BagError(f'{path} cannot be read, it is damaged ({reason}): {remedy}') from error


@dataclass(frozen=True)
class McapFile:
    """An open MCAP file, read from its beginning to its end: an index may lack what is there."""

    path: Path
    file: BinaryIO

    def topics(self) -> list[Topic]:
        """Return the topics. The counts are the summary's; without a complete one, all is read.

        Raises:
            BagError: The file is cut off or damaged.
        """
        with damage(self.path):
            self.file.seek(-min(37, self.file.seek(0, SEEK_END)), SEEK_END)
            tail = self.file.read()
            if not (tail.startswith(_FOOTER_START) and tail.endswith(MCAP_MAGIC)):
                raise BagError(
                    f'{self.path} has no end, so its recording or copying was interrupted: copy it '
                    'again, or save what is there with `mcap recover`'
                )
            (summary,) = unpack_from('<Q', tail, len(_FOOTER_START))
            found = self._topics(summary) if summary else None
            return self._topics(len(MCAP_MAGIC)) or [] if found is None else found

    def messages(self, ids: Collection[int]) -> Iterator[tuple[int, Any, Any]]:
        """Yield id, time of recording (ns) and data of the messages of some topics.

        Raises:
            BagError: The file is damaged.
        """
        with damage(self.path):
            self.file.seek(len(MCAP_MAGIC))
            for _, record in _records(self.file, {_MESSAGE}):
                channel, _, time = unpack_from('<HIQ', record)
                if channel in ids:
                    yield channel, time, record[22:]

    def _topics(self, start: int) -> list[Topic] | None:
        """Return what stands from a position on; None if a summary there is not complete."""
        from rosbags.rosbag2.storage_mcap import read_bytes, read_string

        schemas = {0: ('', '')}
        channels: dict[int, tuple[int, str, str]] = {}
        counts: Counter[int] = Counter()
        total, channel_count, said = 0, -1, {}
        self.file.seek(start)
        for opcode, record in _records(self.file, {_SCHEMA, _CHANNEL, _MESSAGE, _STATISTICS}):
            stream = BytesIO(record)
            if opcode == _SCHEMA:
                (key,) = unpack('<H', stream.read(2))
                # Those of other encodings than ROS's are not text.
                name, encoding, text = (read_bytes(stream).decode(errors='replace') for _ in '123')
                schemas[key] = name, text if encoding == 'ros2msg' else ''
            elif opcode == _CHANNEL:
                key, schema = unpack('<HH', stream.read(4))
                channels[key] = schema, read_string(stream), read_string(stream)
            elif opcode == _STATISTICS:
                total, _, channel_count = unpack_from('<QHI', record)
                said = dict(iter_unpack('<HQ', record[46:]))
            else:
                counts[unpack_from('<H', record)[0]] += 1
        known = all(schema in schemas for schema, _, _ in channels.values())
        complete = known and channel_count == len(channels) and bool(said or not total)
        if start != len(MCAP_MAGIC) and not complete:
            return None
        return [
            Topic(key, topic, kind, serialization, definition, max(counts[key], said.get(key, 0)))
            for key, (schema, topic, serialization) in channels.items()
            for kind, definition in [schemas.get(schema, schemas[0])]
        ]


def _records(stream: BinaryIO, wanted: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and content of the records from here on, those in chunks too."""
    from rosbags.rosbag2.storage_mcap import decompress, read_bytes, read_exact

    while opcode := stream.read(1):
        (size,) = unpack('<Q', read_exact(stream, 8))
        if opcode[0] == _CHUNK:
            chunk = BytesIO(read_exact(stream, size))
            _, _, unpacked, crc = unpack('<QQQI', chunk.read(28))
            compression = read_bytes(chunk).decode()
            (packed,) = unpack('<Q', chunk.read(8))
            content = decompress(read_exact(chunk, packed), compression, unpacked, crc)
            yield from _records(BytesIO(content), wanted)
        elif opcode[0] in wanted:
            yield opcode[0], read_exact(stream, size)
        elif opcode[0] == _FOOTER:
            return
        else:
            stream.seek(size, SEEK_CUR)


@dataclass(frozen=True)
class SqliteFile:
    """An open database."""

    path: Path
    database: sqlite3.Connection

    def topics(self) -> list[Topic]:
        """Return the topics, with the numbers of their messages.

        Raises:
            BagError: The file is damaged, or is no bag.
        """
        with damage(self.path):
            # Names that are not UTF-8 are told from others all the same.
            self.database.text_factory = lambda text: text.decode(errors='replace')
            tables = {name for (name,) in self.database.execute('SELECT name FROM sqlite_master')}
            if not {'topics', 'messages'} <= tables:
                raise BagError(
                    f'{self.path} cannot be read as a ROS 2 bag: the database lacks the tables '
                    'topics and messages'
                )
            definitions = {}
            if 'message_definitions' in tables:
                query = (
                    'SELECT topic_type, encoded_message_definition FROM message_definitions '
                    "WHERE encoding = 'ros2msg'"
                )
                definitions = dict(self.database.execute(query))
            query = (
                'SELECT topics.id, name, type, serialization_format, count(messages.id) '
                'FROM topics LEFT JOIN messages ON topics.id = messages.topic_id GROUP BY topics.id'
            )
            return [
                Topic(key, str(name), kind, serialization, definitions.get(kind) or '', count)
                for key, name, kind, serialization, count in self.database.execute(query)
            ]

    def messages(self, ids: Collection[int]) -> Iterator[tuple[int, Any, Any]]:
        """Yield id, time of recording (ns) and data of the messages of some topics, by time.

        Raises:
            BagError: The file is damaged.
        """
        with damage(self.path):
            yield from self.database.execute(
                'SELECT topic_id, timestamp, data FROM messages '
                f'WHERE topic_id IN ({",".join("?" * len(ids))}) ORDER BY timestamp',
                list(ids),
            )
