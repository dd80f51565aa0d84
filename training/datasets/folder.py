"""Any folder of pictures and masks: one's own data, without a format to learn.

    my_data/images/kitchen1.jpg
    my_data/masks/red mug/kitchen1.png     where "red mug" is true of kitchen1.jpg
    my_data/masks/red mug/kitchen2.png
    my_data/masks/spoon/kitchen1.png

A mask is on where its image is brighter than half. A phrase without a mask for a picture is taken
to be absent from it, unless ``unlabelled`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clipseg_model.images import IMAGE_SUFFIXES
from training.datasets.named import NamedSamples, NamedSettings
from training.datasets.samples import BadRecord, BadRecords, DataError, check_size, read_pixels


class FolderSettings(NamedSettings):
    """A folder with ``images`` and ``masks/PHRASE``."""

    folder: Path = Field(description='with images/NAME.jpg and masks/PHRASE/NAME.png')
    unlabelled: Literal['absent', 'unknown'] = Field(
        'absent', description='what a phrase is that a picture has no mask for'
    )
    only: list[str] | None = Field(
        None, description='names of pictures to read, without suffix; all by default'
    )


class FolderData(NamedSamples):
    """Phrases and masks of a folder; an empty mask is a sample that says that the phrase is absent.

    Raises:
        DataError: There is no such folder, two pictures have the same name, or there is no mask.
        BadRecord: A mask has no picture, and ``settings.bad_records`` is ``raise``.
    """

    def __init__(self, settings: FolderSettings) -> None:
        super().__init__(settings, BadRecords(settings.bad_records))
        self.unlabelled = settings.unlabelled
        root = settings.folder
        for part in ('images', 'masks'):
            if not (root / part).is_dir():
                raise DataError(
                    f'{root / part} does not exist: put pictures in {root}/images and masks in '
                    f'{root}/masks/PHRASE, named as their pictures'
                )
        self.pictures: list[Path] = []
        number_of: dict[str, int] = {}
        for path in sorted((root / 'images').iterdir()):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if path.stem in number_of:
                raise DataError(f'{root}/images has two pictures named {path.stem}: rename one')
            number_of[path.stem] = len(self.pictures)
            self.pictures.append(path)
        phrases = [path for path in sorted((root / 'masks').iterdir()) if path.is_dir()]
        self._masks: dict[tuple[int, int], Path] = {}
        for number, folder in enumerate(phrases):
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                if path.stem in number_of:
                    self._masks[number_of[path.stem], number] = path
                else:
                    self.problems.found(
                        BadRecord('missing image', f'{path} has no picture in {root}/images')
                    )
        only = None if settings.only is None else set(settings.only)
        items = [
            key for key in sorted(self._masks) if only is None or self.pictures[key[0]].stem in only
        ]
        self.index(items, {number: path.name for number, path in enumerate(phrases)}, root)

    def picture_name(self, picture: int) -> str:
        """Return the picture's file name."""
        return self.pictures[picture].name

    def absent(self, picture: int) -> Collection[int]:
        """Return the phrases without a mask, where that means absence."""
        return [] if self.unlabelled == 'unknown' else super().absent(picture)

    def read(self, picture: int, number: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], None]:
        """Read a picture and a mask."""
        path = self._masks[picture, number]
        image = read_pixels(self.pictures[picture], str(path))
        mask = read_pixels(path, str(self.pictures[picture])).max(axis=2) > 127
        check_size(mask.shape, image.shape[:2], path, str(self.pictures[picture]))
        return image, mask, None
