"""A node that is configured and cleaned up again and again: nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ros_peers import ROOT

from clipseg_ros.process.domain import claimed_domain

FLAT = ('threads', 'files', 'publishers', 'subscriptions', 'entities')


def walk(model: Path, cycles: int) -> dict[str, Any]:
    """Runs the cycles in a process of their own."""
    host = Path(__file__).parents[1] / 'processes' / 'cycle_host.py'
    with claimed_domain() as domain:
        answer = subprocess.run(
            [sys.executable, host, model, str(cycles)],
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONPATH': _paths()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    assert 'Traceback' not in answer.stderr
    seen: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return seen


def _paths() -> str:
    return f'{ROOT}:{os.environ.get("PYTHONPATH", "")}'


def test_cleanup_frees_the_model_and_takes_everything_away(tiny_model: Path) -> None:
    seen = walk(tiny_model, 4)
    assert seen['loaded'] == 4
    assert seen['alive'] == [0, 0], 'segmenters and models are gone'
    assert seen['late'] == 0, 'before cleanup gives memory back to the system'
    for what in FLAT:
        assert len({after[what] for after in seen['seen'][1:]}) == 1, (what, seen['seen'])


@pytest.mark.slow
def test_a_hundred_cycles_leave_nothing_behind(tiny_model: Path) -> None:
    seen = walk(tiny_model, 100)
    assert seen['alive'] == [0, 0]
    after = seen['seen']
    for what in FLAT:
        assert len({one[what] for one in after[1:]}) == 1, what
    # The first ten warm allocators and caches up.
    memory = [one['rss_kb'] for one in after]
    grown = sum(memory[-10:]) / 10 - sum(memory[10:20]) / 10
    print(f'resident: {memory[10]} kB after 11 cycles, {memory[-1]} kB after 100')
    # Measured: 2 to 6 MB, which is the middleware's and the allocator's; a model more is not.
    assert grown < 12288, f'{grown:.0f} kB in 80 cycles: {memory[::10]}'
    objects = [one['objects'] for one in after]
    assert objects[-1] - objects[10] < 500, (objects[::10], seen['more'])
