from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipseg_model.errors import RegionError
from clipseg_model.instances import find_instances
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult


def result(presence: bool = True) -> PromptResult:
    logits = np.full((60, 80), -4, np.float32)
    logits[10:20, 5:25] = 2  # 200 pixels
    logits[10, 5] = 4
    logits[40:45, 60:64] = 1  # 20 pixels, and one that touches at a corner
    logits[45, 64] = 1
    logits[59, 79] = 3  # 1 pixel at the border
    return PromptResult(Prompt('a'), 0.5, 0.9, presence, logits, 60, 80)


def test_parts_of_a_mask() -> None:
    large, middle, dot = result().instances()
    assert (large.area, large.box) == (200, (5, 10, 20, 10))
    assert large.centroid == pytest.approx((14.5, 14.5))
    p2, p4 = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-4.0))
    assert large.probability == pytest.approx((199 * p2 + p4) / 200, abs=1e-6)
    assert large.mask.shape == (10, 20)
    assert large.mask.all()
    assert (middle.area, middle.box) == (21, (60, 40, 5, 6))
    assert np.count_nonzero(middle.mask) == 21
    assert middle.mask[5].tolist() == [False, False, False, False, True]
    assert middle.centroid == pytest.approx(((20 * 61.5 + 64) / 21, (20 * 42 + 45) / 21))
    assert (dot.area, dot.box, dot.centroid) == (1, (79, 59, 1, 1), (79.0, 59.0))


def test_together_they_are_the_mask() -> None:
    one = result()
    union = np.zeros((60, 80), bool)
    for instance in one.instances():
        x, y, width, height = instance.box
        union[y : y + height, x : x + width] |= instance.mask
    assert np.array_equal(union, one.mask)


def test_least_area() -> None:
    assert [one.area for one in result().instances(min_area=21)] == [200, 21]
    assert [one.area for one in result().instances(min_area=22)] == [200]
    assert result().instances(min_area=201) == []


def test_equals_come_from_the_top() -> None:
    mask = np.zeros((9, 9), bool)
    mask[6, 1] = mask[2, 5] = mask[2, 1] = True
    found = find_instances(mask, np.ones((9, 9), np.float32))
    assert [one.box[:2] for one in found] == [(1, 2), (5, 2), (1, 6)]


def test_an_absent_prompt_has_none() -> None:
    assert result(presence=False).instances() == []


@pytest.mark.parametrize('area', [0, -1, 1.5, True, None])
def test_a_least_area_that_is_none(area: Any) -> None:
    with pytest.raises(RegionError, match='whole number of pixels from 1'):
        result().instances(area)
