"""Partners by their stamps: whatever the order in which they come."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from clipseg_ros.depth.stamp_matching import Match, StampMatcher

MS = 1_000_000
PERIOD = 33 * MS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def matcher_of(clock: Clock, slop: int = 0, wait: float = 0.25) -> StampMatcher[str]:
    return StampMatcher(('depth', 'info'), slop, wait, clock)


def both(matcher: StampMatcher[str], stamp: int) -> None:
    matcher.add('depth', stamp, f'depth {stamp}')
    matcher.add('info', stamp, f'info {stamp}')


def frame_of(match: Match[str] | None) -> str:
    assert match is not None
    return match.frame


ORDERS = [
    order
    for order in itertools.permutations(('expect', 'put', 'depth', 'info'))
    if order.index('expect') < order.index('put')
]


@pytest.mark.parametrize('order', [*ORDERS, ('put', 'depth', 'info'), ('depth', 'info', 'put')])
def test_any_order_matches(clock: Clock, order: tuple[str, ...]) -> None:
    matcher = matcher_of(clock)
    for step in order:
        assert matcher.take() is None
        if step == 'expect':
            matcher.expect(7)
        elif step == 'put':
            matcher.put(7, 'image')
        else:
            matcher.add(step, 7, step.upper())
    match = matcher.take()
    assert match == Match('image', {'depth': 'DEPTH', 'info': 'INFO'}, {})
    assert matcher.take() is None
    assert matcher.counts == {'matched': 1, 'unmatched': 0, 'skipped': 0}


def test_partners_are_kept_for_as_long_as_the_model_takes(clock: Clock) -> None:
    matcher = matcher_of(clock)
    both(matcher, 0)
    matcher.expect(0)
    for number in range(1, 300):  # Ten seconds of a camera.
        both(matcher, number * PERIOD)
    matcher.put(0, 'slow')
    match = matcher.take()
    assert frame_of(match) == 'slow'
    assert match is not None
    assert match.partners == {'depth': 'depth 0', 'info': 'info 0'}


def test_what_was_not_announced_is_soon_forgotten(clock: Clock) -> None:
    matcher = matcher_of(clock)
    for number in range(30):
        both(matcher, number * PERIOD)
    matcher.put(0, 'old')
    match = matcher.take()
    assert match is not None
    assert match.partners == {}
    assert match.missing == {'depth': 22 * PERIOD, 'info': 22 * PERIOD}
    assert matcher.counts == {'matched': 0, 'unmatched': 1, 'skipped': 0}


def test_memory_is_bounded(clock: Clock) -> None:
    matcher = matcher_of(clock, wait=1e9)
    for number in range(1000):
        matcher.expect(number)
    for number in range(1000):
        matcher.put(5000 + number, 'image')
        matcher.add('depth', 10 * number, 'depth')
    assert len(matcher._pending) <= 3 * 8
    assert all(len(items) <= 8 for items in matcher._recent.values())
    assert frame_of(matcher.take()) == 'image'
    assert sum(matcher.counts.values()) >= 1000 - 8


def test_the_exact_stamp_alone_without_slop(clock: Clock) -> None:
    matcher = matcher_of(clock)
    matcher.put(100 * MS, 'image')
    both(matcher, 100 * MS - 4)
    assert matcher.take() is None, 'the right one may still come'
    both(matcher, 100 * MS + 3)
    match = matcher.take()
    assert match is not None
    assert match.missing == {'depth': 3, 'info': 3}


def test_the_nearest_within_the_slop(clock: Clock) -> None:
    matcher = matcher_of(clock, slop=20 * MS)
    matcher.expect(100 * MS)
    for stamp in (79 * MS, 81 * MS, 95 * MS, 108 * MS, 121 * MS):
        both(matcher, stamp)
    matcher.put(100 * MS, 'image')
    match = matcher.take()
    assert match is not None
    assert match.partners == {'depth': f'depth {95 * MS}', 'info': f'info {95 * MS}'}


def test_a_stream_that_is_past_the_frame_ends_the_waiting(clock: Clock) -> None:
    matcher = matcher_of(clock, slop=5 * MS)
    matcher.add('info', 100 * MS, 'info')
    matcher.put(100 * MS, 'image')
    matcher.add('depth', 90 * MS, 'before')
    assert matcher.take() is None
    matcher.add('depth', 106 * MS, 'after')
    match = matcher.take()
    assert match is not None
    assert match.partners == {'info': 'info'}
    assert match.missing == {'depth': 6 * MS}


def test_waiting_ends_with_the_time(clock: Clock) -> None:
    matcher = matcher_of(clock, wait=0.25)
    assert matcher.seconds_left() is None
    matcher.put(0, 'image')
    assert matcher.seconds_left() == pytest.approx(0.25)
    clock.now += 0.2
    assert matcher.take() is None
    assert matcher.seconds_left() == pytest.approx(0.05)
    clock.now += 0.05
    match = matcher.take()
    assert match is not None
    assert match.missing == {'depth': None, 'info': None}
    assert matcher.seconds_left() is None


def test_depth_that_is_always_late_is_matched_all_the_same(clock: Clock) -> None:
    matcher = matcher_of(clock)
    taken = []
    for number in range(40):
        matcher.put(number * PERIOD, f'image {number}')
        if number >= 4:  # Four periods late.
            both(matcher, (number - 4) * PERIOD)
        clock.now += 0.033
        match = matcher.take()
        if match is not None:
            taken.append((match.frame, match.missing))
    assert taken == [(f'image {number}', {}) for number in range(36)]


def test_the_newest_complete_frame_passes_over_older_ones(clock: Clock) -> None:
    matcher = matcher_of(clock)
    for stamp in (1, 2, 3, 4):
        matcher.put(stamp, f'image {stamp}')
    both(matcher, 1)
    both(matcher, 3)
    assert frame_of(matcher.take()) == 'image 3'
    assert matcher.counts == {'matched': 1, 'unmatched': 1, 'skipped': 1}
    both(matcher, 4)
    assert frame_of(matcher.take()) == 'image 4'


def test_frames_that_cannot_be_compared(clock: Clock) -> None:
    matcher: StampMatcher[np.ndarray] = StampMatcher(('depth', 'info'), clock=clock)
    frames = [np.zeros((2, 2)) for _ in range(3)]
    for frame in frames:  # A camera that repeats its stamp, and a picture that stays the same.
        matcher.put(7, frame)
        matcher.add('depth', 7, frame)
    matcher.add('info', 7, np.zeros(9))
    match = matcher.take()
    assert match is not None
    assert match.frame is frames[-1]
    assert matcher.counts == {'matched': 1, 'unmatched': 0, 'skipped': 2}
    assert matcher.take() is None


def test_many_that_wait_give_the_oldest_up(clock: Clock) -> None:
    matcher = matcher_of(clock, wait=100.0)
    for number in range(8):
        matcher.put(number, f'image {number}')
        assert matcher.take() is None
    matcher.put(8, 'image 8')
    assert frame_of(matcher.take()) == 'image 0'


def test_stamps_that_jump_back(clock: Clock) -> None:
    matcher = matcher_of(clock)
    for number in range(50, 60):
        both(matcher, number * PERIOD)
    both(matcher, 0)  # A recording starts again.
    matcher.put(0, 'again')
    assert frame_of(matcher.take()) == 'again'
    matcher.put(PERIOD, 'next')
    assert matcher.take() is None
    both(matcher, PERIOD)
    match = matcher.take()
    assert match is not None
    assert match.partners == {'depth': f'depth {PERIOD}', 'info': f'info {PERIOD}'}


def test_the_same_stamp_again(clock: Clock) -> None:
    matcher = matcher_of(clock)
    both(matcher, 5)
    for name in ('first', 'second'):
        matcher.expect(5)
        matcher.put(5, name)
        assert frame_of(matcher.take()) == name
    matcher.add('depth', 5, 'newer')
    matcher.put(5, 'third')
    match = matcher.take()
    assert match is not None
    assert match.partners['depth'] == 'newer'


# What is published once.


def test_what_is_held_serves_every_frame_at_once(clock: Clock) -> None:
    matcher = matcher_of(clock)
    matcher.hold('info', 0, 'once')
    for stamp in (5 * 10**9, 10**10, 10**12):
        assert not matcher.find(stamp).get('depth')
        matcher.put(stamp, f'image {stamp}')
        assert matcher.take() is None, 'depth is not there yet'
        matcher.add('depth', stamp, 'depth')
        expected = {'depth': 'depth', 'info': 'once'}
        assert matcher.find(stamp) == expected
        assert matcher.take() == Match(f'image {stamp}', expected, {})


def test_a_frame_s_own_goes_before_what_is_held(clock: Clock) -> None:
    matcher = matcher_of(clock)
    matcher.hold('info', 0, 'once')
    both(matcher, 10**10)
    matcher.put(10**10, 'image')
    match = matcher.take()
    assert match is not None
    assert match.partners['info'] == f'info {10**10}'


def test_a_frame_of_the_same_time_waits_for_its_own_and_is_served_in_the_end(clock: Clock) -> None:
    matcher = matcher_of(clock)
    matcher.hold('info', 0, 'of the frame before')
    matcher.add('depth', PERIOD, 'depth')
    matcher.put(PERIOD, 'image')
    assert matcher.take() is None, 'its own may come yet'
    clock.now += 0.3
    match = matcher.take()
    assert match == Match('image', {'depth': 'depth', 'info': 'of the frame before'}, {})
    assert matcher.counts == {'matched': 1, 'unmatched': 0, 'skipped': 0}


def test_what_is_held_can_be_replaced_and_forgotten(clock: Clock) -> None:
    matcher = matcher_of(clock)
    for number in range(2):
        matcher.hold('info', number, f'calibration {number}')
    assert matcher.has('info')
    assert matcher.find(10**10) == {'info': 'calibration 1'}
    matcher.forget()
    assert not matcher.has('info')
    assert matcher.find(10**10) == {}
