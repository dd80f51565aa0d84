"""The node's benchmark: what it makes of stamps and arrivals, and that it runs."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest

from training.benchmarks.machine import describe
from training.benchmarks.node import PACKAGES, main, make_parser
from training.benchmarks.node_cases import (
    SETTLE,
    BenchmarkError,
    Case,
    markdown,
    model_duration,
    summarise,
    summarise_cameras,
)

MS = 1_000_000
NS = 1_000_000_000
FIRST = 7 * NS
NEEDS_ROS = pytest.mark.skipif(find_spec('rclpy') is None, reason='needs ROS 2 (rclpy)')

CASE = Case(
    subject='own',
    model='stand-in:30',
    width=1280,
    height=720,
    camera_hz=30.0,
    outputs=('mask', 'labels'),
    sent_hz=30.0,
    masks_hz=29.96,
    latency=33.44,
    latency_p95=36.0,
    latency_max=40.0,
    complete=34.0,
    beyond=4.0,
    age=50.0,
    jitter=1.0,
    dropped=0.012,
    cpu=0.5,
    memory_mb=600.0,
    growth_mb=0.1,
)


def stamps(count: int, period: int) -> list[int]:
    """Frames that do not count, from the start on, and ``count`` that do."""
    start = FIRST + int(SETTLE * NS)
    return [FIRST, FIRST + 5 * MS, *(start + number * period for number in range(count))]


def test_every_frame_answered_at_the_same_pace() -> None:
    sent = stamps(11, 100 * MS)
    arrivals = {
        'mask': [(stamp, stamp + 35 * MS) for stamp in sent],
        'labels': [(stamp, stamp + 40 * MS) for stamp in sent],
    }
    times = summarise(sent, arrivals, ('mask', 'labels'))
    # The mask of the last frame comes after the camera's end, and so does not count as fast.
    assert times['latency'] == pytest.approx(35)
    assert times['latency_max'] == pytest.approx(35)
    assert times['complete'] == pytest.approx(40)
    assert times['masks_hz'] == pytest.approx(10)
    assert times['sent_hz'] == pytest.approx(11)
    assert times['jitter'] == pytest.approx(0)
    assert times['dropped'] == 0
    # Newest at 35 ms, and 135 ms old when the next one comes.
    assert times['age'] == pytest.approx(85)


def test_several_cameras_are_averaged() -> None:
    sent = stamps(11, 100 * MS)
    late = {'camera_1': 30 * MS, 'camera_2': 50 * MS}
    arrivals = {
        f'/{name}/clipseg/mask': [(stamp, stamp + latency) for stamp in sent]
        for name, latency in late.items()
    }
    times = summarise_cameras(sent, arrivals, ('mask',), list(late))
    assert times['latency'] == pytest.approx(40)
    assert times['latency_max'] == pytest.approx(50)
    assert times['masks_hz'] == pytest.approx(10)
    one = {'mask': arrivals['/camera_1/clipseg/mask']}
    assert summarise_cameras(sent, one, ('mask',), []) == summarise(sent, one, ('mask',))


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--cameras', '0'], 'at least 1'),
        (['--cameras', '3'], '--subjects own'),
        (['--cameras', '3', '--subjects', 'own'], '--model tabletop'),
    ],
)
def test_cameras_that_cannot_be_measured(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_dropped_frames_and_late_ones() -> None:
    sent = stamps(10, 100 * MS)
    counted = sent[2:]
    masks = [(stamp, stamp + 150 * MS) for stamp in counted[::2]]
    arrivals = {'mask': masks, 'labels': masks[1:]}
    times = summarise(sent, arrivals, ('mask', 'labels'))
    assert times['dropped'] == pytest.approx(0.5)
    assert times['masks_hz'] == pytest.approx(5)
    assert times['age'] == pytest.approx(250)
    # The first frame has no labels, and is not complete.
    assert times['complete'] == pytest.approx(150)


def test_jitter_is_of_the_time_between_masks() -> None:
    sent = stamps(6, 100 * MS)
    late = [0, 20, 0, 20, 0, 0]
    masks = [
        (stamp, stamp + (10 + extra) * MS) for stamp, extra in zip(sent[2:], late, strict=True)
    ]
    times = summarise(sent, {'mask': masks}, ('mask',))
    assert times['jitter'] == pytest.approx(20)


def test_what_arrives_too_rarely_says_so() -> None:
    sent = stamps(10, 100 * MS)
    with pytest.raises(BenchmarkError, match=r'2 masks of 10 frames.*Fast DDS'):
        summarise(sent, {'mask': [(s, s + MS) for s in sent[2:4]]}, ('mask',))


def test_the_models_duration() -> None:
    assert model_duration('stand-in:12.5', []) == 12.5
    reported = [{}, {'model_ms': '0.0'}, {'model_ms': '20.0'}, {'model_ms': '22.0'}]
    assert model_duration('tabletop', reported) == pytest.approx(21)
    assert model_duration('tabletop', [{'state': 'active'}]) is None


def test_the_table() -> None:
    rows = markdown([CASE, replace(CASE, subject='plain', beyond=None)]).splitlines()
    assert len(rows) == 4
    assert {row.count('|') for row in rows} == {14}
    assert '| own, 3 cameras |' in markdown([replace(CASE, cameras=3)])
    assert (
        '| own | stand-in:30 | 1280 × 720 | mask, labels | 30 | 30.0 | 33.4 (36.0) | 4.0 |'
        in (rows[2])
    )
    assert '| plain |' in rows[3]
    assert '33.4 (36.0) |  |' in rows[3]


def test_the_machine_is_named() -> None:
    machine = describe(PACKAGES)
    assert machine['cores'] >= 1
    assert machine['memory_gb'] > 0
    assert machine['versions']['torch']
    json.dumps(machine)


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    options = make_parser().parse_args(['--size', '640x480', '--outputs', 'mask,labels', 'mask'])
    assert options.size == [(480, 640)], 'height first'
    assert options.outputs == [('mask', 'labels'), ('mask',)]
    assert isinstance(options, argparse.Namespace)
    with pytest.raises(SystemExit):
        make_parser().parse_args(['--size', '640'])
    assert "WIDTHxHEIGHT, unlike '640'" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Undoes what the benchmark sets for its processes."""
    with mock.patch.dict(os.environ):
        yield


@NEEDS_ROS
@pytest.mark.slow
def test_it_runs_both_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['--model', 'stand-in:5', '--size', '320x240', '--rates', '20', '--seconds', '8']
    subjects = ['--subjects', 'own', 'plain', '--output', str(tmp_path)]
    assert main([*arguments, *subjects]) == 0
    result = json.loads((tmp_path / 'node.json').read_text())
    own, plain = result['cases']
    assert (own['subject'], plain['subject']) == ('own', 'plain')
    # On a busy machine the plain node is far behind.
    for case, least in ((own, 10), (plain, 1)):
        assert least < case['masks_hz'] < 25
        assert 5 < case['latency'] <= case['complete']
        assert case['cpu'] > 0
    assert (tmp_path / 'node.md').read_text() in capsys.readouterr().out


@NEEDS_ROS
@pytest.mark.slow
def test_a_node_that_cannot_start_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = ['--subjects', 'plain', '--output', str(tmp_path)]
    assert main(['--model', 'no-such-model', *subjects]) == 1
    assert 'no-such-model' in capsys.readouterr().err
    assert not (tmp_path / 'node.json').exists()


@NEEDS_ROS
@pytest.mark.slow
def test_memory_does_not_grow(tmp_path: Path) -> None:
    outputs = ['--outputs', 'mask,labels,confidence,probability,overlay', '--subjects', 'own']
    camera = ['--model', 'stand-in:10', '--size', '640x480', '--rates', '30', '--memory', '60']
    assert main([*camera, *outputs, '--output', str(tmp_path)]) == 0
    (case,) = json.loads((tmp_path / 'node.json').read_text())['cases']
    assert case['masks_hz'] > 20
    # 1,800 frames: one that was kept, of the smallest kind, would be 500 MB.
    assert case['growth_mb'] < 20
