"""Regions from an object detector, each prompt those of its own category (ClsCLIP+).

Wu et al., *[CLS] Token is All You Need for Zero-Shot Semantic Segmentation*, 2023, section 3.4: of
the detections (R_i, C_i) in an image, Q_k = {R_m | C_m = A_k} is what is segmented for category k.

A detector is a function of an image and of the names that are asked for: see :class:`Detect`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import CheckpointError, RegionError
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.segmentation import Segmentation
from clipseg_model.zoom.proposals import Proposal

#: Categories that are no things.
NOTHING = ('__background__', 'N/A')

# Pascal VOC's names, and what COCO calls the same.
_SAME = {
    'aeroplane': 'airplane',
    'diningtable': 'dining table',
    'motorbike': 'motorcycle',
    'pottedplant': 'potted plant',
    'sofa': 'couch',
    'tvmonitor': 'tv',
    'tv monitor': 'tv',
    'television': 'tv',
}
_ARTICLE = re.compile(r'^(an?|the)\s+')
# Plurals in -es whatever a detector knows: "glasses", "dishes", "couches", "boxes", "buses".
_ES = re.compile(r'(ss|sh|ch|x|zz|\bbus)es$')
# Ends of plurals and what they may stand for, where the result is a name that is known.
_PLURALS = (('s', ''), ('es', ''), ('ies', 'y'), ('ves', 'fe'), ('ves', 'f'))


@dataclass(frozen=True)
class Detection:
    """A thing that a detector sees.

    Attributes:
        category: What it is.
        score: How sure the detector is, 0…1.
        box: Left, top, right, bottom in pixels of the image.
    """

    category: str
    score: float
    box: tuple[float, float, float, float]


class Detect(Protocol):
    """Any detector."""

    def __call__(self, image: NDArray[np.uint8], names: Sequence[str]) -> Sequence[Detection]:
        """Return what is seen in an RGB image (H, W, 3) uint8.

        Args:
            image: The image.
            names: Categories that are asked for; a detector that knows a fixed set may return
                others too.
        """


class DetectorProposals:
    """Regions where a detector sees things, for each prompt those of its category.

    A prompt's category is what ``categories_of`` says, or the category of the same name; letter
    case, an article, a regular plural and the differences between Pascal VOC's and COCO's names do
    not matter. A prompt that names no category of the detector ("something to drink from", an
    example image) has every region looked at.

    Args:
        detect: The detector.
        categories: Names that the detector can give; None for one of an open vocabulary, which is
            asked for the texts of the prompts.
        wanted: Categories that are looked at, whatever the prompts; all where empty.
        min_score: Least score of a detection, 0…1.
        categories_of: Category by the text or label of a prompt.

    Raises:
        RegionError: A category is unknown to the detector, or ``min_score`` out of range.
    """

    def __init__(
        self,
        detect: Detect,
        categories: Sequence[str] | None = None,
        wanted: Sequence[str] = (),
        min_score: float = 0.3,
        categories_of: Mapping[str, str] | None = None,
    ) -> None:
        if not 0 <= min_score <= 1:
            raise RegionError(f'The least score of a detection must be in 0…1, not {min_score!r}')
        self.detect = detect
        self.min_score = min_score
        self._known = (
            None if categories is None else {plain_name(name): name for name in categories}
        )
        self._wanted = {self._check(name) for name in wanted}
        given = categories_of or {}
        self._of = {plain_name(prompt): self._check(name) for prompt, name in given.items()}

    def propose(self, image: NDArray[np.uint8], found: Segmentation) -> list[Proposal]:
        """Propose the detections of each prompt's category, for that prompt.

        Raises:
            CheckpointError: The detector's boxes or scores are not finite.
        """
        asked = [self.category_of(result.prompt) for result in found.results]
        names = sorted({name for name in asked if name is not None} | self._wanted)
        detections = []
        for one in self.detect(image, names):
            if not np.isfinite([*one.box, one.score]).all():
                raise CheckpointError(
                    'The detector gave boxes or scores that are not finite: its weights are damaged'
                )
            category = plain_name(one.category)
            if one.score >= self.min_score and (not self._wanted or category in self._wanted):
                box = _clipped(one.box, found.height, found.width)
                if box is not None:
                    detections.append((category, one.score, box))
        return [
            Proposal(box, number, score)
            for number, wanted in enumerate(asked)
            for category, score, box in detections
            if wanted is None or category == wanted
        ]

    def category_of(self, prompt: Prompt) -> str | None:
        """Return the plain name of the category that a prompt names; None where it names none."""
        for text in filter(None, (prompt.label, prompt.text)):
            given = _found(text, self._of)
            if given is not None:
                return self._of[given]
            known = _found(text, self._known or ())
            if known is not None:
                return known
        return plain_name(prompt.text) if self._known is None and prompt.text else None

    def _check(self, name: str) -> str:
        plain = plain_name(name)
        if self._known is None:
            return plain
        found = _found(name, self._known)
        if found is None:
            close = difflib.get_close_matches(plain, self._known, n=3, cutoff=0.5)
            near = ' or '.join(repr(self._known[one]) for one in close)
            hint = f'Did you mean {near}? ' if near else ''
            names = [one for one in self._known.values() if one not in NOTHING]
            raise RegionError(
                f'The detector knows no category {name!r}. {hint}It knows {", ".join(names)}'
            )
        return found


def plain_name(text: str) -> str:
    """Return a name without what does not tell categories apart: case, article, plural, dialect."""
    name = _bare(text)
    if _ES.search(name):
        name = name[:-2]
    # "bus" and "glass" are no plurals.
    elif len(name) > 3 and name.endswith('s') and not name.endswith(('ss', 'us', 'is')):
        name = name[:-1]
    return _SAME.get(name, name)


def _bare(text: str) -> str:
    name = _ARTICLE.sub('', re.sub(r'[\s_-]+', ' ', text.strip().casefold()))
    return _SAME.get(name, name)


def _found(text: str, names: Collection[str]) -> str | None:
    """Return which of some plain names a text is, in the singular or a regular plural."""
    plain, bare = plain_name(text), _bare(text)
    singulars = [bare[: -len(end)] + other for end, other in _PLURALS if bare.endswith(end)]
    for name in (plain, *(_SAME.get(one, one) for one in singulars)):
        if name in names:
            return name
    return None


def _clipped(edges: tuple[float, float, float, float], height: int, width: int) -> Box | None:
    left, top, right, bottom = edges
    # Detectors answer with slivers at the border; those show nothing.
    left, right, top, bottom = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if right - left < 1 or bottom - top < 1:
        return None
    return Box.around((left, top, right - left, bottom - top), height, width)
