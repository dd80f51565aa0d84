"""A short storm of hostile messages; ``make fuzz`` has the long ones."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.storm import crowds, storm

SEED = int(os.environ.get('FUZZ_SEED', '17'))


@pytest.mark.parametrize(
    'compressed',
    [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.ci])],
    ids=['raw', 'compressed'],
)
def test_the_node_answers_through_a_storm(compressed: bool) -> None:
    found = storm(SEED, 6.0, 2.0, compressed)
    # Other processes of the machine may take their time.
    problems = [problem for problem in found['problems'] if 'an answer after' not in problem]
    assert problems == [], found['log_tail'][-40:]
    assert found['bursts'] >= 1
    assert found['messages'] >= 50
    assert found['slowest_answer_s'] < 15.0


def test_a_log_of_more_than_two_lines_a_second_is_found() -> None:
    def log(*times: float) -> list[str]:
        return [f"[WARN] [{1e9 + time:.3f}] [clipseg]: prompt 'x{time}' refused" for time in times]

    assert crowds(log(0.0, 0.1, 1.2, 1.3, 2.4)) == []
    [found] = crowds(log(0.0, 5.0, 5.1, 5.9, 9.0))
    assert '3 lines in 0.90 s: WARN prompt # refused' in found
    # Lines without a time, by when they were there; those of the middleware do not count.
    plain = [f'{number} of something' for number in range(9)]
    theirs = ["  'Fast CDR exception deserializing message of type x', at y"] * 50
    lines = [*plain, *theirs]
    assert crowds(lines, [(0, 0.0), (len(lines), 4.0)]) == []
    assert crowds(lines, [(0, 0.0), (len(lines), 2.0)]) == ['9 lines in 2.00 s: # of something']
