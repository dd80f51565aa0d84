"""The tabletop world the way PhraseCut and PhraseCut+ are: a picture, a phrase, where it is true.

Read are the folders that :mod:`training.bundled.render_scenes` writes. Unlike PhraseCut+ (CLIPSeg,
section 4), negatives are phrases that the world knows to be false of the view, a support is always
from another scene, and nothing is cropped, since pictures are square.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from training.datasets.samples import (
    BadRecord,
    BadRecords,
    DataError,
    Policy,
    Sample,
    SampleSource,
    StrictSettings,
    Support,
)
from training.datasets.tabletop import KIND_WEIGHTS, SUPPORT_FRACTION, TabletopViews

#: PhraseCut's phrases have no article, and captions bring their own.
_ARTICLE = re.compile(r'^(?:a|an|the) ')


class TabletopSettings(StrictSettings):
    """What is read and drawn; the defaults are PhraseCut's: no negatives, no support images."""

    folder: Path = Field(description='of the rendered splits')
    split: Literal['train', 'val', 'test', 'unseen_pairs', 'varied'] = Field(
        'train', description='its subfolder'
    )
    views: int | None = Field(None, gt=0, description='the first so many; all: null')
    phrases: int | None = Field(
        None, gt=0, description='so many of the phrases that are true of a view, of any kind; all: '
        'null'
    )  # fmt: skip
    kinds: tuple[str, ...] = Field(
        tuple(KIND_WEIGHTS), min_length=1, description='phrases of these kinds only'
    )
    negatives: float = Field(0.0, ge=0, le=1, description='probability of a false phrase (q_neg)')
    visual: bool = Field(False, description='give support images of phrases that are not unique')
    only_visual: bool = Field(False, description='leave out samples whose phrase is unique')
    min_size: float = Field(0.0, ge=0, lt=1, description='phrases fill more than this share')
    support_size: float = Field(
        SUPPORT_FRACTION, ge=0, lt=1, description='smallest share that a support fills'
    )
    bad_records: Policy = Field('raise', description='what to do about broken records')

    @field_validator('kinds')
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(value) - set(KIND_WEIGHTS)
        if unknown:
            raise ValueError(f'no kinds {sorted(unknown)}; there are {", ".join(KIND_WEIGHTS)}')
        return value


def tabletop_plus(folder: Path, split: str = 'train', **changes: Any) -> TabletopSettings:
    """Return the settings in the fashion of PhraseCut+: a fifth of negatives, support images."""
    values = {'folder': folder, 'split': split, 'negatives': 0.2, 'visual': True, **changes}
    return TabletopSettings(**values)


class TabletopPhrases(SampleSource):
    """The phrases of rendered views with their regions.

    Raises:
        DataError: The folder holds no rendered views, a file is damaged, or no sample is left.

    Attributes:
        by_phrase: Where each phrase is true and large enough for a support: (view, object ids).
    """

    def __init__(self, settings: TabletopSettings) -> None:
        self.settings = settings
        self.problems = BadRecords(settings.bad_records)
        folder = settings.folder / settings.split
        try:
            self.views = TabletopViews(folder, settings.views)
        except (OSError, ValueError) as error:
            raise DataError(f'the views in {folder} cannot be read: {error}') from error
        #: View, its phrase's number in the record.
        self._samples: list[tuple[int, int]] = []
        self.by_phrase: dict[str, list[tuple[int, list[int]]]] = defaultdict(list)
        for view in range(len(self.views)):
            with self.problems.counted():
                self._read_view(view)
        if settings.only_visual:
            self._samples = [
                (view, number)
                for view, number in self._samples
                if self._elsewhere(bare(self.views.records[view]['present'][number][0]), view)
            ]
        if not self._samples:
            raise self.problems.nothing_left(folder, settings)

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        """Return scene, camera and the phrase's number in the view's record."""
        view, number = self._samples[index]
        return f'{self._name(view)} phrase {number}'

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample: false phrase, then support image; BadRecord where none is false."""
        view, number = self._samples[index]
        record = self.views.records[view]
        text, _, ids = record['present'][number]
        negative = bool(rng.random() < self.settings.negatives)
        if negative:
            if not record['absent']:
                raise BadRecord(
                    'no false phrase',
                    f'{self._name(view)} in {self.settings.folder} lists no phrase as absent: '
                    'set negatives to 0',
                )
            text, ids = record['absent'][rng.integers(len(record['absent']))][0], []
        phrase = bare(text)
        support = self._support(phrase, view, rng) if self.settings.visual else None
        return Sample(
            self.key(index),
            phrase,
            np.array(self.views.rgb(view)),
            self.views.mask(view, ids),
            support=support,
            negative=negative,
        )

    def _name(self, view: int) -> str:
        record = self.views.records[view]
        return f'{self.settings.split} scene {record["seed"]} camera {record["camera"]}'

    def _read_view(self, view: int) -> None:
        record = self.views.records[view]
        try:
            sizes = {object_id: count for object_id, _, _, count in record['objects']}
            phrases = [
                (number, bare(text), kind, ids, sum(sizes[i] for i in ids) / self.views.size**2)
                for number, (text, kind, ids) in enumerate(record['present'])
            ]
            _ = record['seed'], record['camera'], record['absent']
        except (KeyError, TypeError, ValueError) as error:
            raise BadRecord(
                'malformed record',
                f'view {view} of {self.settings.folder / self.settings.split} is malformed '
                f'({error!r}): render it again with training.bundled.render_scenes',
            ) from error
        taken = 0
        for number, phrase, kind, ids, share in phrases:
            if share >= self.settings.support_size and share > 0:
                self.by_phrase[phrase].append((view, ids))
            wanted = kind in self.settings.kinds and share > self.settings.min_size
            # The renderer stored them in random order, so the first are a fair draw.
            if wanted and taken != self.settings.phrases:
                self._samples.append((view, number))
                taken += 1

    def _elsewhere(self, phrase: str, view: int) -> list[tuple[int, list[int]]]:
        """Return where a phrase is true in other scenes: other cameras show the same things."""
        records = self.views.records
        seed = records[view]['seed']
        return [
            place for place in self.by_phrase.get(phrase, ()) if records[place[0]]['seed'] != seed
        ]

    def _support(self, phrase: str, view: int, rng: np.random.Generator) -> Support | None:
        places = self._elsewhere(phrase, view)
        if not places:
            return None
        other, ids = places[rng.integers(len(places))]
        image, mask = np.array(self.views.rgb(other)), self.views.mask(other, ids)
        return Support(self._name(other), image, mask)


def bare(phrase: str) -> str:
    """Return a phrase without the article that it begins with, as PhraseCut's phrases are."""
    return _ARTICLE.sub('', phrase)
