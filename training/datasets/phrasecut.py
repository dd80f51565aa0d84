"""PhraseCut (Wu et al. 2020) and CLIPSeg's extension of it, PhraseCut+, from the publisher's files.

The folder is ``VGPhraseCut_v0`` as PhraseCut's downloader fills it: ``image_data_split.json`` (or
``image_data_split3000.json``), ``refer_SPLIT.json`` and ``images/ID.jpg``. PhraseCut+ (CLIPSeg,
section 4, "PhraseCut + Visual prompts") adds negatives and support images that share the phrase.
What is drawn is what CLIPSeg's published training code draws, in the same proportions; each setting
that departs from it says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from training.datasets.phrasecut_files.arrays import Groups, SamplePhrases
from training.datasets.phrasecut_files.index import TYPES, SplitIndex, open_splits, part_of
from training.datasets.phrasecut_files.records import EMPTY
from training.datasets.phrasecut_files.subsets import Ranks, Structure
from training.datasets.polygons import Rasteriser, polygon_fault, polygon_mask
from training.datasets.removal import read_removal
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

    What the files hold is mapped into memory (:mod:`training.datasets.phrasecut_files.index`); for
    itself, a process needs some bytes a sample.

    Raises:
        DataError: A file is missing or unreadable, or no sample is left.
        BadRecord: A record is broken or its picture missing, and ``bad_records`` is ``raise``.

    Attributes:
        phrases: Phrase of each sample that was read, before ``only_visual`` and ``min_size``.
    """

    def __init__(self, settings: PhraseCutSettings) -> None:
        self.settings = settings
        self.problems = BadRecords(settings.bad_records)
        self._parts, firsts = open_splits(settings.folder, settings.split.split('_'))
        self._firsts = firsts.tolist()
        numbers, self._phrases = _one_list_of_phrases(self._parts)
        images = np.concatenate([part.images for part in self._parts])
        shares = np.concatenate([part.shares for part in self._parts])
        # Records that are samples, by number.
        self._records = self._sound(images, numbers)
        self._phrase = numbers[self._records]
        self._images = images[self._records]
        shares = shares[self._records]
        self.phrases: Sequence[str] = SamplePhrases(self._phrases, self._phrase)
        self._by_phrase = Groups.of(self._phrase)
        self._by_image = Groups.of(self._images)
        shown = shares > settings.min_size
        if settings.only_visual:
            shown &= self._by_phrase.sizes()[self._by_phrase.group] > 1
        self._shown = np.flatnonzero(shown)
        if not len(self._shown):
            raise self.problems.nothing_left(settings.folder, settings)

    def __len__(self) -> int:
        return len(self._shown)

    def key(self, index: int) -> str:
        """Return the publisher's task id."""
        return self._key(int(self._shown[index]))

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample: crop, then false phrase, then support image, as in CLIPSeg's code."""
        sample = int(self._shown[index])
        image, mask = self._picture(sample, rng)
        phrase, negative = int(self._phrase[sample]), False
        if rng.random() < self.settings.negatives:
            phrase, negative = self._false_phrase(sample, rng), True
            mask = np.zeros_like(mask)
        support = self._support(phrase, sample, rng) if self.settings.visual else None
        text = self._phrases[phrase]
        return Sample(self._key(sample), text, image, mask, support=support, negative=negative)

    def structure(self, index: int) -> Structure:
        """Return what the publisher says about the phrase of a sample."""
        part, record = self._place(int(self._shown[index]))
        names, attributes = part.names[record], part.attributes[record]
        relations, instances, kind = part.counts[record].tolist()
        listed = tuple(attributes.split('\n')) if attributes else ()
        return Structure(names, listed, relations, instances, TYPES[kind])

    @cached_property
    def ranks(self) -> Ranks:
        """Return how frequent categories and attributes are, or raise DataError."""
        return Ranks.read(self.settings.folder)

    def subsets(self, index: int, share: float) -> list[str]:
        """Return the publisher's subsets of a sample whose region fills this share, 0…1.

        Raises:
            DataError: ``name_att_rel_count.json`` is missing or of another layout.
        """
        return self.ranks.subsets(self.structure(index), share)

    def _sound(self, images: NDArray[np.int64], numbers: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the records that are samples; broken ones are raised or counted."""
        settings = self.settings
        keep = np.ones(len(images), bool)
        if not settings.known_bad_sizes:
            keep &= ~np.isin(images, sorted(KNOWN_BAD_SIZES))
        if settings.remove:
            removal = read_removal(settings.remove)
            removed = np.array([removal.removes(phrase) for phrase in self._phrases], bool)
            keep &= ~((numbers >= 0) & removed[numbers]) if len(removed) else True
        missing = keep & (images >= 0) & ~np.isin(images, _pictures(settings.folder / 'images'))
        broken = missing.copy()
        faults: dict[int, tuple[str, str]] = {}
        for part, first in zip(self._parts, self._firsts, strict=False):
            for number, kind, message in part.faults:
                faults[first + number] = kind, f'{part.path}, {message}'
                broken[first + number] = True
        for record in np.flatnonzero(broken & keep).tolist():
            part_number, number = part_of(self._firsts, record)
            part = self._parts[part_number]
            if record in faults:
                kind, message = faults[record]
                if kind == EMPTY and self._shows(part, number):
                    broken[record] = missing[record]
                    continue
                self.problems.found(BadRecord(kind, message))
            else:
                path = settings.folder / 'images' / f'{images[record]}.jpg'
                where = f'{part.path}, record {number}, task {part.keys[number]},'
                fault = f'{path} does not exist, and {where} needs it'
                self.problems.found(BadRecord('missing image', fault))
        keep &= ~broken
        if settings.check_polygons:
            self._check_polygons(keep)
        return np.flatnonzero(keep)

    def _shows(self, part: SplitIndex, record: int) -> bool:
        """Return whether a mask that is empty by the rule of points is not by Pillow's."""
        if self.settings.rasteriser == 'points' or not part.sizes[record].all():
            return False
        height, width = part.sizes[record].tolist()
        return bool(polygon_mask(part.polygons(record), height, width, 'pillow').any())

    def _check_polygons(self, keep: NDArray[np.bool_]) -> None:
        for record in np.flatnonzero(keep).tolist():
            part_number, number = part_of(self._firsts, record)
            part = self._parts[part_number]
            for points in part.polygons(number):
                fault = polygon_fault(points)
                if fault is not None:
                    keep[record] = False
                    where = f'{part.path}, record {number}, task {part.keys[number]},'
                    message = f'{where} has a polygon that {fault}'
                    self.problems.found(BadRecord('bad polygon', message))
                    break

    def _place(self, sample: int) -> tuple[SplitIndex, int]:
        part, record = part_of(self._firsts, int(self._records[sample]))
        return self._parts[part], record

    def _key(self, sample: int) -> str:
        part, record = self._place(sample)
        return part.keys[record]

    def _size(self, sample: int) -> tuple[int, int]:
        part, record = self._place(sample)
        height, width = part.sizes[record].tolist()
        return height, width

    def _mask(self, sample: int) -> NDArray[np.bool_]:
        part, record = self._place(sample)
        return polygon_mask(part.polygons(record), *self._size(sample), self.settings.rasteriser)

    def _picture(
        self, sample: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        record = f'task {self._key(sample)}'
        path = self.settings.folder / 'images' / f'{self._images[sample]}.jpg'
        image = read_pixels(path, record)
        check_size(image.shape, self._size(sample), path, record)
        mask = self._mask(sample)
        if self.settings.crop == 'random':
            part = square_crop(mask, rng)
            image, mask = image[part], mask[part]
        return image, mask

    def _false_phrase(self, sample: int, rng: np.random.Generator) -> int:
        own = self._phrase[sample]
        distinct = self._by_phrase.values
        true: list[set[str]] = []
        if self.settings.strict_negatives:
            here = self._by_image.members(int(self._by_image.group[sample]))
            true = [set(self.phrases[i].split()) for i in here]
        for _ in range(NEGATIVE_TRIES):
            phrase = int(distinct[rng.integers(len(distinct))])
            if phrase == own:
                continue
            # "car" is true where "red car" is.
            words = set(self._phrases[phrase].split()) if true else set()
            if not any(words <= known for known in true):
                return phrase
        raise DataError(
            f'no false phrase was found for task {self._key(sample)} among '
            f'{len(distinct)} phrases: lower negatives, or read more data'
        )

    def _support(self, phrase: int, sample: int, rng: np.random.Generator) -> Support | None:
        group = int(np.searchsorted(self._by_phrase.values, phrase))
        sharing = self._by_phrase.members(group)
        if len(sharing) < 2:
            return None
        for _ in range(SUPPORT_TRIES):
            other = int(sharing[rng.integers(len(sharing))])
            if other == sample and self.settings.support_is_another:
                continue
            with self.problems.counted():
                image, mask = self._picture(other, rng)
                if mask.any():
                    return Support(self._key(other), image, mask)
                self.problems.note(
                    'empty support',
                    f'task {self._key(other)} shows no pixel of {self._phrases[phrase]!r}',
                )
        return None


def _one_list_of_phrases(
    parts: Sequence[SplitIndex],
) -> tuple[NDArray[np.int32], Sequence[str]]:
    """Return the number of the phrase of each record, and the phrases, sorted, of all parts."""
    if len(parts) == 1:
        return np.asarray(parts[0].phrase), parts[0].phrases
    distinct = sorted({phrase for part in parts for phrase in part.phrases})
    number_of = {phrase: number for number, phrase in enumerate(distinct)}
    numbers = []
    for part in parts:
        # The last place is that of no phrase, -1.
        table = np.array([*(number_of[phrase] for phrase in part.phrases), -1], np.int32)
        numbers.append(table[part.phrase])
    return np.concatenate(numbers), distinct


def _pictures(folder: Path) -> NDArray[np.int64]:
    """Return the numbers of the pictures ``NUMBER.jpg`` that a folder has."""
    if not folder.is_dir():
        return np.zeros(0, np.int64)
    stems = (entry.name[:-4] for entry in os.scandir(folder) if entry.name.endswith('.jpg'))
    return np.array([int(stem) for stem in stems if stem.isascii() and stem.isdigit()], np.int64)


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
