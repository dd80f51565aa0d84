"""A model of this project as a detector of any names: what it needs is in the repository.

It sees what the model sees in the whole picture. That suffices for the rendered world, for tests,
and where another model (ClsCLIP) segments what this one finds; things that are too small for its
input are what a detector of torchvision is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.segmentation import Segmentation
from clipseg_model.zoom.detectors import Detection


class Segments(Protocol):
    """What segments, such as :class:`clipseg_model.segmenter.Segmenter`."""

    def segment(self, image: NDArray[np.uint8], prompts: Sequence[str]) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8."""


class ModelDetector:
    """Detects the connected parts of what a model finds, by name.

    Args:
        segmenter: The model.
        min_share: Least area of a part, as a share of the image's, 0…1.
    """

    def __init__(self, segmenter: Segments, min_share: float = 2e-4) -> None:
        self.segmenter = segmenter
        self.min_share = min_share

    def __call__(self, image: NDArray[np.uint8], names: Sequence[str]) -> list[Detection]:
        """Return the parts of the mask of each name, with their mean probability."""
        if not names:
            return []
        least = max(1, round(self.min_share * image.shape[0] * image.shape[1]))
        found = self.segmenter.segment(image, list(names))
        detections = []
        for name, result in zip(names, found.results, strict=True):
            for one in result.instances(least):
                x, y, width, height = one.box
                box = (float(x), float(y), float(x + width), float(y + height))
                detections.append(Detection(name, min(one.probability, 1.0), box))
        return detections
