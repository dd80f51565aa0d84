"""What is looked for: prompts, their written form, templates, and a cache of their embeddings."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.errors import PromptError
from clipseg_model.images import check_image
from clipseg_model.prompting.visual_prompt import check_mask

__all__ = [
    'MAX_PROMPTS',
    'MAX_PROMPT_CHARS',
    'TEMPLATES',
    'EmbeddingCache',
    'Prompt',
    'as_prompts',
    'check_probability',
    'fill_template',
    'find_captions',
    'parse_prompts',
]

MAX_PROMPTS = 254
"""Most prompts at once: a label image keeps 0 for none and never uses 255."""

MAX_PROMPT_CHARS = 1000
"""Longest phrase, in characters."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    'plain': ('{}',),
    'fixed': ('a photo of a {}.',),
    'shuffle': ('a photo of a {}.', 'a photograph of a {}.', 'an image of a {}.', '{}.'),
    'shuffle+': (
        'a photo of a {}.',
        'a photograph of a {}.',
        'an image of a {}.',
        '{}.',
        'a cropped photo of a {}.',
        'a good photo of a {}.',
        'a photo of one {}.',
        'a bad photo of a {}.',
        'a photo of the {}.',
    ),
}
"""Captions that phrases may be put into, by the names of the paper's published configurations.

Training draws one of ``shuffle+``, the paper's nine, for each phrase; both public implementations
then infer with ``plain``. Where a :class:`~clipseg_model.segmenter.Segmenter` is given several, a
phrase's conditional vector is the average over them (an ensemble, as CLIP's authors do)."""

TEMPLATES['none'] = TEMPLATES['plain']
TEMPLATES['ensemble'] = TEMPLATES['shuffle+']

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
        presence_threshold: Score in 0…1 from which on it counts as present; the model's where
            None, and 0 takes it for present always.
        negative: Whether it is a distractor: it competes for the pixels of the others and is
            never reported (:mod:`clipseg_model.prompting.competition`).
        weight: Share of the text in 0…1 where both text and image are given: the conditional
            vector is weight · text + (1 - weight) · image. The paper ("Image-Text
            Interpolation") writes a · image + (1 - a) · text, so its a is 1 - weight; its
            published code draws the share of the text, as here.

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
            object.__setattr__(self, 'mask', _frozen_copy(self._checked_mask()))
        if self.threshold is not None:
            check_probability(self.threshold, "A prompt's threshold")
        presence = self.presence_threshold
        if presence is not None and not (isinstance(presence, (int, float)) and 0 <= presence <= 1):
            raise PromptError(f"A prompt's presence threshold must be in 0…1, not {presence!r}")
        if not isinstance(self.weight, (int, float)) or not 0 <= self.weight <= 1:
            raise PromptError(f"A prompt's weight must be in 0…1, not {self.weight!r}")

    def _checked_mask(self) -> NDArray[np.bool_]:
        if self.image is None:
            raise PromptError('A prompt has a mask and no image: give the image that it belongs to')
        return check_mask(self.mask, self.image)

    @property
    def label(self) -> str:
        """What consumers call it: its name, or its phrase, or ``example image``."""
        return self.name or self.text or 'example image'

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
    """Read prompts as people write them on one line or several.

    ``;`` and line breaks separate; ``name: phrase`` gives a prompt another name than its phrase
    (a colon between digits is part of the phrase); ``!`` before either makes it negative; what is
    repeated, letter case aside, is dropped.

    Args:
        text: For example ``the mug; seat: something to sit on; !plate``.

    Returns:
        The prompts in order; empty for a blank text.

    Raises:
        PromptError: A phrase is too long, a name stands without a phrase or a phrase without its
            name, two different phrases have the same name, one is negative and not, or there are
            more than :data:`MAX_PROMPTS`.
    """
    if not isinstance(text, str):
        raise PromptError(f'Prompts are written as text, not {type(text).__name__}')
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
    made = []
    for prompt in prompts:
        if isinstance(prompt, str):
            prompt = Prompt(prompt)
        elif not isinstance(prompt, Prompt):
            raise PromptError(f'A prompt is a str or a Prompt, not {type(prompt).__name__}')
        made.append(prompt)
    return made


def fill_template(template: str, phrase: str) -> str:
    """Put a phrase into a caption such as ``a photo of a {}.``.

    Raises:
        PromptError: The template does not hold ``{}`` exactly once.
    """
    if template.count('{}') != 1:
        raise PromptError(f'A template holds {{}} exactly once, unlike {template!r}')
    return template.replace('{}', phrase)


def find_captions(template: str) -> tuple[str, ...]:
    """The captions of a template.

    Args:
        template: A key of :data:`TEMPLATES`, or a caption of one's own with one ``{}``.

    Raises:
        PromptError: It is neither.
    """
    if isinstance(template, str) and template in TEMPLATES:
        return TEMPLATES[template]
    if not isinstance(template, str) or template.count('{}') != 1:
        raise PromptError(
            f'There is no template {template!r}; there are {", ".join(TEMPLATES)}, or give a '
            "caption that holds {} exactly once, such as 'a photo of a {}.'"
        )
    return (template,)


def check_probability(value: float, what: str) -> None:
    """Make sure that a threshold lies strictly between 0 and 1.

    Raises:
        PromptError: It does not.
    """
    try:
        inside = 0 < float(value) < 1
    except (TypeError, ValueError):
        inside = False
    if not inside:
        raise PromptError(f'{what} must be a probability between 0 and 1, not {value!r}')


class EmbeddingCache:
    """Keeps the embeddings that were used last.

    Args:
        capacity: Most embeddings kept.
    """

    def __init__(self, capacity: int = 1024) -> None:
        if capacity < 1:
            raise ValueError(f'capacity must be at least 1, not {capacity}')
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def get(
        self, keys: Sequence[Hashable], embed: Callable[[list[int]], Sequence[Tensor]]
    ) -> list[Tensor]:
        """The embeddings of some keys; those not kept are made together in one call.

        Args:
            keys: Hashable content of each input.
            embed: Given positions in ``keys`` (one for each distinct missing key), returns their
                embeddings in that order.

        Returns:
            One embedding a key.
        """
        missing: dict[Hashable, int] = {}
        for position, key in enumerate(keys):
            if key not in self._kept:
                missing.setdefault(key, position)
        # What this call needs is held here too: more keys than the capacity must not evict
        # each other before they are returned.
        found: dict[Hashable, Tensor] = {}
        if missing:
            found.update(zip(missing, embed(list(missing.values())), strict=True))
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
        for key in missing:
            self._kept[key] = found[key]
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return [found[key] for key in keys]


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
