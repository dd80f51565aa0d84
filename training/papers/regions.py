"""ClsCLIP+ in tables: the regions of a sample's picture that a model is shown.

Wu et al. 2023, section 3.4 and Tables 4 to 7. Their detector is YOLOv7; any detector of
:mod:`clipseg_model.zoom` stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg_model.calibration import top_scores
from clipseg_model.instances import find_instances
from clipseg_model.regions import CloseUp, CloseUps
from clipseg_model.segmentation import Segmentation
from clipseg_model.settings import Refiner, SegmentViews
from clipseg_model.zoom.proposals import GivenBoxes, Proposer
from clipseg_model.zoom.refinement import Zoom
from clipseg_model.zoom_by_name import open_detector
from training.datasets.samples import Sample

Regions = Literal['detector', 'manual', 'boxes']
"""``detector``: ClsCLIP+; ``manual``: its upper bound, around the true things (Table 7); ``boxes``:
a detector's boxes as the masks, without a model (Table 6)."""

#: Logit inside of a box that is a mask.
_ON = np.float32(30)


@dataclass(frozen=True)
class BoxesAsMasks:
    """Answers with the boxes of each prompt's regions."""

    proposer: Proposer

    def refine(
        self,
        image: NDArray[np.uint8],
        found: Segmentation,
        segment_views: SegmentViews,
        presence_threshold: float,
    ) -> Segmentation:
        """See :meth:`clipseg_model.settings.Refiner.refine`; nothing is segmented."""
        proposals = self.proposer.propose(image, found)
        results = []
        for number, result in enumerate(found.results):
            boxes = [one.box for one in proposals if one.prompt in (number, None)]
            full = np.full((1, 1), _ON, np.float32)
            parts = tuple(CloseUp(box, (box,), full) for box in boxes)
            close_ups = CloseUps(parts, 'regions')
            joined = result.logits.copy()
            close_ups.paste_small(joined, result.height, result.width)
            score = top_scores(joined[None])[0]
            results.append(replace(result, close_ups=close_ups, score=score, presence=bool(boxes)))
        return Segmentation(found.height, found.width, results, found.model)


def true_boxes(sample: Sample) -> list[tuple[float, float, float, float]]:
    """Return a box (x, y, width, height) around every connected part of the truth.

    Parts of the data that are not labelled one by one are taken for things by themselves.
    """
    parts = find_instances(sample.mask, sample.mask.astype(np.float32), 1)
    return [tuple(map(float, part.box)) for part in parts]  # type: ignore[misc]


def zoom_for(
    regions: Regions, detector: str, device: str | torch.device
) -> Callable[[Sample], Refiner]:
    """Return what looks closely at the picture of a sample.

    Args:
        regions: Where.
        detector: Name of torchvision's, whose weights are here, or of a model.
        device: Where the detector runs.

    Raises:
        CheckpointError: The detector's weights are not here.
        RegionError: There is no such detector.
    """
    if regions == 'manual':
        return lambda sample: Zoom.published(GivenBoxes(true_boxes(sample)))
    proposer = open_detector(detector, device)
    refiner = Zoom.published(proposer) if regions == 'detector' else BoxesAsMasks(proposer)
    return lambda sample: refiner
