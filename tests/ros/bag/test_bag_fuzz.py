"""Whatever the bytes of a bag are: it is segmented, or refused in words of this project."""

from __future__ import annotations

import random
import resource
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bags import compressed, file_of, mcap_records, record, write_mcap
from ros_peers import picture
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from std_msgs.msg import Header, String

from clipseg_model.prompts import parse_prompts
from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from clipseg_ros.bag.reading import open_camera
from clipseg_ros.bag.runner import BagOutput, BagRunner
from clipseg_ros.errors import BagError
from clipseg_ros.images.conversion import array_to_image
from tests.fuzz.mutations import time_limit

INPUTS = 60
"""Of each of the kinds of bag."""

EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
SECONDS = 5


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three changes, as by disks, networks and people: bits, numbers, runs, cuts."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        if not changed:
            break
        start = chance.randrange(len(changed))
        # Half of the changes where the structure is: at the beginning and at the end.
        if chance.random() < 0.5:
            start = min(chance.randrange(400), start) if start % 2 else max(
                len(changed) - 1 - chance.randrange(400), 0)  # fmt: skip
        length = chance.choice([1, 2, 8, 60, 700])
        match chance.randrange(8):
            case 0:
                changed[start] ^= 1 << chance.randrange(8)
            case 1:
                changed[start : start + length] = chance.randbytes(length)
            case 2:
                changed[start : start + length] = bytes(min(length, len(changed) - start))
            case 3:
                size = chance.choice([1, 2, 4, 8])
                number = chance.choice(EXTREMES) % 256**size
                order = chance.choice(['little', 'big'])
                changed[start : start + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
            case 4:
                del changed[start : start + length]
            case 5:
                changed[start:start] = changed[: chance.randrange(200)]
            case 6:
                del changed[start:]
            case 7:
                other = chance.randrange(len(changed))
                changed[start : start + length] = changed[other : other + length]
    return bytes(changed)


def small(number: int) -> Any:
    header = Header(frame_id='lens')
    header.stamp.sec = number
    return array_to_image(picture(6, 8, seed=number), 'rgb8', header)


def without_summary(bag: Path) -> None:
    records = mcap_records(file_of(bag))
    end = [opcode for opcode, _ in records].index(0x0F)
    write_mcap(file_of(bag), [*records[: end + 1], records[-1]])


def with_journal(bag: Path) -> None:
    """What a crash leaves: the database, and a journal that belongs to it."""
    import sqlite3

    file = file_of(bag)
    database = sqlite3.connect(file, isolation_level=None)
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('PRAGMA wal_autocheckpoint=0')
    database.execute('INSERT INTO messages SELECT NULL, topic_id, timestamp, data FROM messages')
    journal = file.with_name(f'{file.name}-wal')
    kept = file.read_bytes(), journal.read_bytes()
    database.close()
    file.write_bytes(kept[0])
    journal.write_bytes(kept[1])


MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3
KINDS: dict[str, tuple[StoragePlugin, CompressionMode, Callable[[Path], object]]] = {
    'mcap': (MCAP, CompressionMode.NONE, lambda bag: None),
    'mcap with zstd chunks': (MCAP, CompressionMode.STORAGE, lambda bag: None),
    'mcap without summary': (MCAP, CompressionMode.NONE, without_summary),
    'mcap.zstd': (MCAP, CompressionMode.FILE, lambda bag: None),
    'sqlite': (SQLITE, CompressionMode.NONE, lambda bag: None),
    'sqlite with zstd messages': (SQLITE, CompressionMode.MESSAGE, lambda bag: None),
    'sqlite with a journal': (SQLITE, CompressionMode.NONE, with_journal),
}


@pytest.fixture(scope='module')
def segmenter(tiny_model: Path) -> Segmenter:
    return create_model(tiny_model, 'cpu', 1)


def outcome(bag: Path, out: Path, segmenter: Segmenter) -> str:
    try:
        with open_camera(bag, None) as camera:
            runner = BagRunner(segmenter, parse_prompts('mug'), BagOutput(out, ('mask',)))
            done = runner.run(camera, lambda: None)
    except BagError as error:
        said = str(error)
        return 'refused' if str(bag) in said or 'image' in said else f'no word of the bag: {said}'
    assert done + runner.problems.total() >= camera.total
    return 'in part' if runner.problems else 'segmented'


@pytest.mark.parametrize('kind', KINDS)
def test_bags_of_any_bytes(tmp_path: Path, segmenter: Segmenter, kind: str) -> None:
    storage, compression, change = KINDS[kind]
    chance = random.Random(f'bags {kind}')
    messages = [('/note', String(data='x')), *(('/image', small(number)) for number in range(2))]
    if kind == 'sqlite':
        messages = [
            (topic, compressed(one) if topic == '/image' else one) for topic, one in messages
        ]
    good = record(tmp_path / 'in', messages, storage, compression)
    change(good)
    out = tmp_path / 'out'
    assert outcome(good, out, segmenter) == 'segmented'
    shutil.rmtree(out)
    whole = {path.name: path.read_bytes() for path in good.iterdir()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for number in range(INPUTS):
        names = sorted(whole, key=lambda name: name == 'metadata.yaml')
        name = chance.choices(names, [8] * (len(names) - 1) + [1])[0]
        (good / name).write_bytes(mutated(whole[name], chance))
        # Alone, the file is not helped by the counts of metadata.yaml.
        source = good if name == 'metadata.yaml' or number % 2 else file_of_bag(good)
        try:
            with time_limit(SECONDS):
                outcomes[outcome(source, out, segmenter)] += 1
        except BaseException as error:
            raise AssertionError(f'{kind}, input {number}, of {name}: {error!r}') from error
        (good / name).write_bytes(whole[name])
        shutil.rmtree(out, ignore_errors=True)
        assert [path.name for path in tmp_path.iterdir()] == ['in']
        assert {path.name for path in good.iterdir()} == set(whole), 'nothing is written there'
    assert set(outcomes) <= {'refused', 'in part', 'segmented'}, outcomes
    assert outcomes['refused'] > 5, outcomes
    assert outcomes['segmented'] + outcomes['in part'] > 5, outcomes
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < 300_000, f'{grown} KiB more memory'


def file_of_bag(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in {'.mcap', '.db3', '.zstd'})
