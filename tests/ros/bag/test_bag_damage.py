"""Files that are damaged or of another kind are refused in words; what is not read may be so."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from bags import (
    change_metadata,
    file_of,
    images,
    mcap_records,
    record,
    segment,
    stamps,
    text,
    write_mcap,
)
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from std_msgs.msg import String

STORAGES = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]


def schema(key: int, name: str, encoding: str, data: bytes) -> tuple[int, bytes]:
    return 0x03, struct.pack('<H', key) + text(name) + text(encoding) + text(data)


def channel(key: int, kind: int, topic: str, encoding: str, qos: str) -> tuple[int, bytes]:
    metadata = text(text('offered_qos_profiles') + text(qos))
    return 0x04, struct.pack('<HH', key, kind) + text(topic) + text(encoding) + metadata


OTHERS = [
    ('other_msgs/msg/Cloud', 'protobuf', b'\n\xff\xfe\x00binary'),
    ('pkg/Thing', 'jsonschema', b'{}'),
    ('pkg/msg/Broken', 'ros2msg', b'int32[ this is no definition'),
    ('pkg/msg/Needs', 'ros2msg', b'pkg/msg/Missing thing'),
    ('pkg/msg/Idl', 'ros2idl', b'module {'),
    ('no name at all', '', b''),
    ('', 'unknown', b'\xff'),
]


@pytest.mark.parametrize('other', OTHERS)
def test_topics_that_are_not_read_do_not_matter(
    tmp_path: Path, tiny_model: Path, other: tuple[str, str, bytes]
) -> None:
    bag = record(tmp_path / 'in', images(2))
    extra = [schema(77, *other), channel(55, 77, '/other', 'protobuf', '- {deadline: soon')]
    head, *rest = mcap_records(file_of(bag))
    statistics = next(number for number, one in enumerate(rest) if one[0] == 0x0B)
    for records in ([head, *extra, *rest], [head, *rest[:statistics], *extra, *rest[statistics:]]):
        write_mcap(file_of(bag), records)
        result = segment(file_of(bag), tmp_path / 'out', tiny_model)
        assert result.exit_code == 0, result.output
        assert stamps(tmp_path / 'out') == [100, 101]
        shutil.rmtree(tmp_path / 'out')
    bag = record(tmp_path / 'sql', [*images(2), ('/note', String(data='x'))], StoragePlugin.SQLITE3)
    name, encoding, data = other
    with sqlite3.connect(file_of(bag)) as database:
        database.execute(
            'UPDATE topics SET type = ?, offered_qos_profiles = "- {no: [", '
            'serialization_format = "protobuf" WHERE name = "/note"', [name]
        )  # fmt: skip
        database.execute(
            'UPDATE message_definitions SET topic_type = ?, encoding = ?, '
            'encoded_message_definition = ? WHERE topic_type = "std_msgs/msg/String"',
            [name, encoding, data],
        )
    database.close()
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 0, result.output
    assert stamps(tmp_path / 'out') == [100, 101]


def no_definition(path: Path, encoding: str, data: bytes) -> None:
    if path.suffix == '.mcap':
        flat = []
        for opcode, content in mcap_records(path):
            if opcode == 0x06:
                content = content.replace(text('ros2msg'), text(encoding)[:11].ljust(11, b'x'))
            elif opcode == 0x03:
                key = struct.unpack_from('<H', content)[0]
                opcode, content = schema(key, 'sensor_msgs/msg/Image', encoding, data)
            flat.append((opcode, content))
        write_mcap(path, flat)
    else:
        with sqlite3.connect(path) as database:
            database.execute('UPDATE message_definitions SET encoding = ?, '
                             'encoded_message_definition = ?', [encoding, data])  # fmt: skip
            if not data:
                database.execute('DELETE FROM message_definitions')
        database.close()


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize(
    'definition', [('unknown', b''), ('ros2idl', b'module {'), ('ros2msg', b'\xff\xff')]
)
def test_definitions_of_images_may_be_missing(
    tmp_path: Path, tiny_model: Path, storage: StoragePlugin, definition: tuple[str, bytes]
) -> None:
    bag = record(tmp_path / 'in', images(2), storage)
    no_definition(file_of(bag), *definition)
    for source, out in ((bag, 'a'), (file_of(bag), 'b')):
        result = segment(source, tmp_path / out, tiny_model)
        assert result.exit_code == 0, result.output
        assert stamps(tmp_path / out) == [100, 101]


def old_database(path: Path) -> None:
    """The tables of Foxy: without QoS, hashes and definitions."""
    with sqlite3.connect(path) as database:
        for table in ('schema', 'metadata', 'message_definitions'):
            database.execute(f'DROP TABLE {table}')
        for column in ('offered_qos_profiles', 'type_description_hash'):
            database.execute(f'ALTER TABLE topics DROP COLUMN {column}')
    database.close()


def test_databases_of_old_recorders(tmp_path: Path, tiny_model: Path) -> None:
    bag = record(tmp_path / 'in', images(2), StoragePlugin.SQLITE3)
    old_database(file_of(bag))
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 0, result.output
    assert stamps(tmp_path / 'out') == [100, 101]


def cut(length: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:length]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def holed(data: bytes) -> bytes:
    return data[: len(data) // 3] + bytes(len(data) // 3) + data[-(len(data) // 3) :]


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('compression', [CompressionMode.NONE, CompressionMode.FILE])
@pytest.mark.parametrize(
    'damage', [cut(0), cut(5), cut(20), cut(1000), cut(-1), cut(-40), half, holed]
)
def test_damaged_files_are_refused(
    tmp_path: Path, tiny_model: Path, storage: StoragePlugin, compression: CompressionMode,
    damage: Callable[[bytes], bytes],
) -> None:  # fmt: skip
    bag = record(tmp_path / 'in', images(), storage, compression)
    file = file_of(bag)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    for source in (bag, file):
        result = segment(source, tmp_path / 'out', tiny_model)
        assert result.exit_code == 1, result.output
        said = ' '.join(result.stderr.split())
        assert f'{file} cannot be read' in said
        assert 'recover' in said or 'it begins with' in said
        assert [path.name for path in tmp_path.iterdir()] == ['in']


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda bag: (bag / 'metadata.yaml').write_text('{no: [yaml'), 'ros2 bag reindex'),
    (lambda bag: (bag / 'metadata.yaml').write_bytes(b'\xff\xfe\x00'), 'ros2 bag reindex'),
    (lambda bag: (bag / 'metadata.yaml').write_text(''), 'ros2 bag reindex'),
    (lambda bag: (bag / 'metadata.yaml').write_text('rosbag2_bagfile_information: {}'),
     "KeyError: 'relative_file_paths'"),
    (lambda bag: (bag / 'metadata.yaml').unlink(), 'ros2 bag reindex'),
    (lambda bag: change_metadata(bag, lambda about: about.update(relative_file_paths=[])),
     'not named are'),
    (lambda bag: file_of(bag).unlink(), 'missing are'),
    (lambda bag: file_of(bag).write_bytes(b'#ROSBAG V2.0\n' + bytes(50)), 'rosbags-convert'),
    (lambda bag: file_of(bag).write_bytes(b'\x1f\x8b' + bytes(50)), 'compressed with zstd'),
]  # fmt: skip


@pytest.mark.parametrize(('wreck', 'words'), BROKEN)
def test_folders_that_are_no_bags(
    tmp_path: Path, tiny_model: Path, wreck: Callable[[Path], object], words: str
) -> None:
    bag = record(tmp_path / 'in', images(1))
    wreck(bag)
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 1
    assert words in ' '.join(result.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_other_databases_and_serializations(tmp_path: Path, tiny_model: Path) -> None:
    other = tmp_path / 'other.db3'
    with sqlite3.connect(other) as database:
        database.execute('CREATE TABLE topics (id INTEGER)')
    database.close()
    refused = segment(other, tmp_path / 'out', tiny_model).stderr
    assert 'no plain tables of topics and messages' in ' '.join(refused.split())
    bag = record(tmp_path / 'in', images(1), StoragePlugin.SQLITE3)
    with sqlite3.connect(file_of(bag)) as database:
        database.execute('UPDATE topics SET serialization_format = "wrong_format"')
    database.close()
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 1
    assert "serialized as {'wrong_format'}" in result.stderr


@pytest.mark.parametrize(
    'inserted', [(0, b''), (0, bytes(30)), (0x02, bytes(20)), (0x90, None)], ids=str
)
@pytest.mark.parametrize('inside', [False, True])
def test_mcap_files_without_summary_end_nowhere_else(
    tmp_path: Path, tiny_model: Path, inserted: tuple[int, bytes | None], inside: bool
) -> None:
    """Nothing but their messages says how many there are: a hole may not end them."""
    bag = record(tmp_path / 'in', images(2))
    opcode, content = inserted
    # The size of a record of no interest leads beyond the end, if it has no content.
    extra = struct.pack('<BQ', opcode, 10**6 if content is None else len(content)) + (
        content or b''
    )
    head, *rest = mcap_records(file_of(bag))
    end = [kind for kind, _ in rest].index(0x0F)
    (number,) = (number for number, one in enumerate(rest) if one[0] == 0x06)
    if inside:
        _, chunk = rest[number]
        inner = chunk[40:] + extra
        sizes = struct.pack('<QIIQ', len(inner), 0, 0, len(inner))
        rest[number] = 0x06, chunk[:16] + sizes + inner
    write_mcap(file_of(bag), [head, *rest[: end + 1], rest[-1]])
    if not inside:
        data = file_of(bag).read_bytes()
        start = 8 + 9 + len(head[1])
        file_of(bag).write_bytes(data[:start] + extra + data[start:])
    result = segment(file_of(bag), tmp_path / 'out', tiny_model)
    if content is None and inside:
        # A chunk that ends in another record has all its messages before that.
        assert (result.exit_code, stamps(tmp_path / 'out')) == (0, [100, 101])
    else:
        assert result.exit_code == 1
        assert 'cannot be read' in result.stderr
        assert not (tmp_path / 'out').exists()
