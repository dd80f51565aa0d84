"""PhraseCut's files as arrays that are mapped into memory: made once, shared by all processes.

A split's JSON file (344 MB for ``train``) takes most of a minute and 3 GB to parse. Its index is a
folder of NumPy files, in ``index`` beside the JSON file, or in the user's cache where that folder
cannot be written. The system shares the pages of a mapped file among processes. An index is made
again when the size or the time of a file it was made from has changed.

An index holds every record, the broken ones with what is wrong with them, and does not depend on
settings. All checks of a record but that of its picture happen here, before any training.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import mmap
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.utils import WeakFileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from clipseg_model.files.atomic_files import replacing
from clipseg_model.files.user_folders import cache_folder
from training.datasets.phrasecut_files.arrays import Texts
from training.datasets.phrasecut_files.records import (
    REMEDY,
    image_file,
    read_records,
    read_sizes,
    read_task,
)
from training.datasets.samples import BadRecord, DataError

#: Grows when what an index holds changes.
VERSION = 2
#: Files of more bytes show their progress.
SHOWN = 5_000_000
#: What tells the publisher's phrases apart, in the order of its numbers here; none where not said.
TYPES = ('', 'name', 'attribute', 'relation', 'verbose')


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """The N records of a split in the order of its file, mapped into memory.

    Attributes:
        path: The JSON file.
        keys: Task ids; empty where there is none.
        images: int64 (N,), numbers of the pictures; -1 where there is none.
        sizes: int32 (N, 2), height and width in pixels; 0 where the picture is not listed.
        phrases: Phrases, sorted, each once.
        phrase: int32 (N,), index in ``phrases``; -1 where there is none.
        shares: float64 (N,), of the picture that the boxes fill together.
        rows: int64 (N + 1,), where each record's polygons begin.
        starts: int64 (P + 1,), where each polygon's corners begin.
        corners: float64 (C, 2), x and y in pixels.
        faults: For broken records, their number, kind, and what is wrong.
        names: Category names of the phrases, by the publisher.
        attributes: Attributes, one a line.
        counts: int32 (N, 3): relation descriptions, instances, index in :data:`TYPES`.
    """

    path: Path
    keys: Texts
    images: NDArray[np.int64]
    sizes: NDArray[np.int32]
    phrases: Texts
    phrase: NDArray[np.int32]
    shares: NDArray[np.float64]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    corners: NDArray[np.float64]
    faults: list[tuple[int, str, str]]
    names: Texts
    attributes: Texts
    counts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.images)

    def polygons(self, record: int) -> list[NDArray[np.float64]]:
        """Return a record's polygons, each (corners, 2)."""
        first, last = self.rows[record], self.rows[record + 1]
        bounds = self.starts[first : last + 1].tolist()
        return [self.corners[a:b] for a, b in pairwise(bounds)]


def open_index(folder: Path, split: str) -> SplitIndex:
    """Open the index of one split of ``VGPhraseCut_v0``, which is made first where it is missing.

    Several processes may ask at once: one makes it, and the others wait.

    Raises:
        DataError: A file is missing, unreadable, or of another layout.
    """
    path, pictures = folder / f'refer_{split}.json', image_file(folder)
    if not path.is_file():
        raise DataError(f'{path} does not exist: {REMEDY}')
    place = _index_place(path)
    stamp = {'version': VERSION, path.name: _state(path), pictures.name: _state(pictures)}
    if _read_stamp(place) != stamp:
        place.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(place.with_name(f'.{place.name}.lock')):
            if _read_stamp(place) != stamp:
                _build(path, read_sizes(pictures)).write(place, stamp)
    return _load(path, place)


def _index_place(path: Path) -> Path:
    beside = path.parent / 'index'
    if os.access(beside if beside.is_dir() else path.parent, os.W_OK):
        return beside / path.stem
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return cache_folder('CLIPSEG_INDEX', 'index') / f'{path.stem}-{digest}'


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _read_stamp(place: Path) -> Any:
    try:
        return json.loads((place / 'stamp.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None


def _load(path: Path, place: Path) -> SplitIndex:
    def mapped(name: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(place / f'{name}.npy', mmap_mode='r', allow_pickle=False)
        return found

    def texts(name: str) -> Texts:
        return Texts(mapped(name), mapped(f'{name}_starts'))

    faults = json.loads((place / 'faults.json').read_text(encoding='utf-8'))
    corners = mapped('corners')
    if len(corners):
        # Samples are read in random order: reading ahead would fetch their neighbours in vain.
        corners._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return SplitIndex(
        path=path,
        keys=texts('keys'),
        images=mapped('images'),
        sizes=mapped('sizes'),
        phrases=texts('phrases'),
        phrase=mapped('phrase'),
        shares=mapped('shares'),
        rows=mapped('rows'),
        starts=mapped('starts'),
        corners=corners,
        faults=[(number, kind, message) for number, kind, message in faults],
        names=texts('names'),
        attributes=texts('attributes'),
        counts=mapped('counts'),
    )


@dataclass
class _Building:
    """The lists that become an index."""

    keys: list[str] = field(default_factory=list)
    images: array[int] = field(default_factory=lambda: array('q'))
    sizes: array[int] = field(default_factory=lambda: array('i'))
    phrases: list[str | None] = field(default_factory=list)
    shares: array[float] = field(default_factory=lambda: array('d'))
    rows: array[int] = field(default_factory=lambda: array('q', [0]))
    starts: array[int] = field(default_factory=lambda: array('q', [0]))
    corners: array[float] = field(default_factory=lambda: array('d'))
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    counts: array[int] = field(default_factory=lambda: array('i'))

    def write(self, place: Path, stamp: dict[str, Any]) -> None:
        """Write the files; others see all of them, or none."""
        distinct = sorted({phrase for phrase in self.phrases if phrase is not None})
        number_of = {phrase: number for number, phrase in enumerate(distinct)}
        numbers = [-1 if phrase is None else number_of[phrase] for phrase in self.phrases]
        arrays: dict[str, NDArray[Any]] = {
            'images': np.array(self.images, np.int64),
            'sizes': np.array(self.sizes, np.int32).reshape(-1, 2),
            'phrase': np.array(numbers, np.int32),
            'shares': np.array(self.shares, np.float64),
            'rows': np.array(self.rows, np.int64),
            'starts': np.array(self.starts, np.int64),
            'corners': np.array(self.corners, np.float64).reshape(-1, 2),
            'counts': np.array(self.counts, np.int32).reshape(-1, 3),
        }
        texts = {
            'keys': self.keys,
            'phrases': distinct,
            'names': self.names,
            'attributes': self.attributes,
        }
        for name, listed in texts.items():
            # Of names and attributes, half of a character is lost; elsewhere it is a fault.
            encoded = [text.encode(errors='replace') for text in listed]
            arrays[name] = np.frombuffer(b''.join(encoded), np.uint8)
            arrays[f'{name}_starts'] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        with replacing(place) as temporary:
            temporary.mkdir()
            for name, values in arrays.items():
                np.save(temporary / f'{name}.npy', values, allow_pickle=False)
            (temporary / 'faults.json').write_text(json.dumps(self.faults), encoding='utf-8')
            (temporary / 'stamp.json').write_text(json.dumps(stamp), encoding='utf-8')

    def add(self, number: int, record: Any, sizes: dict[int, tuple[int, int]]) -> None:
        """Add a record; a broken one with its fault, as far as it can be read."""
        known: dict[str, Any] = {
            'key': '',
            'image': -1,
            'phrase': None,
            'share': 0.0,
            'polygons': [],
        }
        try:
            read_task(record, f'record {number},', sizes, known)
        except BadRecord as fault:
            self.faults.append((number, fault.kind, str(fault)))
        self.keys.append(known['key'])
        self.images.append(known['image'])
        self.sizes.extend(sizes.get(known['image'], (0, 0)))
        self.phrases.append(known['phrase'])
        self.shares.append(known['share'])
        for points in known['polygons']:
            self.corners.frombytes(points.tobytes())
            self.starts.append(self.starts[-1] + len(points))
        self.rows.append(self.rows[-1] + len(known['polygons']))
        self._add_structure(record if isinstance(record, dict) else {})

    def _add_structure(self, record: dict[str, Any]) -> None:
        structure = record.get('phrase_structure')
        structure = structure if isinstance(structure, dict) else {}
        attributes = structure.get('attributes')
        listed = attributes if isinstance(attributes, list) else []
        relations, boxes = (
            len(value) if isinstance(value, list) else 0
            for value in (structure.get('relation_descriptions'), record.get('instance_boxes'))
        )
        kind = structure.get('type')
        self.names.append(str(structure.get('name', '')))
        self.attributes.append('\n'.join(map(str, listed)))
        self.counts.extend((relations, boxes, TYPES.index(kind) if kind in TYPES else 0))


def _build(path: Path, sizes: dict[int, tuple[int, int]]) -> _Building:
    building = _Building()
    bar = Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=path.stat().st_size < SHOWN,
    )
    with bar:
        task = bar.add_task(f'Reading {path.name}, once', total=1.0)
        for number, (record, share) in enumerate(read_records(path)):
            building.add(number, record, sizes)
            if number % 500 == 0:
                bar.update(task, completed=share)
        bar.update(task, completed=1.0)
    return building


def open_splits(folder: Path, splits: Sequence[str]) -> tuple[list[SplitIndex], NDArray[np.int64]]:
    """Open several splits, and return them with the number of the first record of each, and N."""
    parts = [open_index(folder, split) for split in splits]
    return parts, np.cumsum([0, *map(len, parts)], dtype=np.int64)


def part_of(firsts: Sequence[int], record: int) -> tuple[int, int]:
    """Return which split a record of several is in, and its number there."""
    part = bisect.bisect_right(firsts, record) - 1
    return part, record - firsts[part]
