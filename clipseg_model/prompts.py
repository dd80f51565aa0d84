"""Prompts and their written form."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_model.images import check_image

MAX_PROMPTS = 254
"""Most prompts at once: a label image keeps 0 for none and never uses 255."""

MAX_PROMPT_CHARS = 1000
"""Longest phrase, in characters."""

MAX_TEXT_CHARS = MAX_PROMPTS * (2 * MAX_PROMPT_CHARS + 10)
"""Longest text of prompts, in characters: names and phrases, and some for what separates them."""

# A colon between digits belongs to the phrase (a clock that shows 12:30).
_NAME_COLON = re.compile(r'(?<!\d):|:(?!\d)')


@dataclass(frozen=True, eq=False)
class Prompt:
    """Something to segment: a phrase, an example image with an optional mask, or both mixed.

    Attributes:
        text: The phrase, 1 to :data:`MAX_PROMPT_CHARS` characters; runs of white space become one
            space.
        image: Example image (H, W, 3) uint8 RGB; copied.
        mask: (H, W) bool or uint8 of that image, non-zero on the example object; copied.
        name: What consumers call it; the phrase where None.
        threshold: Probability in (0, 1) above which a pixel is on; the model's where None.
        presence_threshold: Score in 0…1 from which on it counts as present; the model's where None,
            and 0 takes it for present always.
        negative: Whether it is a distractor: it competes for the pixels of the others and is never
            reported (:mod:`clipseg_model.prompting.competition`).
        weight: Share of the text in 0…1 where both text and image are given: the conditional vector
            is weight · text + (1 - weight) · image. The paper ("Image-Text Interpolation") writes a
            · image + (1 - a) · text; its published code draws the text's share, as here.

    Raises:
        PromptError: A field is missing, blank, too long, out of range or of the wrong type.
        ImageError: The image is not (H, W, 3) uint8.
    """

    text: str | None = None
    image: NDArray[np.uint8] | None = None
    mask: NDArray[Any] | None = None
    name: str | None = None
    threshold: float | None = None
    weight: float = 0.5
    presence_threshold: float | None = None
    negative: bool = False

    def __post_init__(self) -> None:
        if self.text is None and self.image is None:
            raise PromptError('A prompt needs a text, an image, or both')
        if self.text is not None:
            object.__setattr__(self, 'text', _clean(self.text, 'phrase'))
        if self.name is not None:
            object.__setattr__(self, 'name', _clean(self.name, 'name'))
        if self.image is not None:
            check_image(self.image, 'The image of a prompt')
            object.__setattr__(self, 'image', _frozen_copy(self.image))
        if self.mask is not None:
            if self.image is None:
                raise PromptError(
                    'A prompt has a mask and no image: give the image that it belongs to'
                )
            object.__setattr__(self, 'mask', _frozen_copy(check_mask(self.mask, self.image)))
        if self.threshold is not None:
            check_probability(self.threshold, "A prompt's threshold")
        presence = self.presence_threshold
        if presence is not None and not (isinstance(presence, (int, float)) and 0 <= presence <= 1):
            raise PromptError(f"A prompt's presence threshold must be in 0…1, not {presence!r}")
        if not isinstance(self.weight, (int, float)) or not 0 <= self.weight <= 1:
            raise PromptError(f"A prompt's weight must be in 0…1, not {self.weight!r}")

    @property
    def label(self) -> str:
        """What consumers call it: its name, or its phrase, or ``example image``."""
        return self.name or self.text or 'example image'

    def present_from(self, default: float) -> float:
        """Return the score from which on it is present: its own, or the default."""
        return default if self.presence_threshold is None else self.presence_threshold

    @cached_property
    def image_key(self) -> str | None:
        """A digest of the content of image and mask; None without an image."""
        if self.image is None:
            return None
        digest = hashlib.blake2b(repr(self.image.shape).encode(), digest_size=16)
        digest.update(self.image.tobytes())
        if self.mask is not None:
            digest.update(b'mask')
            digest.update(self.mask.tobytes())
        return digest.hexdigest()

    def _identity(self) -> tuple[Hashable, ...]:
        thresholds = self.threshold, self.presence_threshold
        return self.text, self.image_key, self.name, *thresholds, self.weight, self.negative

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prompt):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


def parse_prompts(text: str) -> list[Prompt]:
    """Read prompts such as ``the mug; seat: something to sit on; !plate``; none of a blank text.

    ``;`` and line breaks separate; ``name: phrase`` gives a prompt another name than its phrase (a
    colon between digits is part of the phrase); ``!`` before either makes it negative; what is
    repeated, letter case aside, is dropped.

    Raises:
        PromptError: A phrase is too long, a name stands without a phrase or a phrase without its
            name, two different phrases have the same name, one is negative and not, or there are
            more than :data:`MAX_PROMPTS`; or the text is longer than :data:`MAX_TEXT_CHARS`.
    """
    if not isinstance(text, str):
        raise PromptError(f'Prompts are written as text, not {type(text).__name__}')
    if len(text) > MAX_TEXT_CHARS:
        raise PromptError(
            f'A text of {len(text)} characters is longer than any of {MAX_PROMPTS} prompts '
            f'({MAX_TEXT_CHARS}): shorten it'
        )
    prompts: dict[str, Prompt] = {}
    for part in re.split(r'[;\r\n]', text):
        if not part.strip():
            continue
        prompt = _parse_one(part)
        known = prompts.setdefault(prompt.label.casefold(), prompt)
        if (known.text or '').casefold() != (prompt.text or '').casefold():
            raise PromptError(
                f'Two prompts are called {prompt.label!r}, {known.text!r} and {prompt.text!r}: '
                'give one of them another name'
            )
        if known.negative != prompt.negative:
            raise PromptError(f'{prompt.label!r} is asked for and, with "!", ruled out: choose one')
        _check_count(len(prompts))
    return list(prompts.values())


def as_prompts(prompts: Sequence[str | Prompt]) -> list[Prompt]:
    """Make every phrase of a sequence a :class:`Prompt`.

    Raises:
        PromptError: The sequence is empty, too long, a bare string, or holds something else.
    """
    if isinstance(prompts, (str, Prompt)):
        raise PromptError(
            'Prompts are given as a list, even a single one: [prompt]; '
            'parse_prompts() splits a line of several'
        )
    if not len(prompts):
        raise PromptError('There are no prompts: give at least one phrase or example image')
    _check_count(len(prompts))
    for prompt in prompts:
        if not isinstance(prompt, (str, Prompt)):
            raise PromptError(f'A prompt is a str or a Prompt, not {type(prompt).__name__}')
    return [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def check_mask(mask: object, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return a mask as (H, W) bool.

    Raises:
        PromptError: It is not (H, W) bool or uint8 of the image's size, or empty.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.bool_, np.uint8):
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise PromptError(
            f"A prompt's mask must be a bool or uint8 array, not {kind}; mask > 0.5 makes one of "
            'probabilities'
        )
    if mask.shape != image.shape[:2]:
        raise PromptError(
            f"A prompt's mask must have its image's height and width {image.shape[:2]}, "
            f'not {mask.shape}: resize it, with nearest-neighbour interpolation'
        )
    if not mask.any():
        raise PromptError("A prompt's mask is empty: it must be non-zero on the example object")
    return mask.astype(bool)


def check_probability(value: float, what: str) -> None:
    """Raise PromptError unless a threshold, which it calls ``what``, lies between 0 and 1."""
    try:
        inside = 0 < float(value) < 1
    except (TypeError, ValueError):
        inside = False
    if not inside:
        raise PromptError(f'{what} must be a probability between 0 and 1, not {value!r}')


def _parse_one(part: str) -> Prompt:
    negative = part.lstrip().startswith('!')
    if negative:
        part = part.lstrip()[1:]
        if not part.strip():
            raise PromptError('"!" makes a prompt negative, and there is no phrase after it')
    colon = _NAME_COLON.search(part)
    if colon is None:
        return Prompt(part, negative=negative)
    name, phrase = part[: colon.start()], part[colon.end() :]
    if not name.strip() or not phrase.strip():
        raise PromptError(
            f'A prompt is written "phrase" or "name: phrase", unlike {part.strip()[:60]!r}'
        )
    return Prompt(phrase, name=name, negative=negative)


def _clean(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise PromptError(f"A prompt's {what} must be text, not {type(text).__name__}")
    cleaned = ' '.join(text.split())
    if not cleaned:
        raise PromptError(f"A prompt's {what} is blank: write what to look for")
    if len(cleaned) > MAX_PROMPT_CHARS:
        raise PromptError(
            f"A prompt's {what} has {len(cleaned)} characters, and at most {MAX_PROMPT_CHARS} "
            f'are allowed: {cleaned[:60]!r}…'
        )
    if any(unicodedata.category(character) in ('Cc', 'Cs') for character in cleaned):
        raise PromptError(
            f"A prompt's {what} holds control characters or broken Unicode: {cleaned[:60]!r}"
        )
    return cleaned


def _check_count(count: int) -> None:
    if count > MAX_PROMPTS:
        raise PromptError(
            f'At most {MAX_PROMPTS} prompts are possible at once, and these are more ({count})'
        )


def _frozen_copy(array: NDArray[Any]) -> NDArray[Any]:
    copied = np.array(array, order='C')
    copied.setflags(write=False)
    return copied
