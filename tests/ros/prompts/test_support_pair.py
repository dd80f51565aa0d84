from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_ros.prompts.support_pair import NO_STAMP, SupportPair

FIRST, SECOND = 7_000_000_000, 8_000_000_000


def image(value: int = 1, height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def mask(height: int = 4, width: int = 6) -> NDArray[np.bool_]:
    made = np.zeros((height, width), bool)
    made[1:3, 2:4] = True
    return made


def test_a_picture_counts_at_once_and_its_mask_refines_it() -> None:
    pair = SupportPair()
    alone = pair.add_image(image(), FIRST)
    assert alone.mask is None
    both = pair.add_mask(mask(), FIRST)
    assert both is not None
    assert both.image is alone.image
    assert both.mask is not None
    np.testing.assert_array_equal(both.mask, mask())


def test_a_mask_waits_for_its_picture() -> None:
    pair = SupportPair()
    assert pair.add_mask(mask(), FIRST) is None
    assert pair.add_image(image(), FIRST).mask is not None
    assert pair.add_image(image(2), FIRST).mask is None, 'a mask is used once'


def test_stamps_tell_what_belongs_together() -> None:
    pair = SupportPair()
    pair.add_image(image(1), FIRST)
    assert pair.add_mask(mask(), SECOND) is None, 'that of the next picture'
    made = pair.add_image(image(2), SECOND)
    assert made.mask is not None
    assert made.image[0, 0, 0] == 2


def test_a_mask_of_another_picture_is_dropped() -> None:
    pair = SupportPair()
    pair.add_mask(mask(), FIRST)
    assert pair.add_image(image(), SECOND).mask is None
    assert pair.add_image(image(), FIRST).mask is None


@pytest.mark.parametrize(('one', 'other'), [(NO_STAMP, FIRST), (FIRST, NO_STAMP), (NO_STAMP,) * 2])
def test_without_stamps_the_last_ones_belong_together(one: int, other: int) -> None:
    pair = SupportPair()
    pair.add_image(image(), one)
    assert pair.add_mask(mask(), other) is not None
    pair = SupportPair()
    pair.add_mask(mask(), one)
    assert pair.add_image(image(), other).mask is not None


def test_another_size_is_refused_after_the_picture() -> None:
    pair = SupportPair()
    pair.add_image(image(), FIRST)
    with pytest.raises(PromptError, match='the mask is 7 px wide and 4 px high, and its image 6'):
        pair.add_mask(mask(4, 7), FIRST)
    assert pair.add_mask(mask(), FIRST) is not None, 'the picture is still there'


def test_another_size_is_refused_before_the_picture() -> None:
    pair = SupportPair()
    pair.add_image(image(1), FIRST)
    pair.add_mask(mask(5, 6), SECOND)
    with pytest.raises(PromptError, match='5 px high'):
        pair.add_image(image(2), SECOND)
    made = pair.add_mask(mask(), FIRST)
    assert made is not None
    assert made.image[0, 0, 0] == 1, 'the picture from before stayed'


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(PromptError, match='empty'):
        SupportPair().add_mask(np.zeros((4, 6), bool), FIRST)


def test_forget() -> None:
    pair = SupportPair()
    pair.add_image(image(), FIRST)
    pair.forget()
    assert pair.add_mask(mask(), FIRST) is None
