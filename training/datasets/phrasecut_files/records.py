"""The records of PhraseCut's JSON files, read one by one and checked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.polygons import shows_pixel
from training.datasets.samples import BadRecord, DataError, check_phrase, field, read_json

#: What the publisher's downloader calls the list of pictures, and what its page does.
IMAGE_FILES = ('image_data_split.json', 'image_data_split3000.json')
REMEDY = "get it with PhraseCut's download_dataset.py (docs/datasets.md)"
#: Kind of a record none of whose polygons covers a pixel.
EMPTY = 'empty mask'
_BETWEEN = re.compile(r'[\s,]*')


def image_file(folder: Path) -> Path:
    """Return the list of pictures in ``VGPhraseCut_v0``, of either name; DataError without any."""
    for name in IMAGE_FILES:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f'{folder} has neither {IMAGE_FILES[0]} nor {IMAGE_FILES[1]}: {REMEDY}')


def read_sizes(path: Path) -> dict[int, tuple[int, int]]:
    """Read height and width of the pictures; those whose entry is broken count as not listed."""
    records = read_json(path, REMEDY)
    if not isinstance(records, list):
        raise DataError(f'{path} is no list of pictures but {type(records).__name__}')
    sizes: dict[int, tuple[int, int]] = {}
    for record in records:
        found = record if isinstance(record, dict) else {}
        number, height, width = (found.get(name) for name in ('image_id', 'height', 'width'))
        if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
            continue
        if isinstance(number, int):
            sizes[number] = (height, width)
    return sizes


def read_records(path: Path) -> Iterator[tuple[Any, float]]:
    """Yield the records of a JSON list one by one, and the share of the file that was read.

    The whole list as objects would take 3 GB.
    """
    try:
        text = path.read_text(encoding='utf-8')
        decoder = json.JSONDecoder()
        place = _skip(text, 0)
        if text[place : place + 1] != '[':
            raise DataError(f'{path} is no list of tasks but {type(json.loads(text)).__name__}')
        place = _skip(text, place + 1)
        while text[place : place + 1] != ']':
            record, place = decoder.raw_decode(text, place)
            yield record, place / len(text)
            place = _skip(text, place)
    except (ValueError, OSError) as error:
        raise DataError(
            f'{path} is no readable JSON ({error}): was its download cut off?'
        ) from error


def _skip(text: str, place: int) -> int:
    found = _BETWEEN.match(text, place)
    return found.end() if found else place


def read_task(
    record: Any, where: str, sizes: dict[int, tuple[int, int]], known: dict[str, Any]
) -> None:
    """Read a record into ``known``: all of it, or what comes before the fault that is raised.

    Raises:
        BadRecord: It is broken.
    """
    known['key'] = key = str(field(record, 'task_id', (str, int), where))
    where = f'{where} task {key},'
    known['image'] = image = field(record, 'image_id', int, where)
    phrase = field(record, 'phrase', str, where)
    if not phrase.strip():
        raise BadRecord('malformed record', f'{where} has a blank phrase')
    known['phrase'] = phrase
    check_phrase(phrase, where)
    if image not in sizes:
        raise BadRecord(
            'unknown image', f'{where} is of image {image}, which image_data does not list'
        )
    height, width = sizes[image]
    instances = field(record, 'Polygons', list, where)
    known['polygons'] = polygons = list(_polygons(instances, where))
    boxes = field(record, 'instance_boxes', list, where)
    known['share'] = _share(boxes, height * width, where)
    if not shows_pixel(polygons, height, width):
        raise EmptyMask(where, height, width, polygons)


def _share(boxes: list[Any], pixels: int, where: str) -> float:
    """Return the share of a picture that boxes fill together, above 0; BadRecord without one."""
    try:
        sides = [(float(box[2]), float(box[3])) for box in boxes]
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise BadRecord('malformed record', f'{where} has no usable boxes: {error}') from error
    share = sum(width * height for width, height in sides) / pixels
    # What is no number is not above 0 either.
    if not (0 < share < math.inf and all(min(pair) >= 0 for pair in sides)):
        raise BadRecord(
            'malformed record',
            f'{where} has no usable boxes: {str(boxes)[:60]} fill no part of the picture',
        )
    return share


class EmptyMask(BadRecord):
    """No polygon of a record covers a pixel."""

    def __init__(
        self, where: str, height: int, width: int, polygons: list[NDArray[np.float64]]
    ) -> None:
        seen = 'has no polygon'
        if any(map(len, polygons)):
            corners = np.concatenate(polygons)
            (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
            seen = (
                f'has {len(polygons)} polygons, with x in {left:g} … {right:g} and y in {top:g} … '
                f'{bottom:g}'
            )
        super().__init__(
            EMPTY, f'{where} {seen}, which cover no pixel of a picture of {width} × {height}'
        )


def _polygons(instances: list[Any], where: str) -> Iterator[NDArray[np.float64]]:
    for instance in instances:
        if not isinstance(instance, list):
            raise _no_polygon(where, instance, 'where the polygons of an instance are needed')
        for listed in instance:
            if listed == []:
                yield np.zeros((0, 2))
                continue
            try:
                points = np.array(listed)
            except ValueError as error:
                raise _no_polygon(where, listed, f'as a polygon ({error})') from error
            if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in 'iuf':
                raise _no_polygon(where, listed, 'as a polygon')
            points = points.astype(np.float64)
            if not np.isfinite(points).all():
                raise BadRecord(
                    'bad polygon', f'{where} has a polygon with corners that are no numbers'
                )
            yield points


def _no_polygon(where: str, seen: Any, place: str) -> BadRecord:
    return BadRecord(
        'bad polygon',
        f'{where} has {str(seen)[:60]!r} {place}, which is no list of x, y: Polygons are lists '
        '(instances) of lists (polygons) of [x, y]',
    )
