from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_frame_outputs import HEIGHT, WIDTH, closer_look, spot

from clipseg_model.outputs.mask_window import Scratch, find_window, logits_in, meeting
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.segmentation import PromptResult

# Logits, and the image: heights and widths. Larger in all ratios, as large, and smaller.
SIZES = [
    ((256, 256), (720, 1280)),
    ((352, 352), (480, 641)),
    ((48, 64), (90, 131)),
    ((7, 5), (100, 3)),
    ((5, 7), (61, 97)),
    ((64, 64), (64, 64)),
    ((64, 48), (32, 24)),
    ((64, 48), (40, 90)),
    ((1, 1), (9, 33)),
]


def noise(
    shape: tuple[int, int], size: tuple[int, int], seed: int = 0, region: Box | None = None
) -> PromptResult:
    logits = np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)
    return PromptResult(Prompt('noise'), 0.5, 0.9, True, logits, *size, region=region)


def small(row: int, column: int) -> PromptResult:
    """On at 3 x 4 of 48 x 64 logits; the image is ten times as large."""
    return replace(spot(row, column), height=480, width=640)


def assert_same_everywhere(result: PromptResult, seen: Box) -> None:
    random, scratch = np.random.default_rng(1), Scratch()
    whole = result.resized_logits()
    for _ in range(60):
        top, bottom = np.sort(random.integers(seen.top, seen.bottom + 1, 2))
        left, right = np.sort(random.integers(seen.left, seen.right + 1, 2))
        if top == bottom or left == right:
            continue
        # What another frame has left behind.
        for array in scratch._arrays.values():
            array.fill(np.nan)
        window = Box(int(left), int(top), int(right), int(bottom))
        np.testing.assert_array_equal(logits_in(result, window, scratch), whole[window.slices])


@pytest.mark.parametrize(('shape', 'size'), SIZES)
def test_logits_in_a_window_are_those_of_the_image(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    assert_same_everywhere(noise(shape, size), Box(0, 0, size[1], size[0]))


def test_logits_in_a_window_of_a_region() -> None:
    region = Box(33, 21, 233, 121)
    assert_same_everywhere(noise((48, 64), (240, 320), region=region), region)


def test_logits_in_a_window_with_a_close_up() -> None:
    assert_same_everywhere(closer_look(0), Box(0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize(('row', 'column'), [(0, 0), (20, 30), (45, 60)])
def test_a_window_holds_the_mask_and_little_else(row: int, column: int) -> None:
    result = small(row, column)
    window = find_window(result)
    assert window is not None
    outside = result.mask.copy()
    outside[window.slices] = False
    assert not outside.any()
    # 30 x 40 pixels, and what the next logits can reach.
    assert window.height * window.width <= (30 + 24) * (40 + 24)


def test_no_window_where_nothing_can_be_on() -> None:
    assert find_window(replace(small(3, 3), presence=False)) is None
    below = replace(small(3, 3), logits=np.full((4, 4), -0.5, np.float32))
    assert find_window(below) is None
    assert find_window(replace(below, threshold=0.3)) == Box(0, 0, 640, 480)


def test_which_windows_meet() -> None:
    windows = [
        Box(0, 0, 10, 10),
        Box(9, 9, 20, 20),
        Box(0, 10, 9, 20),
        Box(10, 0, 30, 5),
        Box(29, 2, 31, 3),
    ]
    assert meeting(windows).tolist() == [True, True, False, True, True]
    assert meeting([]).tolist() == []
    assert meeting(windows[:1]).tolist() == [False]


def test_scratch_is_used_again() -> None:
    scratch = Scratch()
    first = scratch.floats('a', (6, 8))
    assert np.shares_memory(first, scratch.floats('a', (2, 3)))
    assert not np.shares_memory(first, scratch.floats('b', (6, 8)))
    assert scratch.floats('a', (60, 8)).shape == (60, 8)
    assert scratch.bytes('a', (6, 8)).dtype == np.uint8
