"""Pascal VOC 2012 with SBD's annotations: Pascal-5i, one-shot and zero-shot, and zero-shot splits.

Read are the publishers' folders: ``VOCdevkit/VOC2012`` and, for training, ``dataset`` of SBD's
``benchmark_RELEASE`` (Hariharan et al. 2011), whose labels are MATLAB files; or a folder
``SegmentationClassAug`` in VOC2012, into which others have converted both.

Pascal-5i (Shaban et al. 2017) holds out classes 5·fold + 1 … 5·fold + 5. As in PFENet's code, whose
protocol CLIPSeg uses, a picture is taken if one of the classes fills 2,048 pixels of it, each
picture is asked once, for a random one of its classes, and supports fill as many pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from training.datasets.named import NamedSamples, NamedSettings
from training.datasets.samples import (
    BadRecord,
    BadRecords,
    DataError,
    check_size,
    read_labels,
    read_pixels,
)

#: Label of the rims of objects and of what was not labelled.
IGNORED = 255
#: Names as the data set has them: what CLIPSeg's published code asks for.
VOC_NAMES = (
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
    'train', 'tvmonitor',
)  # fmt: skip
#: The same in words.
WORDS = {11: 'dining table', 16: 'potted plant', 20: 'tv monitor'}
#: The zero-shot test of CLIPSeg takes its names from JoEm's code, where one differs.
ZERO_SHOT_WORDS = {1: 'airplane'}
#: Classes that the zero-shot splits hold out, a pair more each.
UNSEEN_ORDER = (10, 14, 1, 18, 8, 20, 19, 5, 9, 16)
#: The classes that JoEm's lists hold out, by how many; CLIPSeg's published script looks them up by
#: the number of pairs.
JOEM_LISTS = {1: (20,), 2: (10, 14), 4: (1, 10, 14, 18), 5: (16, 17, 18, 19, 20)}
FOLDS = 4
MIN_PIXELS = 2 * 32 * 32


class PascalSettings(NamedSettings):
    """A fold of Pascal-5i."""

    folder: Path = Field(description='VOCdevkit/VOC2012')
    sbd: Path | None = Field(None, description="SBD's folder dataset, for training")
    fold: int = Field(ge=0, lt=FOLDS)
    split: Literal['train', 'val'] = Field(
        description='train: the 15 other classes; val: the five classes of the fold'
    )
    min_pixels: int = Field(MIN_PIXELS, ge=1)
    names: Literal['voc', 'words'] = Field(
        'voc', description='words says "dining table" for "diningtable": a deviation'
    )

    @model_validator(mode='after')
    def _labels_for_training(self) -> PascalSettings:
        augmented = (self.folder / 'SegmentationClassAug').is_dir()
        if self.split == 'train' and self.sbd is None and not augmented:
            raise ValueError(
                f"training needs sbd (SBD's folder dataset), or {self.folder}/SegmentationClassAug"
            )
        return self


class Labels:
    """Pictures and class maps of ``VOCdevkit/VOC2012`` and SBD's ``dataset``; DataError if not."""

    def __init__(self, folder: Path, sbd: Path | None = None) -> None:
        self.folder = folder
        self.sbd = sbd
        for part in ('JPEGImages', 'ImageSets/Segmentation'):
            if not (folder / part).is_dir():
                raise DataError(
                    f'{folder / part} does not exist: name the folder VOCdevkit/VOC2012'
                )

    def listed(self, split: Literal['train', 'val']) -> list[str]:
        """Return a split's pictures: to train, VOC's, and SBD's without VOC's val; or DataError."""
        names = self._list(self.folder / 'ImageSets' / 'Segmentation' / f'{split}.txt')
        if split == 'val':
            return names
        if self.sbd is not None:
            more = self._list(self.sbd / 'train.txt')
        elif (self.folder / 'SegmentationClassAug').is_dir():
            more = [
                path.stem for path in sorted((self.folder / 'SegmentationClassAug').glob('*.png'))
            ]
        else:
            more = []
        tested = set(self.listed('val'))
        return list(dict.fromkeys([*names, *(name for name in more if name not in tested)]))

    def image(self, name: str) -> NDArray[np.uint8]:
        """Read a picture, uint8 (H, W, 3)."""
        return read_pixels(self.folder / 'JPEGImages' / f'{name}.jpg', f'picture {name}')

    def labels(self, name: str) -> NDArray[np.uint8]:
        """Read the classes of pixels, uint8 (H, W): 0 … 20, 255 for what does not count.

        VOC's finer labels come before SBD's; BadRecord where there are none or they are broken.
        """
        augmented = self.folder / 'SegmentationClassAug' / f'{name}.png'
        own = self.folder / 'SegmentationClass' / f'{name}.png'
        found = None if self.sbd is None else self.sbd / 'cls' / f'{name}.mat'
        path = augmented if augmented.is_file() else own
        if path is own and not own.is_file() and found is not None:
            path = found
            labels = self._matlab(found, name)
        else:
            labels = read_labels(path, f'picture {name}')
        strange = set(np.unique(labels).tolist()) - {*range(len(VOC_NAMES)), IGNORED}
        if strange:
            raise BadRecord('unknown class', f'{path} has classes {sorted(strange)}; VOC has 0…20')
        return labels

    def both(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read a picture and its classes, and make sure that they fit."""
        image, labels = self.image(name), self.labels(name)
        path = self.folder / 'JPEGImages' / f'{name}.jpg'
        check_size(image.shape, labels.shape, path, f'picture {name}')
        return image, labels

    def _matlab(self, path: Path, name: str) -> NDArray[np.uint8]:
        if not path.is_file():
            raise BadRecord('missing labels', f'{path} does not exist, and picture {name} needs it')
        try:
            return np.asarray(loadmat(path)['GTcls'][0, 0]['Segmentation'], np.uint8)
        except (
            MatReadError,
            ValueError,
            LookupError,
            TypeError,
            OSError,
            NotImplementedError,
        ) as error:
            raise BadRecord(
                'unreadable labels', f'{path} has no GTcls.Segmentation of SBD: {error!r}'
            ) from error

    def _list(self, path: Path) -> list[str]:
        if not path.is_file():
            raise DataError(f'{path} does not exist: it lists the pictures of a split')
        return path.read_text().split()


class Pascal5i(NamedSamples):
    """A fold of Pascal-5i: with ``visual`` the one-shot protocol, without it the zero-shot one.

    Raises:
        DataError: The folder is not VOC 2012's, or holds no sample.
        BadRecord: Labels are missing or broken, and ``settings.bad_records`` is ``raise``.
    """

    def __init__(self, settings: PascalSettings) -> None:
        super().__init__(settings, BadRecords(settings.bad_records))
        self.source = Labels(settings.folder, settings.sbd)
        held_out = range(5 * settings.fold + 1, 5 * settings.fold + 6)
        tested = settings.split == 'val'
        asked = [n for n in range(1, len(VOC_NAMES)) if (n in held_out) == tested]
        self.pictures: list[str] = []
        items, large = [], []
        for name in self.source.listed(settings.split):
            with self.problems.counted():
                counts = np.bincount(self.source.labels(name).ravel(), minlength=256)
                enough = [number for number in asked if counts[number] >= settings.min_pixels]
                if enough:
                    picture = len(self.pictures)
                    self.pictures.append(name)
                    items += [(picture, number) for number in asked if counts[number]]
                    large += [(picture, number) for number in enough]
        words = WORDS if settings.names == 'words' else {}
        names = {number: words.get(number, VOC_NAMES[number]) for number in asked}
        self.index(items, names, settings.folder, large)

    def picture_name(self, picture: int) -> str:
        """Return the picture's name without suffix."""
        return self.pictures[picture]

    def read(
        self, picture: int, number: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
        """Read a picture, where the class is, and what counts."""
        image, labels = self.source.both(self.pictures[picture])
        return image, labels == number, labels != IGNORED

    def protocol(self, seed: int = 0) -> list[int]:
        """Draw PFENet's test, indices for :meth:`each`: every picture, for one of its classes."""
        rng = np.random.default_rng(seed)
        of_picture: dict[int, list[int]] = defaultdict(list)
        for index, (picture, _) in enumerate(self.items):
            of_picture[picture].append(index)
        return [indices[rng.integers(len(indices))] for indices in of_picture.values()]


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture with the class of each of its pixels."""

    key: str
    image: NDArray[np.uint8]  #: RGB (H, W, 3)
    labels: NDArray[np.uint8]  #: (H, W), 0 … 20, 255 for what does not count


class PascalZeroShot:
    """Pascal zero-shot: VOC's val split, all classes at once, some of them unseen in training.

    Args:
        folder: ``VOCdevkit/VOC2012``.
        unseen: How many classes training held out: 2, 4, 6, 8 or 10. Train on PhraseCut with
            ``remove='zero-shot/N'`` for the same N.
        bad_records: What to do about broken ones.

    Raises:
        DataError: The folder is not VOC 2012's.
        ValueError: There is no such split.

    Attributes:
        names: Phrase of each class, the background first.
        unseen: Numbers of the classes that training held out, sorted.
        seen: All others, the background among them.
        published_list: Numbers of the classes that CLIPSeg's published script takes for those that
            training held out; empty where it knows none.
    """

    def __init__(
        self, folder: Path, unseen: int, bad_records: Literal['raise', 'skip'] = 'raise'
    ) -> None:
        if unseen not in (2, 4, 6, 8, 10):
            raise ValueError(f'the splits hold out 2, 4, 6, 8 or 10 classes, not {unseen}')
        self.problems = BadRecords(bad_records)
        self.source = Labels(folder)
        self.names = [ZERO_SHOT_WORDS.get(n, name) for n, name in enumerate(VOC_NAMES)]
        self.unseen = sorted(UNSEEN_ORDER[:unseen])
        self.seen = [number for number in range(len(VOC_NAMES)) if number not in self.unseen]
        self.published_list = list(JOEM_LISTS.get(unseen // 2, ()))
        self.pictures = self.source.listed('val')

    def __len__(self) -> int:
        return len(self.pictures)

    def each(self, indices: Iterable[int] | None = None) -> Iterator[Scene]:
        """Yield scenes in order, those of ``indices`` or all; broken ones are left out."""
        for index in range(len(self)) if indices is None else indices:
            with self.problems.counted():
                name = self.pictures[index]
                yield Scene(name, *self.source.both(name))
