from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import ImageError, PromptError
from clipseg_model.visual_prompt import (
    BACKGROUND_INTENSITY,
    DEFAULT_METHOD,
    METHODS,
    visual_prompt,
)

RED, GREEN = (210, 20, 20), (40, 200, 40)


def scene(
    box: tuple[int, int, int, int], height: int = 90, width: int = 120
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red box (top, left, bottom, right) on green."""
    image = np.full((height, width, 3), GREEN, np.uint8)
    mask = np.zeros((height, width), bool)
    top, left, bottom, right = box
    mask[top:bottom, left:right] = True
    image[mask] = RED
    return image, mask


def test_the_default_is_the_papers_best() -> None:
    assert DEFAULT_METHOD == 'crop_blur_dark'
    image, mask = scene((20, 30, 60, 70))
    expected = METHODS['crop_blur_dark'](image, mask, 64)
    assert np.array_equal(visual_prompt(image, mask, 64), expected)


@pytest.mark.parametrize('size', [32, 64, 352])
def test_object_fills_the_middle_and_background_is_a_tenth(size: int) -> None:
    image, mask = scene((20, 30, 60, 70))
    prompt = visual_prompt(image, mask, size)
    assert prompt.shape == (size, size, 3)
    assert prompt.dtype == np.uint8
    # 40 px and a margin of 10 % on each side make a square of 48.
    assert prompt[size // 2, size // 2].tolist() == list(RED)
    inside = prompt[:, :, 0] > 100
    assert inside.mean() == pytest.approx((40 / 48) ** 2, abs=0.06)
    corner = prompt[0, 0].astype(float)
    np.testing.assert_allclose(corner, BACKGROUND_INTENSITY * np.array(GREEN), atol=3)


def test_background_is_blurred_and_the_object_is_not() -> None:
    image, mask = scene((20, 30, 60, 70))
    stripes = (np.indices(mask.shape).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = np.repeat(stripes[:, :, None], 3, axis=2)
    plain = visual_prompt(image, mask, 48, 'crop').astype(float)
    prompt = visual_prompt(image, mask, 48).astype(float)
    middle, border = np.s_[16:32, 16:32], np.s_[:2, :]
    np.testing.assert_array_equal(prompt[middle], plain[middle])
    assert prompt[border].std() / BACKGROUND_INTENSITY < plain[border].std()


def test_crop_keeps_the_background() -> None:
    image, mask = scene((20, 30, 60, 70))
    prompt = visual_prompt(image, mask, 48, 'crop')
    assert prompt[0, 0].tolist() == list(GREEN)
    assert prompt[24, 24].tolist() == list(RED)


def test_proportions_are_kept() -> None:
    image, mask = scene((40, 10, 50, 90))
    red = visual_prompt(image, mask, 96)[:, :, 0] > 100
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(8, rel=0.2)


@pytest.mark.parametrize(
    'box', [(0, 0, 10, 10), (80, 110, 90, 120), (0, 0, 90, 120), (0, 50, 90, 54), (45, 60, 46, 61)]
)
@pytest.mark.parametrize('method', METHODS)
def test_objects_at_the_edge_and_of_any_size(box: tuple[int, int, int, int], method: str) -> None:
    image, mask = scene(box)
    prompt = visual_prompt(image, mask, 48, method)
    assert prompt.shape == (48, 48, 3)
    assert (prompt[:, :, 0] > 150).any()


def test_outside_of_the_image_is_black() -> None:
    image, mask = scene((0, 0, 90, 120))
    prompt = visual_prompt(image, mask, 48, 'crop')
    assert not prompt[0].any()
    assert not prompt[-1].any()


def test_without_a_mask_the_whole_image_is_the_prompt() -> None:
    image, _ = scene((20, 30, 60, 70))
    prompt = visual_prompt(image, None, 30)
    assert prompt.shape == (30, 30, 3)
    assert prompt[0, 0].tolist() == list(GREEN)
    assert (prompt[:, :, 0] > 100).mean() == pytest.approx(1600 / (90 * 120), abs=0.03)


def test_what_cannot_be_a_visual_prompt() -> None:
    image, mask = scene((20, 30, 60, 70))
    with pytest.raises(PromptError, match='crop_blur_dark, crop'):
        visual_prompt(image, mask, 48, 'glow')
    with pytest.raises(PromptError, match='empty'):
        visual_prompt(image, np.zeros_like(mask), 48)
    with pytest.raises(PromptError, match=r'\(90, 120\), not \(10, 120\)'):
        visual_prompt(image, mask[:10], 48)
    with pytest.raises(ImageError, match='float'):
        visual_prompt(image.astype(float), mask, 48)  # type: ignore[arg-type]
