"""Photographs with masks, each with what it is known to show and not to show.

A source is a file in COCO's instance format. What a photograph is known to show, and known not
to show, comes with it: its source's vocabulary labels exhaustively.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.coco import plain_name
from training.datasets.coco_masks import coco_mask
from training.datasets.samples import DataError, read_pixels

HELD_OUT = Path(__file__).with_name('test_photos.json')
"""Photographs and names that nothing may be trained on; see the file."""


@dataclass
class Photograph:
    """A photograph, or a crop of one, and what is known of it.

    Attributes:
        image: uint8 (H, W, 3).
        masks: Where each name is seen, bool (H, W).
        vocabulary: Names that are absent where they have no mask.
        unknown: Names of the vocabulary that may be there all the same.
        source: Where it comes from.
        name: Of its file.
        objects: Single instances, for pasting and for prompt images: name and mask.
    """

    image: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    vocabulary: Collection[str]
    unknown: set[str]
    source: str
    name: str
    objects: list[tuple[str, NDArray[np.bool_]]] = field(default_factory=list)


class PhotographFile:
    """The photographs of a file in COCO's instance format.

    Args:
        path: The file. ``info.vocabulary`` may say for each ``source`` of its images which names
            are labelled exhaustively; without it, and without ``source``, all categories are.
        images: Folder of the pictures.

    Raises:
        DataError: The file is none of this format, has no masks, or a source without vocabulary.
    """

    def __init__(self, path: Path, images: Path) -> None:
        data = json.loads(path.read_text(encoding='utf-8'))
        if not all(isinstance(data.get(k), list) for k in ('images', 'annotations', 'categories')):
            raise DataError(f"{path} has not COCO's lists images, annotations and categories")
        if not data['annotations']:
            raise DataError(f'{path} has no masks: nothing can be learned from it')
        self.path, self.images = path, images
        self.names = {c['id']: plain_name(c['name']) for c in data['categories']}
        self.records = {image['id']: image for image in data['images']}
        self.entries: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in data['annotations']:
            self.entries[entry['image_id']].append(entry)
        stated = data.get('info', {}).get('vocabulary')
        sources = {record.get('source', '') for record in self.records.values()}
        self.vocabulary: Mapping[str, list[str]] = (
            {'': sorted(self.names.values())}
            if stated is None and sources == {''}
            else stated or {}
        )
        missing = sorted(source for source in sources if not self.vocabulary.get(source))
        if missing:
            raise DataError(
                f'{path} does not say which names the source {missing[0]!r} labels exhaustively: '
                'add them to info.vocabulary, or nothing can be known to be absent'
            )

    def numbers(self, source: str, split: str | None = None) -> list[int]:
        """Return the ids of the photographs of a source, and of a split of it."""
        return [
            number
            for number, record in self.records.items()
            if record.get('source', '') == source and split in (None, record.get('split'))
        ]

    def read(self, number: int, without: Collection[str] = ()) -> Photograph:
        """Read a photograph; the names ``without`` are left out of all that is known of it."""
        record = self.records[number]
        image = read_pixels(self.images / record['file_name'], f'photograph {number}')
        height, width = image.shape[:2]
        masks: dict[str, NDArray[np.bool_]] = {}
        unknown, objects = set(), []
        for entry in self.entries[number]:
            name = self.names[entry['category_id']]
            if name in without:
                continue
            mask = coco_mask(entry['segmentation'], height, width)
            if entry.get('iscrowd'):
                unknown.add(name)
                continue
            masks[name] = masks[name] | mask if name in masks else mask
            objects.append((name, mask))
        source = record.get('source', '')
        vocabulary = [name for name in self.vocabulary[source] if name not in without]
        for name in unknown:
            masks.pop(name, None)
        return Photograph(image, masks, vocabulary, unknown, source, record['file_name'], objects)


def held_out() -> dict[str, Any]:
    """Read what nothing may be trained on."""
    held: dict[str, Any] = json.loads(HELD_OUT.read_text(encoding='utf-8'))
    return held


def training_numbers(file: PhotographFile, source: str, held: Mapping[str, Any]) -> Iterator[int]:
    """Return the ids of a source's photographs that may be trained on."""
    kept = {*held['coco'], *held['unseen']}
    for number in file.numbers(source):
        record = file.records[number]
        if record.get('split', 'train') == 'train' and record['file_name'] not in kept:
            yield number
