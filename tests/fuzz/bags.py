"""Bags of every storage and compression, as samples for the reader of bags."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from bags import compressed, file_of, mcap_records, record, write_mcap
from ros_peers import picture, write_tiny_model
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from std_msgs.msg import Header, String

from clipseg_model.prompts import parse_prompts
from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from clipseg_ros.bag.reading import open_camera
from clipseg_ros.bag.runner import BagOutput, BagRunner
from clipseg_ros.errors import BagError
from clipseg_ros.images.conversion import array_to_image


def _small(number: int) -> Any:
    header = Header(frame_id='lens')
    header.stamp.sec = number
    return array_to_image(picture(6, 8, seed=number), 'rgb8', header)


def _without_summary(bag: Path) -> None:
    records = mcap_records(file_of(bag))
    end = [opcode for opcode, _ in records].index(0x0F)
    write_mcap(file_of(bag), [*records[: end + 1], records[-1]])


def _with_journal(bag: Path) -> None:
    """Leave what a crash leaves: the database, and a journal that belongs to it."""
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
STORAGES: dict[str, tuple[StoragePlugin, CompressionMode, Callable[[Path], object]]] = {
    'mcap': (MCAP, CompressionMode.NONE, lambda bag: None),
    'mcap with zstd chunks': (MCAP, CompressionMode.STORAGE, lambda bag: None),
    'mcap without summary': (MCAP, CompressionMode.NONE, _without_summary),
    'mcap.zstd': (MCAP, CompressionMode.FILE, lambda bag: None),
    'sqlite': (SQLITE, CompressionMode.NONE, lambda bag: None),
    'sqlite with zstd messages': (SQLITE, CompressionMode.MESSAGE, lambda bag: None),
    'sqlite with a journal': (SQLITE, CompressionMode.NONE, _with_journal),
}


def make_bags(folder: Path) -> None:
    for kind, (storage, compression, change) in STORAGES.items():
        messages = [('/note', String(data='x')), *(('/image', _small(number)) for number in (0, 1))]
        if kind == 'sqlite':
            messages = [
                (topic, compressed(one) if topic == '/image' else one) for topic, one in messages
            ]
        change(record(folder / kind, messages, storage, compression))


def read_bag(bag: Path, scratch: Path) -> None:
    """Segment a bag, or its file alone, which the counts of metadata.yaml do not help then."""
    alone = sum(path.stat().st_size for path in bag.iterdir()) % 2
    files = [path for path in bag.iterdir() if path.suffix in {'.mcap', '.db3', '.zstd'}]
    source = files[0] if alone and files else bag
    out = scratch / 'bag'
    try:
        with open_camera(source, None) as camera:
            runner = BagRunner(_segmenter(), parse_prompts('mug'), BagOutput(out, ('mask',)))
            done = runner.run(camera, lambda: None)
    except BagError as error:
        if str(source) not in str(error) and 'image' not in str(error):
            raise AssertionError(f'no word of the bag: {error}') from error
        raise
    assert done + runner.problems.total() >= camera.total


@cache
def _segmenter() -> Segmenter:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'tiny.safetensors'
        write_tiny_model(path)
        return create_model(path, 'cpu', 1)
