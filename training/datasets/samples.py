"""Base of the data sets: samples, their sources, and what happens to broken records.

A data set is a :class:`SampleSource`: its samples have an index and a key, and
:meth:`SampleSource.draw` makes one of them from a random generator alone, so that a run with
generators from :func:`sample_rng` draws the same pictures in any process and order.
"""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from clipseg_model.errors import ClipsegError
from clipseg_model.images import FORMATS
from clipseg_model.prompting.templates import TEMPLATES

#: What to do about a broken record.
Policy = Literal['raise', 'skip']
#: Messages kept of each kind of broken record.
EXAMPLES = 5
#: Tokens that CLIP's text tower takes, its start and end among them.
CLIP_TOKENS = 77
#: Most bytes that a caption adds to a phrase, and the tokens of start and end.
LONGEST_CAPTION = 2 + max(len(text.encode()) for listed in TEMPLATES.values() for text in listed)
#: Broken records in a row after which drawing gives up.
PATIENCE = 100


class DataError(ClipsegError):
    """A data set, or a record of it, is missing, broken, or not what its format says."""


class BadRecord(DataError):
    """One record is broken, counted under ``kind`` (``missing image``); others may be sound."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class BadRecords:
    """Raises broken records, or counts them by kind and keeps :data:`EXAMPLES` messages of each."""

    def __init__(self, policy: Policy = 'raise') -> None:
        if policy not in get_args(Policy):
            raise ValueError(f'broken records can be {get_args(Policy)}, not {policy!r}')
        self.policy = policy
        self.counts: Counter[str] = Counter()
        #: Of these, what was counted while the data set was opened by name.
        self.opening: Counter[str] = Counter()
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

    def nothing_left(self, folder: Path, settings: BaseModel) -> DataError:
        """Return the error for a data set without a sample."""
        return DataError(
            f'{folder} has no sample for {settings.model_dump(mode="json")}; '
            f'{self.summary() or "the settings leave none over"}'
        )


class StrictSettings(BaseModel):
    """Base of the settings of a data set: unknown keys are errors, values are checked."""

    model_config = ConfigDict(extra='forbid', frozen=True)


def mistakes_in(error: ValidationError) -> list[str]:
    """Return each mistake in settings: the key, what is wrong, and the value seen."""
    found = []
    for mistake in error.errors():
        key = '.'.join(map(str, mistake['loc'])) or 'settings'
        # A message of our own says what was seen.
        own = mistake['type'] in ('missing', 'value_error')
        seen = '' if own else f', not {mistake["input"]!r}'
        found.append(f'{key}: {mistake["msg"].removeprefix("Value error, ")}{seen}')
    return found


@dataclass(frozen=True, eq=False)
class Support:
    """A picture that shows what is looked for."""

    key: str
    image: NDArray[np.uint8]  #: RGB (H, W, 3)
    mask: NDArray[np.bool_]  #: (H, W), true on the example; never empty


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture, a prompt and where it matches."""

    key: str  #: identifies it in its data set, in logs and in messages
    phrase: str  #: without a caption around it
    image: NDArray[np.uint8]  #: RGB (H, W, 3)
    mask: NDArray[np.bool_]  #: (H, W), where the phrase is true; all false for a negative
    valid: NDArray[np.bool_] | None = None  #: (H, W), pixels that count; None: all
    support: Support | None = None  #: the phrase in another picture
    class_id: int | None = None  #: where the data set has classes
    negative: bool = False  #: whether the phrase was replaced by a false one
    alpha: NDArray[np.float32] | None = None  #: (H, W), 0…1, of a matte; mask: at least half


class SampleSource(ABC):
    """Samples by index; ``problems`` is what was found broken so far, in this process."""

    problems: BadRecords

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def key(self, index: int) -> str:
        """Return what identifies a sample in its data set."""

    @abstractmethod
    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample, with ``rng`` for all that is random, or raise BadRecord."""

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
        """Yield every sample (or ``indices``) in order, for evaluation; broken ones are left out.

        What is random about sample i is drawn from ``sample_rng(seed, 0, i)``.
        """
        for index in range(len(self)) if indices is None else indices:
            with self.problems.counted():
                yield self.load(index, sample_rng(seed, 0, index))

    def each_with(
        self, prompt: Literal['text', 'image'], seed: int, indices: Iterable[int]
    ) -> Iterator[Sample]:
        """Yield samples as :meth:`each` does, with one kind of prompt.

        For texts there are no support images; for images, samples without one are left out and
        counted as ``no support image``.
        """
        for sample in self.each(seed, indices):
            if prompt == 'text':
                yield replace(sample, support=None)
            elif sample.support is not None:
                yield sample
            else:
                self.problems.note('no support image', f'{sample.key} has none')


def evenly_spread(count: int, wanted: int | None) -> list[int]:
    """Return at most ``wanted`` of ``count`` indices, evenly spread; all where it is None."""
    places = np.linspace(0, count - 1, min(count, wanted or count))
    return [int(place) for place in places.round()]


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one sample in one epoch."""
    return np.random.default_rng([seed, epoch, index])


def read_pixels(path: Path, record: str) -> NDArray[np.uint8]:
    """Read uint8 RGB (H, W, 3) as annotators saw it: EXIF orientation is not applied.

    Raises:
        BadRecord: The file, which ``record`` needs, is missing or damaged.
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
        # From memory: a chunk that claims gigabytes makes the reader of a file ask for as many.
        with Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS) as image:
            image.load()
            return use(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadRecord(
            'unreadable image', f'{path}, which {record} needs, cannot be read: {error}'
        ) from error


def check_size(shape: tuple[int, ...], expected: tuple[int, int], path: Path, record: str) -> None:
    """Raise BadRecord unless a picture has the (height, width) that its annotations are for."""
    if tuple(shape[:2]) != tuple(expected):
        raise BadRecord(
            'wrong image size',
            f'{path} is {shape[1]} × {shape[0]} pixels, and {record} is annotated for '
            f'{expected[1]} × {expected[0]}: the picture is another version of it',
        )


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file; raise DataError, with the remedy, where it is missing or broken."""
    if not path.is_file():
        raise DataError(f'{path} does not exist: {remedy}')
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise DataError(
            f'{path} is no readable JSON ({error}): was its download cut off?'
        ) from error


@cache
def _tokenizer() -> Any:
    # Slow to import, and needed for long phrases alone.
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def caption_tokens(phrase: str) -> int:
    """Return the tokens of a phrase in the longest caption of training, by CLIP's tokenizer."""
    captions = {caption for listed in TEMPLATES.values() for caption in listed}
    return max(len(_tokenizer().encode(text.format(phrase))) + 2 for text in captions)


def check_phrase(phrase: str, where: str) -> None:
    """Raise BadRecord unless CLIP's text tower takes a phrase in every caption of training.

    Every architecture of the papers reads phrases through that tower. Without this check, a phrase
    that is too long would end a run at the step that draws it.
    """
    check_text(phrase, 'phrase', where)
    # No token is shorter than a byte.
    if len(phrase.encode()) + LONGEST_CAPTION <= CLIP_TOKENS:
        return
    tokens = caption_tokens(phrase)
    if tokens > CLIP_TOKENS:
        raise BadRecord(
            'long phrase',
            f'{where} has a phrase of {tokens} tokens with its caption, and the text tower takes '
            f'{CLIP_TOKENS}: {phrase[:60]!r}',
        )


def check_text(text: str, name: str, where: str) -> None:
    """Raise BadRecord where a text has half of a character, which JSON can express."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(
            'malformed record',
            f'{where} has {text[:60]!r} as {name!r}, with half of a character at place '
            f'{error.start}',
        ) from error


def field(record: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return a record's field; BadRecord, beginning with ``where``, unless it is of ``kind``."""
    if not isinstance(record, dict) or name not in record:
        seen = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise BadRecord('malformed record', f'{where} has no {name!r}, only {seen}')
    value = record[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadRecord(
            'malformed record',
            f'{where} has {type(value).__name__} {str(value)[:60]!r} as {name!r}',
        )
    if isinstance(value, str):
        check_text(value, name, where)
    return value
