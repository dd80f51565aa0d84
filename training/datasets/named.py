"""Samples of data sets whose pictures show things of named classes.

A sample asks for one class in one picture that shows it, its support image shows the class in
another picture, and a negative asks for a class that the picture is known not to show.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.datasets.phrasecut import SUPPORT_TRIES, square_crop
from training.datasets.samples import (
    BadRecords,
    DataError,
    Policy,
    Sample,
    SampleSource,
    StrictSettings,
    Support,
    check_phrase,
)


class NamedSettings(StrictSettings):
    """What is drawn around a picture and a class."""

    negatives: float = Field(0.0, ge=0, le=1, description='probability of a class that is absent')
    visual: bool = Field(False, description='give support images')
    crop: Literal['random', 'none'] = Field(
        'none', description='square crops that show the object, or whole pictures'
    )
    draw: Literal['pictures', 'classes'] = Field(
        'pictures',
        description='training reads every picture with every class that it shows, once an epoch; '
        'or it draws a class, each as often, then a picture of it (HSNet)',
    )
    bad_records: Policy = Field('raise', description='what to do about broken records')


class NamedSamples(SampleSource):
    """Base of the data sets with classes.

    Attributes:
        items: (picture, class) of each sample.
        names: Phrase of each class.
    """

    def __init__(self, settings: NamedSettings, problems: BadRecords) -> None:
        self.settings = settings
        self.problems = problems
        self.items: list[tuple[int, int]] = []
        self.names: dict[int, str] = {}
        self._showing: dict[int, list[int]] = defaultdict(list)
        self._shown: dict[int, set[int]] = defaultdict(set)

    def index(
        self,
        items: Sequence[tuple[int, int]],
        names: dict[int, str],
        where: object,
        supports: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Take the samples that the files hold.

        Args:
            items: (picture, class) of each sample.
            names: Phrase of each class.
            where: Names the data set, for messages.
            supports: (picture, class) that may be support images; the samples by default.

        Raises:
            DataError: There is none, or negatives are asked for and there is one class.
            BadRecord: A name is too long for the text tower, and broken records are raised.
        """
        sound = set()
        for number in sorted({number for _, number in items}):
            with self.problems.counted():
                check_phrase(names[number], f'{where}, class {number},')
                sound.add(number)
        items = [item for item in items if item[1] in sound]
        if not items:
            raise DataError(f'{where} has no sample; {self.problems.summary()}'.rstrip('; '))
        self.items, self.names = list(items), names
        for picture, number in items:
            self._shown[picture].add(number)
        for picture, number in items if supports is None else supports:
            self._showing[number].append(picture)
        self._asked = sorted({number for _, number in items})
        of_class: dict[int, list[int]] = defaultdict(list)
        for index, (_, number) in enumerate(items):
            of_class[number].append(index)
        #: Samples of each class.
        self._of_class = [of_class[number] for number in self._asked]
        if self.settings.negatives and len(self._asked) < 2:
            raise DataError(f'{where} has one class, {names[self._asked[0]]!r}: no negatives')

    def __len__(self) -> int:
        return len(self.items)

    def key(self, index: int) -> str:
        """Return the picture's name and the class."""
        picture, number = self.items[index]
        return f'{self.picture_name(picture)}#{self.names[number]}'

    @abstractmethod
    def picture_name(self, picture: int) -> str:
        """Return what identifies a picture in its data set."""

    @abstractmethod
    def read(
        self, picture: int, number: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Read a picture, or raise BadRecord.

        Returns:
            Its pixels, uint8 (H, W, 3), where the class is, bool (H, W), and which pixels count,
            bool (H, W), or None where all do.
        """

    def absent(self, picture: int) -> Collection[int]:
        """Return the classes that a picture is known not to show."""
        return [number for number in self._asked if number not in self._shown[picture]]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample: crop, then perhaps an absent class, then its support image."""
        picture, number = self.items[index]
        image, mask, valid = self.read(picture, number)
        if self.settings.crop == 'random':
            part = square_crop(mask, rng)
            image, mask = image[part], mask[part]
            valid = None if valid is None else valid[part]
        negative = rng.random() < self.settings.negatives
        absent = sorted(self.absent(picture)) if negative else []
        if absent:
            number = absent[rng.integers(len(absent))]
            mask = np.zeros_like(mask)
        support = self._support(number, picture, rng) if self.settings.visual else None
        return Sample(
            self.key(index),
            self.names[number],
            image,
            mask,
            valid,
            support,
            class_id=number,
            negative=bool(absent),
        )

    def draw(self, index: int, rng: np.random.Generator) -> Sample:
        """See :meth:`SampleSource.draw`; where classes are drawn, ``rng`` alone decides."""
        if self.settings.draw == 'classes':
            index = self._episode(rng)
        return super().draw(index, rng)

    def _episode(self, rng: np.random.Generator) -> int:
        of_class = self._of_class[rng.integers(len(self._of_class))]
        return of_class[rng.integers(len(of_class))]

    def episodes(self, count: int, seed: int = 0) -> list[int]:
        """Draw indices for :meth:`each` as few-shot tests do: a class, then a picture of it."""
        rng = np.random.default_rng(seed)
        return [self._episode(rng) for _ in range(count)]

    def _support(self, number: int, picture: int, rng: np.random.Generator) -> Support | None:
        others = [other for other in self._showing[number] if other != picture]
        for _ in range(SUPPORT_TRIES if others else 0):
            other = others[rng.integers(len(others))]
            with self.problems.counted():
                image, mask, _ = self.read(other, number)
                if self.settings.crop == 'random':
                    part = square_crop(mask, rng)
                    image, mask = image[part], mask[part]
                if mask.any():
                    return Support(self.picture_name(other), image, mask)
                self.problems.note(
                    'empty support', f'{self.picture_name(other)} shows no {self.names[number]!r}'
                )
        return None
