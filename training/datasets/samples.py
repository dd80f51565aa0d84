"""Base of the data sets: samples, their sources, and what happens to broken records.

A data set is a :class:`SampleSource`: its samples have an index and a key, and
:meth:`SampleSource.draw` makes one of them from a random generator alone, so that a run with
generators from :func:`sample_rng` draws the same pictures in any process and order.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from clipseg_model.errors import ClipsegError

#: What to do about a broken record.
Policy = Literal['raise', 'skip']
#: Messages kept of each kind of broken record.
EXAMPLES = 5
#: Broken records in a row after which drawing gives up.
PATIENCE = 100


class DataError(ClipsegError):
    """A data set, or a record of it, is missing, broken, or not what its format says."""


class BadRecord(DataError):
    """One record is broken; others may be sound.

    Attributes:
        kind: Under which it is counted, for example ``missing image``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class BadRecords:
    """Raises broken records, or counts them.

    Args:
        policy: ``raise`` ends at the first one; ``skip`` goes on without it.

    Attributes:
        counts: How many of each kind.
        examples: The first messages of each kind, at most :data:`EXAMPLES`.
    """

    def __init__(self, policy: Policy = 'raise') -> None:
        if policy not in get_args(Policy):
            raise ValueError(f'broken records can be {get_args(Policy)}, not {policy!r}')
        self.policy = policy
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = defaultdict(list)

    def note(self, kind: str, message: str) -> None:
        """Count a record that is odd but usable."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(message)

    def found(self, record: BadRecord) -> None:
        """Raise the record, or count it, as the policy says."""
        if self.policy == 'raise':
            raise record
        self.note(record.kind, str(record))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Pass a record that the block finds broken to :meth:`found`; it ends the block."""
        try:
            yield
        except BadRecord as record:
            self.found(record)

    def summary(self) -> str:
        """Return the counts with an example of each kind, a line each; empty without any."""
        return '\n'.join(
            f'{kind}: {count}, for example {self.examples[kind][0]}'
            for kind, count in sorted(self.counts.items())
        )


class StrictSettings(BaseModel):
    """Base of the settings of a data set: unknown keys are errors, values are checked."""

    model_config = ConfigDict(extra='forbid', frozen=True)


@dataclass(frozen=True, eq=False)
class Support:
    """A picture that shows what is looked for.

    Attributes:
        key: Identifies it in its data set.
        image: uint8 RGB (H, W, 3).
        mask: bool (H, W), true on the example; never empty.
    """

    key: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture, a prompt and where it matches.

    Attributes:
        key: Identifies the sample in its data set, in logs and in error messages.
        phrase: What is looked for, without a caption around it.
        image: uint8 RGB (H, W, 3).
        mask: bool (H, W), where the phrase is true; all false for a negative.
        valid: bool (H, W), pixels that count, or None where all do.
        support: An example of the phrase in another picture, or None.
        class_id: Number of the phrase's class, where the data set has classes.
        negative: Whether the phrase was replaced by one that is not true of the picture.
        alpha: float32 (H, W), 0…1, where the truth is a matte; ``mask`` is then where it is at
            least one half.
    """

    key: str
    phrase: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    valid: NDArray[np.bool_] | None = None
    support: Support | None = None
    class_id: int | None = None
    negative: bool = False
    alpha: NDArray[np.float32] | None = None


class SampleSource(ABC):
    """Samples by index.

    Attributes:
        problems: What was found broken so far, in this process.
    """

    problems: BadRecords

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def key(self, index: int) -> str:
        """Return what identifies a sample in its data set."""

    @abstractmethod
    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample.

        Args:
            index: 0 … len - 1.
            rng: Source of everything that is random about it.

        Raises:
            BadRecord: It cannot be read.
        """

    def draw(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample for training; another one, drawn at random, where it is broken.

        Raises:
            BadRecord: It is broken, and the policy is to raise.
            DataError: The policy is to skip, and :data:`PATIENCE` in a row are broken.
        """
        for _ in range(PATIENCE):
            with self.problems.counted():
                return self.load(index, rng)
            index = int(rng.integers(len(self)))
        raise DataError(
            f'{PATIENCE} records in a row are broken; {self.problems.summary()}\n'
            'Check that the pictures belong to the annotations'
        )

    def each(self, seed: int = 0, indices: Iterable[int] | None = None) -> Iterator[Sample]:
        """Yield every sample once, in order, for evaluation; broken ones are left out.

        Args:
            seed: What is random about sample i is drawn from ``sample_rng(seed, 0, i)``.
            indices: Which, all by default; give each process its share.
        """
        for index in range(len(self)) if indices is None else indices:
            try:
                sample = self.load(index, sample_rng(seed, 0, index))
            except BadRecord as record:
                self.problems.found(record)
            else:
                yield sample


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one sample in one epoch."""
    return np.random.default_rng([seed, epoch, index])


def read_pixels(path: Path, record: str) -> NDArray[np.uint8]:
    """Read a picture as its annotators saw its pixels: EXIF orientation is not applied.

    Args:
        path: The file.
        record: Names the record that needs it, for messages.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        BadRecord: The file is missing or damaged.
    """
    return np.array(_opened(path, record, lambda image: image.convert('RGB')))


def read_labels(path: Path, record: str) -> NDArray[np.uint8]:
    """Read an image of numbers: the palette's indices, or the grey values, uint8 (H, W).

    Raises:
        BadRecord: The file is missing or damaged, or has colours instead of numbers.
    """
    values = np.array(_opened(path, record, lambda image: image))
    if values.dtype != np.uint8 or values.ndim != 2:
        raise BadRecord(
            'unreadable labels',
            f'{path}, which {record} needs, is {values.dtype} of shape {values.shape}, where one '
            '8-bit number a pixel is needed; was it saved in colour?',
        )
    return values


def _opened(path: Path, record: str, use: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if not path.is_file():
        raise BadRecord('missing image', f'{path} does not exist, and {record} needs it')
    try:
        with Image.open(path) as image:
            image.load()
            return use(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadRecord(
            'unreadable image', f'{path}, which {record} needs, cannot be read: {error}'
        ) from error


def check_size(shape: tuple[int, ...], expected: tuple[int, int], path: Path, record: str) -> None:
    """Make sure that a picture has the size that its annotations are for.

    Args:
        shape: The picture's, (H, W, …).
        expected: (height, width).
        path: The picture.
        record: Names the record.

    Raises:
        BadRecord: It has another size.
    """
    if tuple(shape[:2]) != tuple(expected):
        raise BadRecord(
            'wrong image size',
            f'{path} is {shape[1]} × {shape[0]} pixels, and {record} is annotated for '
            f'{expected[1]} × {expected[0]}: the picture is another version of it',
        )


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        remedy: What to do where it is missing, for the message.

    Raises:
        DataError: It is missing, or no JSON.
    """
    if not path.is_file():
        raise DataError(f'{path} does not exist: {remedy}')
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise DataError(
            f'{path} is no readable JSON ({error}): was its download cut off?'
        ) from error


def field(record: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return a field of a record from a JSON file.

    Args:
        record: The record.
        name: Of the field.
        kind: What it has to be.
        where: Names the file and the record, for messages.

    Raises:
        BadRecord: It is missing or of another type.
    """
    if not isinstance(record, dict) or name not in record:
        seen = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise BadRecord('malformed record', f'{where} has no {name!r}, only {seen}')
    value = record[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadRecord(
            'malformed record',
            f'{where} has {type(value).__name__} {str(value)[:60]!r} as {name!r}',
        )
    return value
