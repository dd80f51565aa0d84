"""What a bag holds is segmented; what is missing is said, and the exit status is then 1."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
from bags import (
    change_metadata,
    clipseg,
    file_of,
    images,
    mcap_records,
    read,
    record,
    segment,
    stamped,
    stamps,
    text,
    write_mcap,
)
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.rosbag2.reader import zstd
from std_msgs.msg import String

STORAGES = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]
CHUNK, INDEX, CHUNK_INDEX, STATISTICS, CHANNEL, DATA_END, FOOTER = (
    0x06, 0x07, 0x08, 0x0B, 0x04, 0x0F, 0x02
)  # fmt: skip


def complete(bag: Path, out: Path, model: Path, count: int = 3) -> None:
    result = segment(bag, out, model)
    assert result.exit_code == 0, result.output
    assert stamps(out) == [100 + number for number in range(count)]


def of_image(about: dict[str, Any], name: str = '/image') -> dict[str, Any]:
    (topic,) = (one for one in about['topics_with_message_count']
                if one['topic_metadata']['name'] == name)  # fmt: skip
    return topic


QOS = '- {history: 1, depth: 7, reliability: 2}'
CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda about: of_image(about)['topic_metadata'].update(offered_qos_profiles=QOS),
    lambda about: of_image(about)['topic_metadata'].update(offered_qos_profiles='{no: [qos'),
    lambda about: of_image(about)['topic_metadata'].pop('offered_qos_profiles'),
    lambda about: of_image(about)['topic_metadata'].update(type_description_hash='RIHS01_ab'),
    lambda about: of_image(about)['topic_metadata'].update(type='other_msgs/msg/Image'),
    lambda about: of_image(about).update(message_count=0),
    lambda about: about.update(topics_with_message_count=None),
    lambda about: about.update(version=99, storage_identifier='other', message_count=1),
    lambda about: about.update(relative_file_paths=[f'in/{about["relative_file_paths"][0]}']),
]


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('change', CHANGES)
def test_what_metadata_says_otherwise_loses_nothing(
    tmp_path: Path, tiny_model: Path, storage: StoragePlugin,
    change: Callable[[dict[str, Any]], object],
) -> None:  # fmt: skip
    bag = record(tmp_path / 'in', [*images(), ('/note', String(data='x'))], storage)
    change_metadata(bag, change)
    complete(bag, tmp_path / 'out', tiny_model)


@pytest.mark.parametrize('storage', STORAGES)
def test_images_that_metadata_counts_and_files_lack(
    tmp_path: Path, tiny_model: Path, storage: StoragePlugin
) -> None:
    bag = record(tmp_path / 'in', images(), storage)
    change_metadata(bag, lambda about: of_image(about).update(message_count=7))
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 1
    assert '7 messages are counted, 3 are there' in result.stderr
    assert '4 of 7 images left out' in result.stderr
    assert stamps(tmp_path / 'out') == [100, 101, 102]


@pytest.mark.parametrize('storage', STORAGES)
def test_several_files(tmp_path: Path, tiny_model: Path, storage: StoragePlugin) -> None:
    bag = record(tmp_path / 'in', images(2), storage)
    suffix = file_of(bag).suffix
    file_of(bag).rename(bag / f'b{suffix}')
    other = record(tmp_path / 'other', [('/image', stamped(2))], storage)
    names = [f'b{suffix}', f'a{suffix}']
    change_metadata(bag, lambda about: about.update(relative_file_paths=names))
    words = ('metadata.yaml', f"missing are {{'a{suffix}'}}", 'ros2 bag reindex')
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 1
    assert all(word in result.stderr for word in words)
    shutil.copy(file_of(other), bag / names[1])
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 0, result.output
    # By the time of recording: that of the other one is that of the first.
    assert stamps(tmp_path / 'out') in ([100, 102, 101], [102, 100, 101])
    change_metadata(bag, lambda about: about.update(relative_file_paths=names[:1]))
    result = segment(bag, tmp_path / 'no', tiny_model)
    assert result.exit_code == 1
    assert f"not named are {{'a{suffix}'}}" in result.stderr
    assert not (tmp_path / 'no').exists()


@pytest.mark.parametrize('mode', ['WAL', 'DELETE'])
def test_unfinished_journals(tmp_path: Path, tiny_model: Path, mode: str) -> None:
    """What was committed is read; what lies on the disk stays as it is."""
    bag = record(tmp_path / 'in', images(2), StoragePlugin.SQLITE3)
    crashed = tmp_path / 'crashed #1'
    crashed.mkdir()
    data = serialize_message(stamped(2))
    database = sqlite3.connect(file_of(bag), isolation_level=None)
    database.execute(f'PRAGMA journal_mode={mode}')
    database.execute('PRAGMA wal_autocheckpoint=0')
    database.execute('PRAGMA cache_size=1')
    database.execute('INSERT INTO messages VALUES (NULL, 1, 200000000, ?)', [data])
    database.execute('BEGIN')
    for time in range(5):
        database.execute('UPDATE messages SET data = ?', [bytes(100_000)])
        database.execute('INSERT INTO messages VALUES (NULL, 1, ?, ?)', [time, data])
    for path in bag.iterdir():
        if not path.name.endswith('-shm'):
            shutil.copy(path, crashed)
    database.close()
    change_metadata(crashed, lambda about: of_image(about).update(message_count=3))
    journal = crashed / ('in.db3' + {'WAL': '-wal', 'DELETE': '-journal'}[mode])
    assert journal.stat().st_size > 1000
    before = {path.name: path.read_bytes() for path in crashed.iterdir()}
    for source, out in ((crashed, 'a'), (crashed / 'in.db3', 'b')):
        complete(source, tmp_path / out, tiny_model)
    assert {path.name: path.read_bytes() for path in crashed.iterdir()} == before
    if mode == 'WAL':
        journal.write_bytes(b'')
        complete(crashed / 'in.db3', tmp_path / 'c', tiny_model, 2)


Records = list[tuple[int, bytes]]


def without(*opcodes: int) -> Callable[[Records], Records]:
    return lambda records: [one for one in records if one[0] not in opcodes]


def no_summary(records: Records) -> Records:
    end = [opcode for opcode, _ in records].index(DATA_END)
    return [*records[: end + 1], records[-1]]


def no_chunks(records: Records) -> Records:
    """The records of chunks on their own, as the preset fastwrite of ROS writes them."""
    flat = []
    for opcode, content in without(INDEX, CHUNK_INDEX)(records):
        if opcode == CHUNK:
            (length,) = struct.unpack_from('<I', content, 28)
            inner, position = content[32 + length + 8 :], 0
            while position < len(inner):
                kind, size = struct.unpack_from('<BQ', inner, position)
                flat.append((kind, inner[position + 9 : position + 9 + size]))
                position += 9 + size
        else:
            flat.append((opcode, content))
    return flat


def lz4_chunks(records: Records) -> Records:
    packed = []
    for opcode, content in records:
        if opcode == CHUNK:
            start, end, size, _, length = struct.unpack_from('<QQQII', content)
            inner = content[32 + length + 8 :]
            assert len(inner) == size
            data = lz4.frame.compress(inner)
            content = struct.pack('<QQQI', start, end, size, zlib.crc32(inner)) + text('lz4')
            content += struct.pack('<Q', len(data)) + data
        packed.append((opcode, content))
    return packed


def no_message_index(records: Records) -> Records:
    return [
        (opcode, content[:32] + struct.pack('<I', 0) + content[-24:] if opcode == CHUNK_INDEX
         else content)
        for opcode, content in records if opcode != INDEX
    ]  # fmt: skip


def counts_unknown(records: Records) -> Records:
    return [
        (opcode, content[:42] + struct.pack('<I', 0) if opcode == STATISTICS else content)
        for opcode, content in records
    ]


def later_channels_first(records: Records) -> Records:
    end = [opcode for opcode, _ in records].index(DATA_END)
    return [*records[: end + 1], *reversed(records[end + 1 : -1]), records[-1]]


@pytest.mark.parametrize(
    'change',
    [
        lambda records: records,
        no_summary,
        no_chunks,
        lambda records: no_summary(no_chunks(records)),
        no_message_index,
        lz4_chunks,
        without(CHUNK_INDEX),
        without(STATISTICS),
        without(STATISTICS, CHUNK_INDEX, INDEX),
        counts_unknown,
        later_channels_first,
        lambda records: [one for n, one in enumerate(records) if one[0] != CHANNEL or n < 4],
        lambda records: [(0x7F, b'of others'), *records[:1], (0x90, bytes(9)), *records[1:]],
    ],
)  # fmt: skip
def test_mcap_of_every_make(
    tmp_path: Path, tiny_model: Path, change: Callable[[Records], Records]
) -> None:
    bag = record(tmp_path / 'in', [*images(), ('/note', String(data='x'))])
    write_mcap(file_of(bag), change(mcap_records(file_of(bag))))
    for source, out in ((bag, 'a'), (file_of(bag), 'b')):
        complete(source, tmp_path / out, tiny_model)


def test_chunks_that_are_missing_are_counted(tmp_path: Path, tiny_model: Path) -> None:
    bag = record(tmp_path / 'in', images())
    half = record(tmp_path / 'half', images(2))
    records = mcap_records(file_of(bag))
    chunk = next(one for one in mcap_records(file_of(half)) if one[0] == CHUNK)
    write_mcap(file_of(bag), [chunk if one[0] == CHUNK else one for one in records])
    result = segment(file_of(bag), tmp_path / 'out', tiny_model)
    assert result.exit_code == 1
    assert '3 messages are counted, 2 are there' in result.stderr
    assert stamps(tmp_path / 'out') == [100, 101]


@pytest.mark.parametrize('storage', STORAGES)
def test_topics_without_messages(tmp_path: Path, tiny_model: Path, storage: StoragePlugin) -> None:
    bag = record(tmp_path / 'in', [('/image', stamped(0)), ('/silent', None)], storage)
    for source in (bag, file_of(bag)):
        result = segment(source, tmp_path / 'out', tiny_model, '--topic', '/silent')
        assert result.exit_code == 1
        assert '/silent has no messages in the bag' in result.stderr
    assert not (tmp_path / 'out').exists()
    change_metadata(bag, lambda about: of_image(about, '/silent').update(message_count=2))
    result = segment(bag, tmp_path / 'out', tiny_model, '--topic', '/silent')
    assert result.exit_code == 1
    assert '2 messages are counted, 0 are there' in result.stderr
    assert not (tmp_path / 'out').exists()


def bad_messages() -> list[bytes]:
    good = serialize_message(stamped(1))
    return [
        b'',
        good[:3],
        good[:40],
        good[:-1000],
        good + bytes(1000),
        good.replace(b'lens', b'l\xffns'),
        good.replace(b'rgb8', b'rg\xff8'),
        b'\0\x09' + good[2:],
        b'\x28\xb5\x2f\xfd' + good[4:],
        serialize_message(String(data='no image')),
        bytes(len(good)),
    ]


@pytest.mark.parametrize('storage', STORAGES)
def test_one_bad_message_is_one_bad_message(
    tmp_path: Path, tiny_model: Path, storage: StoragePlugin
) -> None:
    bad = [('/image', message) for message in bad_messages()]
    bag = record(tmp_path / 'in', [('/image', stamped(0)), *bad, ('/image', stamped(2))], storage)
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 1
    assert f'{len(bad)} of {len(bad) + 2} images left out' in result.stderr
    assert 'message: ' in result.stderr
    assert stamps(tmp_path / 'out') == [100, 102]
    assert len(read(tmp_path / 'out')['/clipseg/prompts']) == 1
    only = record(tmp_path / 'only', bad, storage)
    result = segment(only, tmp_path / 'no', tiny_model)
    assert result.exit_code == 1
    assert 'no image of /image can be read, so nothing is written: message: ' in result.stderr
    assert not (tmp_path / 'no').exists()


def test_rows_that_are_no_messages(tmp_path: Path, tiny_model: Path) -> None:
    bag = record(tmp_path / 'in', images(), StoragePlugin.SQLITE3)
    with sqlite3.connect(file_of(bag)) as database:
        for time, data in (('soon', b''), (-5, b'x'), (1.5, b'x'), (7, 'text'), (8, 9)):
            database.execute('INSERT INTO messages VALUES (NULL, 1, ?, ?)', [time, data])
        database.execute('INSERT INTO messages VALUES (NULL, 99, 5, ?)', [b'of no topic'])
    database.close()
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert result.exit_code == 1
    assert '5 × message: it has no time of recording, or no data' in result.stderr
    assert stamps(tmp_path / 'out') == [100, 101, 102]


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_with_zstd(
    tmp_path: Path, tiny_model: Path, storage: StoragePlugin, mode: CompressionMode
) -> None:
    """The folder, and its file alone, under any name."""
    bag = record(tmp_path / 'in', images(), storage, mode)
    assert (file_of(bag).suffix == '.zstd') == (mode == CompressionMode.FILE)
    shutil.copy(file_of(bag), tmp_path / '50% #1')
    for source, out in ((bag, 'a'), (file_of(bag), 'b'), (tmp_path / '50% #1', 'c')):
        complete(source, tmp_path / out, tiny_model)
    file = file_of(bag)
    file.write_bytes(file.read_bytes()[:-700])
    result = segment(bag, tmp_path / 'no', tiny_model)
    assert result.exit_code == 1
    assert str(file) in result.stderr
    assert not (tmp_path / 'no').exists()


def test_a_small_message_does_not_fill_the_memory(tmp_path: Path, tiny_model: Path) -> None:
    compressor = zstd.ZstdCompressor()
    parts = [compressor.compress(bytes(2**26)) for _ in range(3 * 8)]
    bomb = b''.join([*parts, compressor.flush()])
    assert len(bomb) < 500_000
    bag = record(tmp_path / 'in', [('/image', bomb), ('/image', stamped(1))])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = segment(bag, tmp_path / 'out', tiny_model)
    assert '1 of 2 images left out' in result.stderr
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < 1.3 * 2**20, f'{grown} KiB, of 1.5 GiB of zeros'


def test_chunks_compressed_with_zstd(tmp_path: Path, tiny_model: Path) -> None:
    bag = record(tmp_path / 'in', images(), StoragePlugin.MCAP, CompressionMode.STORAGE)
    complete(bag, tmp_path / 'a', tiny_model)
    change_metadata(bag, lambda about: about.update(compression_format='', compression_mode=''))
    complete(bag, tmp_path / 'b', tiny_model)


def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        assert {path.name.partition('-')[0] for path in tmp_path.iterdir()} == {'in', 'clipseg'}
        raise KeyboardInterrupt

    monkeypatch.setattr('clipseg_ros.bag.runner.compute_pixels', interrupt)
    bag = record(tmp_path / 'in', images(2))
    assert segment(bag, tmp_path / 'out', tiny_model).exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_exit_statuses_are_documented(repository: Path) -> None:
    page = (repository / 'docs' / 'bags.md').read_text()
    said = ' '.join(clipseg('bag', '--help').stdout.replace('│', ' ').split())
    assert 'exit status is 0 if' in said
    for status in ('| 0 |', '| 1 |', '| 2 |', '| 130 |'):
        assert status in page
    assert clipseg('bag').exit_code == 2
