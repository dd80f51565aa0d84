"""PhraseCut (Wu et al. 2020) and CLIPSeg's extension of it, PhraseCut+, from the publisher's files.

The folder is ``VGPhraseCut_v0`` as PhraseCut's downloader fills it: ``image_data_split3000.json``,
``refer_SPLIT.json`` and ``images/ID.jpg``. PhraseCut+ (CLIPSeg, section 4, "PhraseCut + Visual
prompts") adds negatives and support images that share the phrase. What is drawn is what CLIPSeg's
published training code draws, in the same proportions; each setting that departs from it says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from training.datasets.polygons import Rasteriser, polygon_fault, polygon_mask
from training.datasets.removal import Removal, read_removal
from training.datasets.samples import (
    BadRecord,
    BadRecords,
    DataError,
    Policy,
    Sample,
    SampleSource,
    StrictSettings,
    Support,
    check_size,
    field,
    read_json,
    read_pixels,
)

SPLITS = ('train', 'val', 'test', 'miniv')
#: Pictures whose size is not the one in the annotations; CLIPSeg's code leaves them out.
KNOWN_BAD_SIZES = frozenset(
    [61530, 61564, 150333, 150344, 150417, 150516, 285665, 285743, 285761,
     285814, 286065, 286093, 498010, 498042, 498187, 498246, 498269]
)  # fmt: skip
#: Share of the picture that the object must fill in a random crop, and how many are tried.
CROP_SHARE, CROP_TRIES = 0.05, 50
#: Phrases drawn before it is said that there is no negative for a picture.
NEGATIVE_TRIES = 1000
#: Examples drawn before a sample goes without a support image.
SUPPORT_TRIES = 20


class PhraseCutSettings(StrictSettings):
    """What is read and drawn; the defaults are CLIPSeg's configuration for PhraseCut alone."""

    folder: Path = Field(description='VGPhraseCut_v0')
    split: str = Field('train', description="one of the publisher's splits, or several: val_miniv")
    negatives: float = Field(0.0, ge=0, le=1, description='probability of a false phrase (q_neg)')
    visual: bool = Field(False, description='give support images of phrases that are not unique')
    only_visual: bool = Field(False, description='leave out samples whose phrase is unique')
    crop: Literal['random', 'none'] = Field(
        'random', description='square crops that show the object, or whole pictures (evaluation)'
    )
    min_size: float = Field(0.0, ge=0, lt=1, description='boxes fill more than this share')
    remove: str | None = Field(
        None, description='pascal5i/0 … pascal5i/3, zero-shot/2 … zero-shot/10, or affordances'
    )
    known_bad_sizes: bool = Field(
        False, description='read the 17 pictures that the published code leaves out: a deviation'
    )
    strict_negatives: bool = Field(
        False, description='draw no false phrase that is true of the picture: a deviation'
    )
    support_is_another: bool = Field(
        False, description='never give the picture itself as its support: a deviation'
    )
    rasteriser: Rasteriser = Field(
        'points', description="pillow fills polygons as PhraseCut's own code: a deviation"
    )
    check_polygons: bool = Field(
        False, description='records with polygons without area or that cross themselves are broken'
    )
    bad_records: Policy = Field('raise', description='what to do about broken records')

    @field_validator('split')
    @classmethod
    def _known_splits(cls, value: str) -> str:
        unknown = set(value.split('_')) - set(SPLITS)
        if unknown:
            raise ValueError(f'no split {sorted(unknown)}; there are {", ".join(SPLITS)}')
        return value

    @model_validator(mode='after')
    def _visual_where_only_visual(self) -> PhraseCutSettings:
        if self.only_visual and not self.visual:
            raise ValueError('only_visual needs visual: samples would have no prompt image')
        return self


def phrasecut_plus(folder: Path, split: str = 'train', **changes: Any) -> PhraseCutSettings:
    """Return the settings of PhraseCut+: a fifth of negatives, and support images."""
    return PhraseCutSettings(
        **{'folder': folder, 'split': split, 'negatives': 0.2, 'visual': True, **changes}
    )


class PhraseCut(SampleSource):
    """The phrases of PhraseCut with their regions.

    Raises:
        DataError: A file is missing or unreadable, or no sample is left.
        BadRecord: A record is broken or its picture missing, and ``bad_records`` is ``raise``.

    Attributes:
        phrases: Phrase of each sample that was read, before ``only_visual`` and ``min_size``.
        by_phrase: Those samples that share a phrase.
    """

    def __init__(self, settings: PhraseCutSettings) -> None:
        self.settings = settings
        self.problems = BadRecords(settings.bad_records)
        self.phrases: list[str] = []
        self._keys: list[str] = []
        self._images: list[int] = []
        self._box_shares: list[float] = []
        self._sizes = self._read_sizes()
        # One array for all corners: 300,000 phrases would else be millions of Python objects.
        self._polygon_rows: list[tuple[int, int]] = []
        corners: list[NDArray[np.float64]] = []
        for name in settings.split.split('_'):
            self._read_tasks(settings.folder / f'refer_{name}.json', corners)
        self._corners = np.concatenate(corners) if corners else np.zeros((0, 2))
        self._starts = np.cumsum([0, *(len(points) for points in corners)], dtype=np.int64)
        self.by_phrase: dict[str, list[int]] = defaultdict(list)
        self._of_image: dict[int, list[int]] = defaultdict(list)
        for sample, phrase in enumerate(self.phrases):
            self.by_phrase[phrase].append(sample)
            self._of_image[self._images[sample]].append(sample)
        self._distinct = sorted(self.by_phrase)
        self._shown = [sample for sample in range(len(self.phrases)) if self._is_shown(sample)]
        if not self._shown:
            raise self.problems.nothing_left(settings.folder, settings)

    def __len__(self) -> int:
        return len(self._shown)

    def key(self, index: int) -> str:
        """Return the publisher's task id."""
        return self._keys[self._shown[index]]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample: crop, then false phrase, then support image, as in CLIPSeg's code."""
        sample = self._shown[index]
        image, mask = self._picture(sample, rng)
        phrase, negative = self.phrases[sample], False
        if rng.random() < self.settings.negatives:
            phrase, negative = self._false_phrase(sample, rng), True
            mask = np.zeros_like(mask)
        support = self._support(phrase, sample, rng) if self.settings.visual else None
        return Sample(self._keys[sample], phrase, image, mask, support=support, negative=negative)

    def _read_sizes(self) -> dict[int, tuple[int, int]]:
        path = self.settings.folder / 'image_data_split3000.json'
        records = read_json(path, "get it with PhraseCut's download_dataset.py (docs/datasets.md)")
        sizes = {}
        for number, record in enumerate(records):
            where = f'{path}, record {number},'
            with self.problems.counted():
                image = field(record, 'image_id', int, where)
                size = tuple(field(record, name, int, where) for name in ('height', 'width'))
                sizes[image] = (size[0], size[1])
        return sizes

    def _read_tasks(self, path: Path, corners: list[NDArray[np.float64]]) -> None:
        records = read_json(path, "get it with PhraseCut's download_dataset.py (docs/datasets.md)")
        if not isinstance(records, list):
            raise DataError(f'{path} is no list of tasks but {type(records).__name__}')
        folder = self.settings.folder / 'images'
        present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        removal = read_removal(self.settings.remove) if self.settings.remove else None
        for number, record in enumerate(records):
            with self.problems.counted():
                self._read_task(record, f'{path}, record {number},', present, removal, corners)

    def _read_task(
        self,
        record: Any,
        where: str,
        present: set[str],
        removal: Removal | None,
        corners: list[NDArray[np.float64]],
    ) -> None:
        key = str(field(record, 'task_id', (str, int), where))
        where = f'{where} task {key},'
        image = field(record, 'image_id', int, where)
        if image in KNOWN_BAD_SIZES and not self.settings.known_bad_sizes:
            return
        phrase = field(record, 'phrase', str, where)
        if removal is not None and removal.removes(phrase):
            return
        if not phrase.strip():
            raise BadRecord('malformed record', f'{where} has a blank phrase')
        if image not in self._sizes:
            raise BadRecord(
                'unknown image', f'{where} is of image {image}, which image_data does not list'
            )
        if f'{image}.jpg' not in present:
            raise BadRecord(
                'missing image',
                f'{self.settings.folder / "images" / f"{image}.jpg"} does not exist, and {where} '
                'needs it',
            )
        polygons = list(self._polygons(field(record, 'Polygons', list, where), where))
        boxes = field(record, 'instance_boxes', list, where)
        height, width = self._sizes[image]
        try:
            share = sum(float(box[2]) * float(box[3]) for box in boxes) / (height * width)
        except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
            raise BadRecord('malformed record', f'{where} has no usable boxes: {error}') from error
        self._polygon_rows.append((len(corners), len(corners) + len(polygons)))
        corners += polygons
        self.phrases.append(phrase)
        self._keys.append(key)
        self._images.append(image)
        self._box_shares.append(share)

    def _polygons(self, instances: list[Any], where: str) -> Iterable[NDArray[np.float64]]:
        for instance in instances:
            for listed in instance:
                try:
                    points = np.array(listed, np.float64).reshape(-1, 2)
                except (TypeError, ValueError) as error:
                    raise BadRecord(
                        'bad polygon', f'{where} has a polygon that is no list of x, y: {error}'
                    ) from error
                fault = polygon_fault(points) if self.settings.check_polygons else None
                if fault is not None:
                    raise BadRecord('bad polygon', f'{where} has a polygon that {fault}')
                if len(points):
                    yield points

    def _is_shown(self, sample: int) -> bool:
        if self.settings.only_visual and len(self.by_phrase[self.phrases[sample]]) < 2:
            return False
        return self._box_shares[sample] > self.settings.min_size

    def _mask(self, sample: int) -> NDArray[np.bool_]:
        first, last = self._polygon_rows[sample]
        bounds = pairwise(self._starts[first : last + 1])
        polygons = [self._corners[start:end] for start, end in bounds]
        height, width = self._sizes[self._images[sample]]
        return polygon_mask(polygons, height, width, self.settings.rasteriser)

    def _picture(
        self, sample: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        record = f'task {self._keys[sample]}'
        path = self.settings.folder / 'images' / f'{self._images[sample]}.jpg'
        image = read_pixels(path, record)
        check_size(image.shape, self._sizes[self._images[sample]], path, record)
        mask = self._mask(sample)
        if self.settings.crop == 'random':
            part = square_crop(mask, rng)
            image, mask = image[part], mask[part]
        return image, mask

    def _false_phrase(self, sample: int, rng: np.random.Generator) -> str:
        own = self.phrases[sample]
        true = [set(self.phrases[i].split()) for i in self._of_image[self._images[sample]]]
        for _ in range(NEGATIVE_TRIES):
            phrase = self._distinct[rng.integers(len(self._distinct))]
            if phrase == own:
                continue
            # "car" is true where "red car" is.
            words = set(phrase.split())
            if not (self.settings.strict_negatives and any(words <= known for known in true)):
                return phrase
        raise DataError(
            f'no false phrase was found for task {self._keys[sample]} among '
            f'{len(self._distinct)} phrases: lower negatives, or read more data'
        )

    def _support(self, phrase: str, sample: int, rng: np.random.Generator) -> Support | None:
        sharing = self.by_phrase[phrase]
        if len(sharing) < 2:
            return None
        for _ in range(SUPPORT_TRIES):
            other = sharing[rng.integers(len(sharing))]
            if other == sample and self.settings.support_is_another:
                continue
            with self.problems.counted():
                image, mask = self._picture(other, rng)
                if mask.any():
                    return Support(self._keys[other], image, mask)
                self.problems.note(
                    'empty support', f'task {self._keys[other]} shows no pixel of {phrase!r}'
                )
        return None


def square_crop(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[slice, slice]:
    """Draw rows and columns of a square of the picture's shorter side that shows the object.

    Of up to :data:`CROP_TRIES` squares the first is taken in which the object fills more than
    :data:`CROP_SHARE` of the whole picture's area, else the one that shows most of it.
    """
    height, width = mask.shape
    side = min(height, width)
    least = CROP_SHARE * height * width
    # The square spans the shorter side, so counts along the longer one are enough.
    until = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=int(height > width)))])
    best, most = (slice(0, side), slice(0, side)), -1
    for _ in range(CROP_TRIES):
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        start = max(top, left)
        shown = int(until[start + side] - until[start])
        if shown > most:
            best, most = (slice(top, top + side), slice(left, left + side)), shown
        if shown > least:
            break
    return best
