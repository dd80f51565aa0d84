"""Zooming in: parts of an image are segmented again, each at the model's full input size.

Local zoom-in of ClsCLIP+ (Wu et al. 2023), for every model and with regions of any origin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import top_scores
from clipseg_model.errors import RegionError
from clipseg_model.regions import Box, CloseUp, CloseUps, check_combination
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.settings import SegmentViews
from clipseg_model.zoom.proposals import CoarseProposals, Proposal, Proposer, check_share


@dataclass
class Region:
    """A part of an image, ``view``, that the model is shown by itself.

    ``boxes``, by number of the prompt from 0, are where in the view the answer counts.
    """

    view: Box
    boxes: dict[int, list[Box]] = field(default_factory=dict)


@dataclass(frozen=True)
class Zoom:
    """How to zoom in, for :attr:`clipseg_model.settings.SegmentSettings.zoom`.

    Each prompt's score is that of the joined answer, so what a closer look shows to be something
    else becomes absent. :meth:`published` is ClsCLIP+ as its authors have it.

    Attributes:
        proposer: Proposes regions.
        combination: How the answers to regions and to the whole image are joined, one of
            :data:`clipseg_model.regions.COMBINATIONS`.
        context: How much of its surroundings is shown of a region, in sides of it on each side,
            0…10.
        least_view: Least side of what is shown, as a share of the image's, above 0 and up to 1.
        max_regions: Most regions of an image that are looked at: every prompt's first, then every
            prompt's second, and so on. Prompts share a region where one's lies in another's view.

    Raises:
        RegionError: A value is out of range.
    """

    proposer: Proposer = field(default_factory=CoarseProposals)
    combination: str = 'mean'
    context: float = 0.5
    least_view: float = 0.12
    max_regions: int = 8

    def __post_init__(self) -> None:
        check_combination(self.combination)
        check_share(self.least_view, 'The least view')
        if not 0 <= self.context <= 10:
            raise RegionError(f'The context of regions must be in 0…10, not {self.context!r}')
        count: Any = self.max_regions
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise RegionError(
                f'The number of regions must be a whole number from 1, not {count!r}; '
                "a segmenter whose zoom is None doesn't zoom"
            )

    @classmethod
    def published(cls, proposer: Proposer, max_regions: int = 100) -> Zoom:
        """Return ClsCLIP+ (Wu et al. 2023, section 3.4): the union of what the regions show.

        Each region is shown by itself, without surroundings, and the whole image does not count.
        """
        return cls(proposer, 'regions', context=0, least_view=1e-3, max_regions=max_regions)

    def refine(
        self,
        image: NDArray[np.uint8],
        found: Segmentation,
        segment_views: SegmentViews,
        presence_threshold: float,
    ) -> Segmentation:
        """Look closely at the proposed regions: see :meth:`clipseg_model.settings.Refiner.refine`.

        Raises:
            RegionError: A region is not usable for this image.
        """
        regions = self.regions(self.proposer.propose(image, found), found)
        if not regions and self.combination != 'regions':
            return found
        prompts = [[found.results[number].prompt for number in region.boxes] for region in regions]
        answers = segment_views([region.view for region in regions], prompts) if regions else []
        parts: dict[int, list[CloseUp]] = {}
        for region, logits in zip(regions, answers, strict=True):
            for (number, boxes), own in zip(region.boxes.items(), logits, strict=True):
                parts.setdefault(number, []).append(CloseUp(region.view, tuple(boxes), own))
        # In a union of regions, a prompt without any is found nowhere.
        everybody = self.combination == 'regions'
        results = [
            self._join(result, parts.get(number, []), presence_threshold)
            if everybody or number in parts
            else result
            for number, result in enumerate(found.results)
        ]
        return Segmentation(found.height, found.width, results, found.model)

    def regions(self, proposals: Sequence[Proposal], found: Segmentation) -> list[Region]:
        """Choose what is looked at, merged where close together, of proposals in any order."""
        everybody = range(len(found.results))
        queues: dict[int | None, list[Proposal]] = {}
        for proposal in sorted(proposals, key=lambda one: -one.confidence):
            queues.setdefault(proposal.prompt, []).append(proposal)
        in_turn = chain.from_iterable(
            zip_longest(*(queues[key] for key in sorted(queues, key=str)))
        )
        regions: list[Region] = []
        for proposal in in_turn:
            if proposal is None:
                continue
            region = next((one for one in regions if one.view.holds(proposal.box)), None)
            if region is None:
                if len(regions) == self.max_regions:
                    continue
                view = proposal.box.view(found.height, found.width, self.context, self.least_view)
                region = Region(view)
                regions.append(region)
            for number in everybody if proposal.prompt is None else (proposal.prompt,):
                region.boxes.setdefault(number, []).append(proposal.box)
        return regions

    def _join(
        self, result: PromptResult, parts: list[CloseUp], presence_threshold: float
    ) -> PromptResult:
        """Return the result of a prompt with its close-ups."""
        presence_threshold = result.prompt.present_from(presence_threshold)
        logits = result.logits
        if self.combination == 'or':
            parts = [part for part in parts if _score(part.logits) >= presence_threshold]
            if not result.presence:
                # The mask of the whole is empty, so that nothing of it is on in the union.
                below = np.nextafter(result.cut, np.float32(-np.inf))
                logits = np.minimum(logits, below)
        close_ups = CloseUps(tuple(parts), self.combination, float(result.cut))
        joined = result.logits.copy()
        close_ups.paste_small(joined, result.height, result.width)
        score = _score(joined)
        presence = score >= presence_threshold
        if self.combination == 'or':
            presence = result.presence or bool(parts)
        return dataclasses.replace(
            result, logits=logits, close_ups=close_ups, score=score, presence=presence
        )


def _score(logits: NDArray[np.float32]) -> float:
    return top_scores(logits[None])[0]
