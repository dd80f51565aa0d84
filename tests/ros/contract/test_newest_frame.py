"""A camera of 60 Hz at 720p before a model of 100 ms: the newest frame wins, and nothing piles up.

Camera, node and consumer are processes of their own. The node writes down each image that it is
given and each that it takes, so that no tolerance is needed to say whether it took the newest.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from processes.recorded_node import RECORD
from ros_peers import PROFILE, NodeProcess

from clipseg_ros.process.domain import claimed_domain
from clipseg_ros.ros.share import profile_variable

RATE, WIDTH, HEIGHT, MODEL_MS = 60.0, 1280, 720, 100.0
SETTLE = 5.0
"""Seconds before memory counts: first frames, buffers of three outputs."""


def film(folder: Path, seconds: float) -> dict[str, Any]:
    """Runs the three processes; returns all that they wrote down."""
    records, arrivals = folder / 'records', folder / 'arrivals.json'
    here = Path(__file__).parents[1]
    with claimed_domain() as domain:
        # The middleware's checks of every field are for tests of messages, and slow.
        environment = {
            'ROS_DOMAIN_ID': str(domain),
            profile_variable(os.environ): str(PROFILE),
            'ROS_PYTHON_CHECK_FIELDS': '0',
        }
        parameters = ['--ros-args', '-p', "prompt:='mug; chair; bowl'"]
        node = NodeProcess(
            str(here / 'processes' / 'recorded_node.py'),
            script=[str(records), str(MODEL_MS), *parameters],
            environment=environment,
        )
        consumer = NodeProcess(
            str(here.parents[1] / 'training' / 'benchmarks' / 'node_peers' / 'receiver.py'),
            script=['--output', str(arrivals), '--topics', 'mask', 'labels', 'overlay'],
            environment=environment,
        )
        options = f'--width {WIDTH} --height {HEIGHT} --rate {RATE}'.split()
        running, memory = [consumer, node], []
        try:
            node.wait_for('active:', 60)
            consumer.wait_for('receiver ready', 60)
            camera = NodeProcess(
                str(here.parents[1] / 'training' / 'benchmarks' / 'node_peers' / 'camera.py'),
                script=[*options, '--seconds', str(seconds + SETTLE)],
                environment=environment,
            )
            running.insert(0, camera)
            camera.wait_for('publishing', 60)
            time.sleep(SETTLE)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                memory.append(memory_of(node.pid))
                time.sleep(0.5)
            assert camera.join(60) == 0, camera.output
            # The last diagnostics, of a node that rests.
            time.sleep(2.5)
        finally:
            statuses = [process.stop() for process in running]
        assert statuses == [0, 0, 0], node.output + consumer.output
    report = json.loads(arrivals.read_text())
    events = [RECORD.unpack(chunk) for chunk in _chunks(records.read_bytes())]
    return {
        'puts': [(stamp, at) for taken, stamp, at in events if not taken],
        'takes': [(stamp, at) for taken, stamp, at in events if taken],
        'events': events,
        'sent': json.loads(camera.lines[-1])['stamps'],
        'left out': json.loads(camera.lines[-1])['left_out'],
        'masks': [stamp for stamp, _ in report['arrivals']['mask']],
        'counts': {
            name: int(report['diagnostics'][-1][name])
            for name in ('received', 'processed', 'dropped', 'failed', 'lost')
        },
        'memory': memory,
    }


def memory_of(process: int) -> tuple[float, float]:
    """Its own memory, and what it shares with others (the middleware's segments): megabytes."""
    lines = Path(f'/proc/{process}/status').read_text().splitlines()
    kilobytes = {line.split(':')[0]: int(line.split()[1]) for line in lines if 'Rss' in line}
    return kilobytes['RssAnon'] / 1e3, kilobytes['RssShmem'] / 1e3


def _chunks(data: bytes) -> list[bytes]:
    return [data[i : i + RECORD.size] for i in range(0, len(data), RECORD.size)]


def figures(seen: dict[str, Any]) -> dict[str, float]:
    """What there is to say in milliseconds and megabytes."""
    transport = [(at - stamp) / 1e6 for stamp, at in seen['puts']]
    # After the last image there is none that could be newer.
    ages = [(at - stamp) / 1e6 for stamp, at in seen['takes'] if at < seen['puts'][-1][1]]
    gaps = [(b - a) / 1e6 for a, b in pairwise(stamp for stamp, _ in seen['puts'])]
    # The first tenth is for arenas of the allocator, and pages of shared memory.
    memory = seen['memory'][len(seen['memory']) // 10 :]
    own, shared = ([values[side] for values in memory] for side in (0, 1))
    half = len(own) // 2
    return {
        'sent': len(seen['sent']),
        'left out by the camera': seen['left out'],
        'put': len(seen['puts']),
        'taken': len(seen['takes']),
        'dropped': seen['counts']['dropped'],
        'lost': seen['counts']['lost'],
        'masks': len(seen['masks']),
        'transport': round(statistics.median(transport), 1),
        'transport_max': round(max(transport), 1),
        'age': round(statistics.median(ages), 1),
        'age_max': round(max(ages), 1),
        'gap': round(statistics.median(gaps), 1),
        'gap_max': round(max(gaps), 1),
        'memory_first': round(own[0], 1),
        'memory_last': round(own[-1], 1),
        'shared_first': round(shared[0], 1),
        'shared_last': round(shared[-1], 1),
        'growth': round(statistics.median(own[half:]) - statistics.median(own[:half]), 2),
    }


def check(seen: dict[str, Any], growth_mb: float) -> None:
    """Asserts what is promised; the figures are shown where it does not hold."""
    told = figures(seen)
    print(json.dumps(told, indent=1))
    # What is taken is what was put last, each time.
    newest = None
    for taken, stamp, _ in seen['events']:
        if taken:
            assert stamp == newest, f'an older image was taken: {told}'
        newest = stamp
    # So it is no older than until the next one came.
    assert told['age_max'] <= told['gap_max'] + told['transport_max'], told
    assert told['age'] <= 1000 / RATE + told['transport'], told
    # Each image was either taken or dropped, and each that was taken was answered.
    counts = seen['counts']
    assert counts['failed'] == 0
    assert counts['received'] == len(seen['puts'])
    assert counts['dropped'] == len(seen['puts']) - len(seen['takes'])
    assert counts['processed'] == len(seen['takes'])
    # The consumer keeps one message: on a busy machine it may miss a few.
    answered = set(seen['masks'])
    assert seen['masks'] == [stamp for stamp, _ in seen['takes'] if stamp in answered], 'in order'
    assert len(answered) > 0.99 * len(seen['takes']), told
    # And each that was sent has come, or is told to be lost (on a busy machine).
    since_first = seen['sent'][seen['sent'].index(seen['puts'][0][0]) :]
    came = {stamp for stamp, _ in seen['puts']}
    last = max(number for number, stamp in enumerate(since_first) if stamp in came)
    assert counts['lost'] == last + 1 - len(came), told
    # The model has no rest.
    span = (seen['takes'][-1][1] - seen['takes'][0][1]) / 1e9
    assert 0.7 * 1000 / MODEL_MS < (len(seen['takes']) - 1) / span <= 1000 / MODEL_MS, told
    assert told['growth'] < growth_mb, told
    # A segment of 32 MB on each side, at most.
    assert told['shared_last'] < 80, told


@pytest.mark.slow
@pytest.mark.ci
def test_a_fast_camera_before_a_slow_model(tmp_path: Path) -> None:
    """Of 900 images of 2.8 MB."""
    check(film(tmp_path, seconds=10), growth_mb=20.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_minutes(tmp_path: Path) -> None:
    """Of 36,000 images."""
    check(film(tmp_path, seconds=600), growth_mb=5.0)
