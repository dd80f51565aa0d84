"""A short storm of hostile messages; ``make fuzz`` has the long ones."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.storm import storm

SEED = int(os.environ.get('FUZZ_SEED', '17'))


@pytest.mark.parametrize(
    'compressed', [False, pytest.param(True, marks=pytest.mark.slow)], ids=['raw', 'compressed']
)
def test_the_node_answers_through_a_storm(compressed: bool) -> None:
    found = storm(SEED, 6.0, 2.0, compressed)
    # Other processes of the machine may take their time.
    problems = [problem for problem in found['problems'] if 'an answer after' not in problem]
    assert problems == [], found['log_tail'][-40:]
    assert found['bursts'] >= 1
    assert found['messages'] >= 50
    assert found['slowest_answer_s'] < 15.0
