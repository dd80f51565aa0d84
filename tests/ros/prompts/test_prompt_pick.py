from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_ros.prompts.pick import Picked, Place, pick

HEIGHT, WIDTH = 100, 200


def frame() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def labels() -> NDArray[np.uint8]:
    """Two parts of label 3 and one of label 5 that touches the first."""
    made = np.zeros((HEIGHT, WIDTH), np.uint8)
    made[10:30, 20:50] = 3
    made[10:30, 50:60] = 5
    made[60:80, 120:150] = 3
    return made


def mask_of(picked: Picked) -> NDArray[np.bool_]:
    assert picked.example.mask is not None
    return picked.example.mask


def test_a_box() -> None:
    image = frame()
    picked = pick(Place(20, 10, 30, 40), image, labels())
    mask = mask_of(picked)
    assert mask.sum() == 30 * 40
    assert mask[10:50, 20:50].all()
    assert picked.box == (20, 10, 30, 40)
    assert picked.example.image is image


def test_what_sticks_out_of_the_frame_is_cut_off() -> None:
    assert pick(Place(-10, 90, 30, 40), frame()).box == (0, 90, 20, 10)


def test_a_point_takes_the_part_of_the_mask_under_it() -> None:
    picked = pick(Place(25, 15), frame(), labels())
    mask = mask_of(picked)
    assert mask[10:30, 20:50].all()
    assert mask.sum() == 20 * 30, 'neither the other part nor the other label'
    assert picked.box == (20, 10, 30, 20)
    assert 'part of the mask' in picked.how


@pytest.mark.parametrize('known', [True, False])
def test_a_point_without_a_mask_takes_a_square(known: bool) -> None:
    picked = pick(Place(100, 50), frame(), labels() if known else None)
    assert picked.box == (90, 40, 20, 20), 'a fifth of the shorter side'
    assert 'square of 20 px' in picked.how


@pytest.mark.parametrize(
    ('place', 'box'),
    [(Place(0, 0), (0, 0, 10, 10)), (Place(WIDTH - 1, HEIGHT - 1), (189, 89, 11, 11))],
)
def test_a_point_in_the_corner(place: Place, box: tuple[int, int, int, int]) -> None:
    assert pick(place, frame()).box == box


def test_a_frame_of_one_pixel() -> None:
    assert pick(Place(0, 0), np.zeros((1, 1, 3), np.uint8)).box == (0, 0, 1, 1)


@pytest.mark.parametrize('place', [Place(-1, 5), Place(5, -1), Place(WIDTH, 5), Place(5, HEIGHT)])
def test_a_point_outside_is_refused(place: Place) -> None:
    with pytest.raises(PromptError, match=r'outside of the frame, which is 200 px wide and 100'):
        pick(place, frame(), labels())


@pytest.mark.parametrize('place', [Place(200, 0, 5, 5), Place(-9, 0, 9, 9)])
def test_a_box_outside_is_refused(place: Place) -> None:
    with pytest.raises(PromptError, match='outside of its image'):
        pick(place, frame())


@pytest.mark.parametrize('place', [Place(5, 5, 10, 0), Place(5, 5, -3, 4)])
def test_a_box_without_area_is_refused(place: Place) -> None:
    with pytest.raises(PromptError, match='no area'):
        pick(place, frame())
