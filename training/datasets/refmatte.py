"""RefMatte and RefMatte-RW100 (Li et al. 2023): mattes with keywords and expressions.

The publisher describes no layout; this is the one that public code for these files reads: a JSON
object by name of the matte, whose entries have ``image_name`` and ``expressions``, a folder of
pictures, and a folder of mattes (``NAME.png``): ``train/img`` and ``train/mask`` beside
``train/refmatte_train_label.json``; of RW100 ``image``, ``mask`` and ``refmatte_rw100_label.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clipseg_model.images import IMAGE_SUFFIXES
from training.datasets.samples import (
    BadRecord,
    BadRecords,
    DataError,
    Policy,
    Sample,
    SampleSource,
    StrictSettings,
    check_phrase,
    check_size,
    field,
    read_json,
    read_pixels,
)


class RefMatteSettings(StrictSettings):
    """Files and kind of prompt."""

    labels: Path = Field(description='refmatte_train_label.json, refmatte_rw100_label.json, …')
    images: Path = Field(description='folder of pictures')
    mattes: Path = Field(description='folder of mattes')
    prompt: Literal['expression', 'keyword'] = 'expression'
    keyword_field: str | None = Field(None, description="the entries' field with the keyword")
    chosen: Path | None = Field(
        None, description='eval_index_expression.json: the one expression asked of each picture'
    )
    bad_records: Policy = Field('raise', description='what to do about broken records')


class RefMatte(SampleSource):
    """Expressions, or keywords, with the matte that each is true of.

    Raises:
        DataError: A file is missing or unreadable, or there is no sample.
        BadRecord: An entry is broken, and ``settings.bad_records`` is ``raise``.
        ValueError: Keywords are asked for, and it is not said which field has them.
    """

    def __init__(self, settings: RefMatteSettings) -> None:
        self.settings = settings
        self.problems = BadRecords(settings.bad_records)
        entries = read_json(settings.labels, 'RefMatte is on request (docs/datasets.md)')
        if not isinstance(entries, dict) or not entries:
            raise DataError(f'{settings.labels} is no object of entries by name of the matte')
        if settings.prompt == 'keyword' and settings.keyword_field is None:
            seen = sorted(next(iter(entries.values())))
            raise ValueError(
                f'keywords need keyword_field; entries of {settings.labels} have {seen}'
            )
        self._chosen = None
        if settings.chosen is not None:
            self._chosen = read_json(settings.chosen, 'it comes with RefMatte-RW100')
        self._pictures = self._listed(settings.images)
        self._mattes = self._listed(settings.mattes)
        self._samples: list[tuple[str, str, str, int]] = []
        for name, entry in entries.items():
            with self.problems.counted():
                self._samples += self._prompts(name, entry)
        if not self._samples:
            raise DataError(f'{settings.labels} has no sample; {self.problems.summary()}')

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        """Return the matte's name and the number of its expression."""
        matte, _, _, number = self._samples[index]
        return f'{matte}#{number}'

    def matte(self, index: int) -> str:
        """Return the matte's name, by which errors are averaged before the mean over mattes."""
        return self._samples[index][0]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Read a picture and a matte; nothing about it is random."""
        matte, picture, phrase, _ = self._samples[index]
        path = self._mattes[matte]
        image = read_pixels(self._pictures[picture], self.key(index))
        values: NDArray[np.uint8] = read_pixels(path, self.key(index))
        check_size(values.shape, image.shape[:2], path, self._pictures[picture].name)
        alpha = values.max(axis=2).astype(np.float32) / 255
        return Sample(self.key(index), phrase, image, alpha >= 0.5, alpha=alpha)

    def _listed(self, folder: Path) -> dict[str, Path]:
        if not folder.is_dir():
            raise DataError(f'{folder} does not exist: say where the files are')
        files = sorted(folder.iterdir())
        return {path.stem: path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}

    def _prompts(self, name: str, entry: Any) -> list[tuple[str, str, str, int]]:
        where = f'{self.settings.labels}, {name!r},'
        picture = Path(str(field(entry, 'image_name', str, where))).stem
        for known, key, folder in (
            (self._pictures, picture, self.settings.images),
            (self._mattes, name, self.settings.mattes),
        ):
            if key not in known:
                raise BadRecord('missing image', f'{folder} has no {key!r}, which {where} needs')
        if self.settings.prompt == 'keyword':
            keyword = field(entry, str(self.settings.keyword_field), str, where)
            check_phrase(keyword, where)
            return [(name, picture, keyword, 0)]
        texts = field(entry, 'expressions', list, where)
        numbers = range(len(texts))
        if self._chosen is not None:
            number = field(self._chosen, entry['image_name'], int, str(self.settings.chosen))
            if number not in numbers:
                raise BadRecord(
                    'malformed record', f'{where} has {len(texts)} expressions, and not {number}'
                )
            numbers = range(number, number + 1)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise BadRecord('malformed record', f'{where} has blank expressions, or none')
        found = []
        for number in numbers:
            with self.problems.counted():
                check_phrase(texts[number], f'{where} expression {number},')
                found.append((name, picture, texts[number], number))
        return found
