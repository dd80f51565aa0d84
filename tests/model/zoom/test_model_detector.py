"""A model as a detector that also looks at parts of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import RegionError
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.zoom.model_detector import ModelDetector, views


class NearSighted:
    """Sees what is red, if it fills more than 0.2 % of what is shown."""

    def __init__(self) -> None:
        self.calls = 0

    def segment(self, image: NDArray[np.uint8], prompts: Sequence[str]) -> Segmentation:
        self.calls += 1
        red = image[..., 0] == 255
        logits = np.where(red & (red.mean() > 0.002), 5, -5).astype(np.float32)
        height, width = red.shape
        results = [
            PromptResult(Prompt(text), 0.5, 1.0, True, logits, height, width) for text in prompts
        ]
        return Segmentation(height, width, results, 'near-sighted')


def picture(*boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Black, 120 × 160, with red boxes: left, top, right, bottom."""
    image = np.zeros((120, 160, 3), np.uint8)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right, 0] = 255
    return image


@pytest.mark.parametrize('corner', [(2, 3), (78, 58), (150, 110), (39, 29)])
def test_what_is_too_small_in_the_whole_is_seen_in_a_part_once(corner: tuple[int, int]) -> None:
    left, top = corner
    image = picture((left, top, left + 4, top + 4))
    assert ModelDetector(NearSighted())(image, ['red']) == []
    segmenter = NearSighted()
    [found] = ModelDetector(segmenter, tiles=3)(image, ['red'])
    assert found.box == (left, top, left + 4, top + 4)
    assert segmenter.calls == 10


def test_what_is_seen_in_the_whole_is_not_found_in_pieces() -> None:
    bar = (5, 50, 155, 60)
    found = ModelDetector(NearSighted(), tiles=2)(picture(bar, (20, 10, 24, 14)), ['red'])
    assert [one.box for one in found] == [bar, (20, 10, 24, 14)]


def test_names_do_not_stand_in_each_others_way() -> None:
    found = ModelDetector(NearSighted(), tiles=3)(picture((40, 40, 44, 44)), ['red', 'scarlet'])
    assert [one.category for one in found] == ['red', 'scarlet']


def test_parts_overlap_by_half_and_cover_the_image() -> None:
    assert views(120, 160, 1) == []
    boxes = views(100, 160, 3)
    assert len(boxes) == 9
    assert boxes[0] == Box(0, 0, 80, 50)
    assert boxes[-1] == Box(80, 50, 160, 100)
    covered = np.zeros((100, 160), bool)
    for box in boxes:
        covered[box.slices] = True
    assert covered.all()


def test_no_tile_is_refused() -> None:
    with pytest.raises(RegionError, match='1 or more, not 0'):
        ModelDetector(NearSighted(), tiles=0)
