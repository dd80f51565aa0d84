"""Any file in COCO's instance format, one's own included, and COCO-20i.

COCO-20i (Nguyen and Todorovic 2019) splits the 80 classes in four folds, class k (from 0) being
in fold k mod 4; training sees the other 60 classes of train2014, testing the fold's 20 classes of
val2014. CLIPSeg takes pictures and masks from HSNet's code. There, a picture has one class a pixel:
annotations are painted over each other in the file's order, outlines included; and a picture is
listed for a class that fills 2,048 pixels. (This rule reproduces the published lists:
docs/papers.md.)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as run_lengths
from pydantic import Field

from training.datasets.coco_masks import check_polygons, check_runs, coco_mask, coco_runs
from training.datasets.named import NamedSamples, NamedSettings
from training.datasets.samples import (
    BadRecord,
    BadRecords,
    DataError,
    check_size,
    field,
    read_json,
    read_pixels,
)

COCO20I_FOLDS = 4
#: Pixels that a class fills in a picture of HSNet's lists.
COCO20I_PIXELS = 2 * 32 * 32


class CocoSettings(NamedSettings):
    """A file of COCO's instance format."""

    annotations: Path = Field(description='JSON file')
    images: Path | None = Field(
        None, description='folder of the pictures; else SPLIT, images/SPLIT or images beside'
    )
    classes: list[str] | None = Field(None, description='names to read, all by default')
    coco20i: tuple[int, Literal['train', 'val']] | None = Field(
        None, description='fold of COCO-20i; train reads the classes of the other folds'
    )
    min_area: float = Field(0.0, ge=0, lt=1, description='least share of the picture of a class')
    min_pixels: int = Field(
        0, ge=0, description='least pixels of a class in a picture and in its support'
    )
    overlaps: Literal['both', 'painted'] = Field(
        'both',
        description='a pixel is of every class that covers it, by the masks of the API of COCO; or '
        'of the last one that is painted over it, in the order of the file (HSNet)',
    )


def coco_20i(
    folder: Path, fold: int, split: str, images: Path | None = None, **changes: Any
) -> CocoSettings:
    """Return the settings of a fold, 0 … 3, of COCO-20i; ValueError for other folds and splits.

    ``folder`` holds COCO 2014's annotations, and its pictures unless ``images`` names theirs;
    ``train`` reads the 60 other classes of train2014, ``val`` the fold's 20 of val2014. As in
    HSNet's code, a class fills 2,048 pixels of its pictures, and is drawn before the picture.
    """
    if fold not in range(COCO20I_FOLDS) or split not in ('train', 'val'):
        raise ValueError(f'COCO-20i has folds 0…3 and splits train and val, not {fold}, {split!r}')
    path = folder / 'annotations' / f'instances_{split}2014.json'
    defaults = {
        'images': images,
        'coco20i': (fold, split),
        'visual': True,
        'min_pixels': COCO20I_PIXELS,
        'overlaps': 'painted',
        'draw': 'classes',
    }
    return CocoSettings(**{'annotations': path, **defaults, **changes})


class Coco(NamedSamples):
    """Classes of pictures, from a file in COCO's instance format.

    The truth of a class is the union of its instances, rasterised by COCO's own code, or what is
    left of it when all are painted over each other (``overlaps``); crowds do not count.

    Raises:
        DataError: The file is missing, unreadable or not of this format, or holds no sample.
        BadRecord: A record is broken, and ``settings.bad_records`` is ``raise``.
        ValueError: A name in ``settings.classes`` is none of the file's.
    """

    settings: CocoSettings

    def __init__(self, settings: CocoSettings) -> None:
        super().__init__(settings, BadRecords(settings.bad_records))
        self.path = settings.annotations
        data = read_json(self.path, "name a file in COCO's instance format")
        for part in ('images', 'categories', 'annotations'):
            if not isinstance(data, dict) or not isinstance(data.get(part), list):
                raise DataError(f"{self.path} has no list {part!r}: it is not in COCO's format")
        data = self._prepared(data)
        self.folder = settings.images or coco_folder(self.path)
        names = {category['id']: category['name'] for category in data['categories']}
        unknown = set(settings.classes or []) - set(names.values())
        if unknown:
            raise ValueError(
                f'{self.path} has no class {", ".join(sorted(unknown))}; it has '
                f'{", ".join(sorted(names.values()))}'
            )
        self._class_names = {number: plain_name(name) for number, name in names.items()}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.files: dict[int, str] = {}
        self._entries: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        #: Places of the classes in order, from 1.
        self._places = {number: place for place, number in enumerate(sorted(names), 1)}
        #: All annotations of each picture, crowds included, in the order of the file.
        self._of_picture: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self._all_shown: dict[int, set[int]] = defaultdict(set)
        #: (picture, class) with an annotation that says nothing usable of where the class is.
        self._unknown: set[tuple[int, int]] = set()
        self.images: dict[int, dict[str, Any]] = {}
        for number, record in enumerate(data['images']):
            with self.problems.counted():
                self._read_image(record, f'{self.path}, image {number},')
        for number, record in enumerate(data['annotations']):
            with self.problems.counted():
                self._read_annotation(record, f'{self.path}, annotation {number},', names)
        wanted = {
            number
            for number in self._fold(sorted(names))
            if settings.classes is None or names[number] in settings.classes
        }
        spoilt = {picture for picture, _ in self._unknown if settings.overlaps == 'painted'}
        items = [
            key
            for key in sorted(self._entries.keys() - self._unknown)
            if key[1] in wanted and key[0] not in spoilt and self._is_asked(*key)
        ]
        items = self._large(items)
        self.index(items, self._class_names, self.path)

    def picture_name(self, picture: int) -> str:
        """Return the picture's file name."""
        return self.files[picture]

    def absent(self, picture: int) -> Collection[int]:
        """Return the classes without any annotation in the picture, crowds included."""
        return [number for number in self._asked if number not in self._all_shown[picture]]

    def read(
        self, picture: int, number: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Read a picture, the class's truth, and what counts."""
        path = self.folder / self.files[picture]
        image = read_pixels(path, str(self.path))
        height, width = self.sizes[picture]
        check_size(image.shape, (height, width), path, str(self.path))
        mask = np.zeros((height, width), bool)
        crowd = np.zeros((height, width), bool)
        for entry in self._entries[picture, number]:
            if entry.get('iscrowd') or self.settings.overlaps == 'both':
                target = crowd if entry.get('iscrowd') else mask
                target |= self._decoded(entry, picture)
        if self.settings.overlaps == 'painted':
            mask = self._painted(picture) == self._places[number]
        if not mask.any():
            raise self._empty(picture, number)
        return image, mask, ~(crowd & ~mask) if crowd.any() else None

    @contextmanager
    def _usable(self, entry: dict[str, Any], picture: int) -> Iterator[None]:
        """Raise BadRecord, with the annotation's number, where the block finds it unusable."""
        try:
            yield
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise BadRecord(
                'bad polygon',
                f'{self.path}, annotation {entry.get("id")} of {self.files[picture]}, has no '
                f'usable segmentation: {error}',
            ) from error

    def _encoded(self, entry: dict[str, Any], picture: int) -> Any:
        with self._usable(entry, picture):
            return coco_runs(entry['segmentation'], *self.sizes[picture])

    def _decoded(self, entry: dict[str, Any], picture: int) -> NDArray[np.bool_]:
        with self._usable(entry, picture):
            return coco_mask(entry['segmentation'], *self.sizes[picture])

    def _large(self, items: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the items whose class fills enough pixels, counted on the masks themselves.

        Without a least number, those whose annotations cover none are broken.
        """
        least = self.settings.min_pixels
        asked: dict[int, list[int]] = defaultdict(list)
        for picture, number in items:
            asked[picture].append(number)
        large = []
        for picture, numbers in asked.items():
            with self.problems.counted():
                pixels = self._pixels(picture, numbers)
                large += [(picture, n) for n in numbers if pixels[n] >= max(least, 1)]
                for number in numbers:
                    # What others hide in a painted picture is only not asked for.
                    if not (least or pixels[number] or self._covers(picture, number)):
                        self.problems.found(self._empty(picture, number))
        return large

    def _empty(self, picture: int, number: int) -> BadRecord:
        entry = self._entries[picture, number][0]
        return BadRecord(
            'empty mask',
            f'{self.path}, annotation {entry.get("id")}: {self._class_names[number]!r} covers no '
            f'pixel of {self.files[picture]}',
        )

    def _pixels(self, picture: int, numbers: list[int]) -> dict[int, int]:
        """Return how many pixels each of some classes fills; where none is asked for, whether."""
        if self.settings.overlaps == 'painted':
            counts = np.bincount(self._painted(picture).ravel(), minlength=len(self._places) + 1)
            return {number: int(counts[self._places[number]]) for number in numbers}
        if not self.settings.min_pixels:
            return {number: int(self._covers(picture, number)) for number in numbers}
        pixels = {}
        for number in numbers:
            entries = [e for e in self._entries[picture, number] if not e.get('iscrowd')]
            runs = run_lengths.merge([self._encoded(entry, picture) for entry in entries])
            pixels[number] = int(run_lengths.area(runs))
        return pixels

    def _covers(self, picture: int, number: int) -> bool:
        """Return whether annotations of a class cover any pixel, whatever lies over them."""
        # Mostly the first one does, which saves drawing the others.
        return any(
            run_lengths.area(self._encoded(entry, picture))
            for entry in self._entries[picture, number]
            if not entry.get('iscrowd')
        )

    def _painted(self, picture: int) -> NDArray[np.int32]:
        """Return the place of each pixel's class among all classes, from 1; 0 for none.

        Polygons are filled with their outlines, corners cut to whole pixels. What a crowd covers is
        not told apart, so it hides nothing.
        """
        labels = np.zeros(self.sizes[picture], np.int32)
        for entry in self._of_picture[picture]:
            if entry.get('iscrowd'):
                continue
            place = self._places[entry['category_id']]
            if isinstance(entry['segmentation'], dict):
                labels[self._decoded(entry, picture)] = place
                continue
            for points in entry['segmentation']:
                corners = np.reshape(np.asarray(points, np.float64), (-1, 2)).astype(np.int32)
                cv2.fillPoly(labels, [corners], place)
        return labels

    def _prepared(self, data: dict[str, Any]) -> dict[str, Any]:
        return data

    def _fold(self, numbers: list[int]) -> list[int]:
        if self.settings.coco20i is None:
            return numbers
        fold, split = self.settings.coco20i
        if len(numbers) != 80 or fold not in range(COCO20I_FOLDS):
            raise DataError(
                f'{self.path} has {len(numbers)} classes and fold {fold} was asked for: COCO-20i '
                'has folds 0…3 of 80 classes'
            )
        held_out = numbers[fold::COCO20I_FOLDS]
        return held_out if split == 'val' else [n for n in numbers if n not in held_out]

    def _read_image(self, record: Any, where: str) -> None:
        number = field(record, 'id', int, where)
        size = tuple(field(record, name, int, where) for name in ('height', 'width'))
        self.files[number] = self._file_name(record, where)
        if not (self.folder / self.files[number]).is_file():
            raise BadRecord(
                'missing image',
                f'{self.folder / self.files[number]} does not exist, and {where} names it',
            )
        self.sizes[number] = (size[0], size[1])
        self.images[number] = record

    def _file_name(self, record: Any, where: str) -> str:
        return str(field(record, 'file_name', str, where))

    def _read_annotation(self, record: Any, where: str, names: dict[int, str]) -> None:
        picture = field(record, 'image_id', int, where)
        number = field(record, 'category_id', int, where)
        if number not in names:
            raise BadRecord('unknown class', f'{where} is of category {number}, which has no name')
        if picture not in self.sizes:
            if picture in self.files:
                return  # Its picture is missing, which was counted once.
            raise BadRecord('unknown image', f'{where} is of image {picture}, which is not listed')
        # Even where nobody can tell where it is, the picture does not lack it.
        self._all_shown[picture].add(number)
        try:
            self._check(record, picture, where)
        except BadRecord:
            self._unknown.add((picture, number))
            raise
        self._entries[picture, number].append(record)
        self._of_picture[picture].append(record)

    def _check(self, record: dict[str, Any], picture: int, where: str) -> None:
        """Raise BadRecord where an annotation does not say where its class is, or how large."""
        segmentation = field(record, 'segmentation', (list, dict), where)
        if not segmentation:
            raise BadRecord('bad polygon', f'{where} has an empty segmentation')
        with self._usable(record, picture):
            if isinstance(segmentation, list):
                check_polygons(segmentation)
            else:
                check_runs(segmentation, *self.sizes[picture])
        if self.settings.min_area and not record.get('iscrowd'):
            area = field(record, 'area', (int, float), where)
            if not 0 <= area < math.inf:
                raise BadRecord('malformed record', f"{where} has {area} as 'area'")

    def _is_asked(self, picture: int, number: int) -> bool:
        entries = self._entries[picture, number]
        height, width = self.sizes[picture]
        things = [entry for entry in entries if not entry.get('iscrowd')]
        least = self.settings.min_area * height * width
        return bool(things) and (not least or sum(entry['area'] for entry in things) >= least)


def coco_folder(annotations: Path) -> Path:
    """Return the pictures' folder of ``annotations/instances_SPLIT.json``, or FileNotFoundError."""
    root = annotations.parent.parent
    split = annotations.stem.removeprefix('instances_')
    for folder in (root / split, root / 'images' / split, root / 'images'):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f'the pictures of {annotations} are neither in {root / split} nor in '
        f'{root / "images" / split} nor in {root / "images"}'
    )


def plain_name(name: str) -> str:
    """Return a class's name as a phrase: ``fire_truck`` is "fire truck"."""
    return name.replace('_', ' ')
