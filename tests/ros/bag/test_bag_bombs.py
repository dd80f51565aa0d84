"""Bags that are small and would fill memory or disk, wait for ever, or run programs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import sys
from collections import namedtuple
from pathlib import Path

import lz4.frame
import pytest
from bags import file_of, images, mcap_records, record, segment, text, write_mcap
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.rosbag2.reader import zstd

from clipseg_ros.bag import storage
from clipseg_ros.bag.reading import open_camera
from clipseg_ros.errors import BagError
from tests.fuzz.mutations import guarded

MEGABYTE = 1 << 20
PACK = {'zstd': zstd.compress, 'lz4': lz4.frame.compress, '': bytes}


def chunk(content: bytes, kind: str) -> tuple[int, bytes]:
    """A chunk of MCAP."""
    return packed_chunk(kind, PACK[kind](content), len(content))


def packed_chunk(kind: str, packed: bytes, stated: int) -> tuple[int, bytes]:
    head = struct.pack('<QQQI', 0, 0, stated, 0) + text(kind)
    return 0x06, head + struct.pack('<Q', len(packed)) + packed


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return record(tmp_path / 'in', images(1))


def with_chunk(bag: Path, made: tuple[int, bytes]) -> Path:
    """Puts a chunk before the end of the data; without a summary, all of it is read."""
    records = mcap_records(file_of(bag))
    end = [opcode for opcode, _ in records].index(0x0F)
    write_mcap(file_of(bag), [*records[:end], made, records[end], records[-1]])
    return bag


def refused(source: Path, words: str, seconds: float = 10) -> None:
    with guarded(seconds, 300 * MEGABYTE), pytest.raises(BagError, match=words):
        read(source)


def read(source: Path) -> int:
    """How many images there are."""
    with open_camera(source, None) as camera:
        return len(list(camera.messages()))


@pytest.mark.parametrize('kind', PACK)
def test_chunks_that_are_what_they_say(bag: Path, kind: str) -> None:
    attachment = struct.pack('<BQ', 0x09, 100) + bytes(100)
    assert read(with_chunk(bag, chunk(attachment, kind))) == 1


@pytest.fixture(scope='module', params=['zstd', 'lz4'])
def bomb(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """Half a gigabyte, packed."""
    zeros = struct.pack('<BQ', 0x09, 2**29 - 9) + bytes(2**29 - 9)
    packed = PACK[request.param](zeros)
    assert len(packed) < 5 * MEGABYTE
    return request.param, packed


@pytest.mark.parametrize('size', [100, MEGABYTE, 2**40, 2**64 - 1])
def test_chunks_that_explode(bag: Path, bomb: tuple[str, bytes], size: int) -> None:
    refused(with_chunk(bag, packed_chunk(*bomb, size)), 'a chunk')


def test_chunks_in_chunks(bag: Path) -> None:
    content = b''
    for _ in range(5):
        opcode, inner = chunk(content, 'zstd')
        content = struct.pack('<BQ', opcode, len(inner)) + inner
    refused(with_chunk(bag, chunk(content, 'zstd')), 'chunk in a chunk')


def test_records_that_are_longer_than_the_file(bag: Path) -> None:
    data = file_of(bag).read_bytes()
    at = data.index(b'\x05', 100)
    for size in (2**40, 2**63, 2**64 - 1):
        file_of(bag).write_bytes(data[:8] + struct.pack('<BQ', 0x05, size) + data[8:])
        refused(file_of(bag), 'beyond the end|cannot be read')
    assert at


@pytest.mark.parametrize('storage_plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_messages_that_are_not_packed_have_a_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage_plugin: StoragePlugin
) -> None:
    size = 90 * 120 * 3
    bag = record(tmp_path / 'in', images(1), storage_plugin)
    monkeypatch.setattr(storage, 'MAX_CHUNK', size + 1000)
    assert read(bag) == 1
    monkeypatch.setattr(storage, 'MAX_CHUNK', size)
    words = 'a record has .* more than' if storage_plugin is StoragePlugin.MCAP else 'too big'
    if words != 'too big' or sys.version_info >= (3, 11):  # Before, SQLite is not told.
        refused(bag, words)


def test_files_that_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = record(tmp_path / 'in', images(1), compression=CompressionMode.FILE)
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**6, 10**6, 3 * 10**4))
    refused(bag, 'does not fit into .* TMPDIR')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**7, 0, 10**7))
    assert read(bag) == 1


@pytest.mark.parametrize(
    'text',
    [
        'a: &a [x]\nb: [*a, *a]',
        '[' * 100_000,
        'rosbag2_bagfile_information: {relative_file_paths: [0x' + 'f' * 900_000 + ']}',
        '#' * (storage.MAX_METADATA + 1),
    ],
    ids=['alias', 'deep', 'number', 'long'],
)
def test_metadata(bag: Path, text: str) -> None:
    (bag / 'metadata.yaml').write_text(text)
    refused(bag, r'metadata\.yaml cannot be read')


@pytest.mark.parametrize('name', ['pipe', 'zero'])
def test_what_is_no_file(tmp_path: Path, bag: Path, name: str) -> None:
    file = file_of(bag)
    file.unlink()
    if name == 'pipe':
        os.mkfifo(file)
    else:
        file.symlink_to('/dev/zero')
    for source in (bag, file):
        refused(source, 'no regular file')
    (bag / 'metadata.yaml').unlink()
    os.mkfifo(bag / 'metadata.yaml')
    refused(bag, r'metadata\.yaml cannot be read')


@pytest.mark.parametrize('table', ['topics', 'messages'])
@pytest.mark.parametrize('kind', ['view', 'GENERATED ALWAYS AS', 'AS'])
def test_databases_that_are_programs(tmp_path: Path, table: str, kind: str) -> None:
    bag = record(tmp_path / 'in', images(1), StoragePlugin.SQLITE3)
    with sqlite3.connect(file_of(bag)) as database:
        if kind == 'view':
            database.execute(f'DROP TABLE {table}')
            database.execute(
                f'CREATE VIEW {table} AS WITH RECURSIVE count(id) AS '
                '(SELECT 1 UNION ALL SELECT id + 1 FROM count) SELECT id, id AS topic_id, '
                "1 AS timestamp, x'00' AS data, 'a' AS name, 'b' AS type, 'cdr' AS "
                'serialization_format FROM count'
            )
        else:
            database.execute(f'ALTER TABLE {table} ADD COLUMN more {kind} (zeroblob(99))')
    refused(bag, 'no plain tables')


def test_folders_beside_the_new_bag_stay(tmp_path: Path, bag: Path, tiny_model: Path) -> None:
    kept = [tmp_path / f'out{suffix}' for suffix in ('.part', '.old', '.tmp')]
    for folder in kept:
        (folder / 'mine').mkdir(parents=True)
    assert segment(bag, tmp_path / 'out', tiny_model).exit_code == 0
    assert sorted(tmp_path.iterdir()) == sorted([*kept, bag, tmp_path / 'out'])
    assert all((folder / 'mine').is_dir() for folder in kept)
    for name in ('file', 'link', 'folder'):
        place = tmp_path / name
        if name == 'folder':
            place.mkdir()
        elif name == 'link':
            place.symlink_to(tmp_path / 'nowhere')
        else:
            place.write_text('mine')
        assert segment(bag, place, tiny_model).exit_code == 1
    assert (tmp_path / 'file').read_text() == 'mine'
