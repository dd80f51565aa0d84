"""Single things and their ids, by masks that are made and by those of the simulated world."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import RegionError
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_ros.outputs.things import Thing, ThingTracker, write_instances
from clipseg_ros.prompts.set import ActivePrompt
from tabletop_world.render.live import LiveWorld

HEIGHT, WIDTH = 60, 80
PROMPTS = [ActivePrompt(4, Prompt('mug')), ActivePrompt(9, Prompt('bowl'))]


def found(*masks: NDArray[np.bool_], presence: bool = True) -> Segmentation:
    height, width = masks[0].shape
    return Segmentation(
        height,
        width,
        [
            PromptResult(
                Prompt(f'thing {n}'), 0.5, 1.0, presence,
                np.where(mask, np.float32(8), np.float32(-8)), height, width,
            )
            for n, mask in enumerate(masks)
        ],
        'truth',
    )  # fmt: skip


def rectangles(*boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


NONE = rectangles()


def ids(things: tuple[Thing, ...]) -> dict[int, int]:
    """Left side of a thing's box → its id."""
    return {thing.instance.box[0]: thing.id for thing in things}


def test_things_keep_their_ids_while_they_move_and_others_come_and_go() -> None:
    tracker = ThingTracker()
    for step in range(10):
        left = (5 + step, 5, 12, 12)
        right = (40 - step, 30, 12, 10)
        boxes = (right, left) if step != 5 else (left,)
        mask = rectangles(*boxes, *([(60, 45, 19, 14)] if step > 2 else []))
        seen = ids(tracker.update(found(mask, NONE), PROMPTS, 1))
        assert seen[5 + step] == 1 if step else set(seen.values()) == {1, 2}
        if step != 5:
            assert seen[40 - step] == 2, 'also after a frame without it'
        if step > 2:
            assert seen[60] == 3, 'a new one, larger than both'


def test_ids_are_of_a_prompt_and_never_given_again() -> None:
    tracker = ThingTracker()
    mask = rectangles((5, 5, 12, 12))
    [first] = tracker.update(found(mask, NONE), PROMPTS, 1)
    [second] = tracker.update(found(NONE, mask), PROMPTS, 1)
    assert (first.id, first.prompt.id) == (1, 4)
    assert (second.id, second.prompt.id) == (2, 9)
    both = tracker.update(found(mask, mask), PROMPTS, 1)
    assert [(thing.prompt.id, thing.id) for thing in both] == [(4, 1), (9, 2)]
    tracker.forget()
    assert [thing.id for thing in tracker.update(found(mask, mask), PROMPTS, 1)] == [3, 4]


def test_of_two_halves_the_larger_keeps_the_id() -> None:
    tracker = ThingTracker()
    [one] = tracker.update(found(rectangles((10, 10, 40, 10)), NONE), PROMPTS, 1)
    halves = tracker.update(found(rectangles((10, 10, 10, 10), (22, 10, 28, 10)), NONE), PROMPTS, 1)
    assert ids(halves) == {22: one.id, 10: 2}


def test_a_thing_that_is_gone_for_long_comes_back_as_another() -> None:
    tracker = ThingTracker()
    mask = rectangles((10, 10, 20, 10))
    tracker.update(found(mask, NONE), PROMPTS, 1)
    for _ in range(30):
        assert tracker.update(found(NONE, NONE), PROMPTS, 1) == ()
    assert ids(tracker.update(found(mask, NONE), PROMPTS, 1)) == {10: 2}


@pytest.mark.parametrize(
    ('interval', 'pause', 'kept'),
    [
        (1 / 30, 0.9, True),
        (1 / 30, 1.1, False),
        (1 / 30, 3600.0, False),
        (1 / 30, -1.1, False),
        (1 / 30, -3600.0, False),
        (2.0, 5.9, True),
        (2.0, 6.1, False),
        (2.0, -7.0, False),
        (9.0, 10.1, False),
        (0.0, 0.0, True),
    ],
)
def test_after_a_gap_of_the_stamps_everything_is_new(
    interval: float, pause: float, kept: bool
) -> None:
    """More than a second, or three times what a slow camera takes, forward or back."""
    tracker, mask, stamp = ThingTracker(), rectangles((10, 10, 20, 10)), 5000.0
    for _ in range(4):
        stamp += interval
        before = ids(tracker.update(found(mask, NONE), PROMPTS, 1, stamp))
    after = ids(tracker.update(found(mask, NONE), PROMPTS, 1, stamp + pause))
    assert (after == before) == kept
    stamp += pause + interval
    assert ids(tracker.update(found(mask, NONE), PROMPTS, 1, stamp)) == after


def test_in_another_view_everything_is_new() -> None:
    tracker, mask = ThingTracker(), rectangles((10, 10, 20, 10))
    views = [(mask, None), (mask, (0, 0, 40, 40)), (mask[:50], (0, 0, 40, 40)), (mask, None)]
    seen = []
    for one, region in views:
        for _ in range(2):
            result = found(one, np.zeros_like(one))
            seen.append(ids(tracker.update(result, PROMPTS, 1, 1.0, region))[10])
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4]


def test_ids_begin_again_only_after_the_last_of_16_bits() -> None:
    tracker = ThingTracker()
    tracker._last = 65_534
    mask = rectangles((5, 5, 10, 10), (30, 5, 11, 10))
    assert set(ids(tracker.update(found(mask, NONE), PROMPTS, 1)).values()) == {65_535, 1}


def test_small_parts_and_absent_prompts_are_no_things() -> None:
    tracker, mask = ThingTracker(), rectangles((5, 5, 3, 3), (30, 5, 11, 10))
    assert list(ids(tracker.update(found(mask, NONE), PROMPTS, 10))) == [30]
    assert tracker.update(found(mask, mask, presence=False), PROMPTS, 1) == ()
    with pytest.raises(RegionError):
        tracker.update(found(mask, NONE), PROMPTS, 0)


def test_the_image_of_ids_follows_the_labels_where_masks_overlap() -> None:
    tracker = ThingTracker()
    mug, bowl = rectangles((5, 5, 20, 20), (50, 5, 9, 9)), rectangles((15, 5, 20, 20))
    result = found(mug, bowl)
    things = tracker.update(result, PROMPTS, 1)
    labels = np.where(bowl, 9, np.where(mug, 4, 0)).astype(np.uint8)
    out = np.full((HEIGHT, WIDTH), 77, np.uint16)
    write_instances(things, labels, out)
    left, right, other = things
    np.testing.assert_array_equal(out == left.id, mug & ~bowl & (np.arange(WIDTH) < 40))
    np.testing.assert_array_equal(out == right.id, mug & (np.arange(WIDTH) > 40))
    np.testing.assert_array_equal(out == other.id, bowl)
    np.testing.assert_array_equal(out == 0, ~(mug | bowl))


def apart(instances: NDArray[Any], wanted: list[int]) -> NDArray[np.bool_]:
    """The pixels of some objects, without those at the border of two of them.

    Two that touch in a mask are one thing.
    """
    mask = np.isin(instances, wanted)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = np.roll(instances, (down, right), (0, 1))
        mask &= (other == instances) | ~np.isin(other, wanted)
    return mask


def share_that_kept_its_id(seed: int, frames: int, width: int, height: int) -> float:
    """The share of sightings in which thing and object belong together, camera moving.

    One prompt finds all objects, so that ids could go from one to the other. An id belongs to the
    object of the renderer that it was on most, and an object to the id that it had most.
    """
    tracker, seen = ThingTracker(), Counter[tuple[int, int]]()
    with LiveWorld(seed, width, height, 'orbit') as world:
        wanted = [one.id for one in world.scene.objects if not one.surface]
        for number in range(frames):
            instances = world.frame(number * 0.1).instances
            mask = apart(instances, wanted)
            # The largest part of each: what occluders cut off is a thing of its own.
            main: dict[int, int] = {}
            result = found(mask, np.zeros_like(mask))
            for thing in tracker.update(result, PROMPTS, 30, number * 0.1):
                x, y, across, down = thing.instance.box
                part = instances[y : y + down, x : x + across][thing.instance.mask]
                [owner] = np.unique(part)
                main.setdefault(int(owner), thing.id)
            seen.update(main.items())
    owners, names = {}, {}  # type: ignore[var-annotated]
    for (owner, name), _ in reversed(seen.most_common()):
        owners[name], names[owner] = owner, name
    assert len(names) >= 2, 'several, or none could swap'
    kept = sum(
        count
        for (owner, name), count in seen.items()
        if owners[name] == owner and names[owner] == name
    )
    return kept / seen.total()


@pytest.mark.slow
@pytest.mark.parametrize('seed', [3, 5, 8])
def test_ids_stay_with_things_over_100_frames_of_a_moving_camera(seed: int) -> None:
    share = share_that_kept_its_id(seed, 100, 320, 240)
    print(f'seed {seed}: {share:.1%}')
    assert share >= 0.95


def test_things_of_one_prompt_keep_their_ids_while_the_camera_moves() -> None:
    assert share_that_kept_its_id(3, 8, 160, 120) >= 0.95
