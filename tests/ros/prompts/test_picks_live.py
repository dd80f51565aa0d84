"""What somebody points at, while the node runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Point
from prompt_bench import RGB, Bench, close, flood, probability_of
from ros_peers import (
    stamp_of,
)
from sensor_msgs.msg import RegionOfInterest

from clipseg_model.prompts import Prompt


def test_a_point_picks_the_part_of_the_mask_under_it(bench: Bench, seeing_model: Path) -> None:
    labels = bench.show()['labels']
    y, x = (int(value) for value in np.argwhere(labels == 2)[0])
    line = bench.send('pick_point', Point(x=x + 0.7, y=float(y)), "'example' is the part of")
    _, parts = cv2.connectedComponents((labels == 2).view(np.uint8), connectivity=8)
    mask = parts == parts[y, x]
    assert mask.sum() < (labels == 2).sum(), 'the test picture has several parts'
    box = cv2.boundingRect(mask.view(np.uint8))
    assert f'box {tuple(box)}' in line
    # The picture alone, to compare.
    bench.prompt('example: red bowl')
    bench.set(text_weight=0.0)
    try:
        bench.prompt('the mug')
        bench.prompt('example: a chair')
        expected = probability_of(seeing_model, [Prompt(image=RGB, mask=mask)])
        assert close(bench.show()['probability'], expected)
    finally:
        bench.set(text_weight=0.5)


def test_a_box_is_cut_out_of_the_newest_frame(bench: Bench, seeing_model: Path) -> None:
    bench.show()
    bench.prompt('')
    box = RegionOfInterest(x_offset=40, y_offset=30, width=40, height=30)
    line = bench.send('pick_box', box, "'example' is the box: box (40, 30, 40, 30) of a frame")
    assert '160 × 120 px' in line
    mask = np.zeros((120, 160), bool)
    mask[30:60, 40:80] = True
    expected = probability_of(seeing_model, [Prompt(image=RGB, mask=mask)])
    assert close(bench.show()['probability'], expected)


@pytest.mark.parametrize(
    ('name', 'message', 'words'),
    [
        ('pick_point', Point(x=160.0, y=3.0), 'the point (160, 3) lies outside of the frame'),
        ('pick_point', Point(x=-0.5, y=3.0), 'the point (-1, 3) lies outside'),
        ('pick_point', Point(x=float('nan')), 'not finite'),
        ('pick_box', RegionOfInterest(x_offset=5, width=5), 'height 0'),
        ('pick_box', RegionOfInterest(x_offset=160, width=5, height=5), 'outside of its image'),
    ],
)
def test_places_that_are_not_there(bench: Bench, name: str, message: Any, words: str) -> None:
    bench.show()
    since = len(bench.node.lines)
    bench.send(name, message, words)
    assert bench.node.count('prompt(s) active', since) == 0


def test_a_flood_of_picks(bench: Bench) -> None:
    """1,000 a second for 2 s: the camera is served meanwhile, and the last one counts."""
    bench.prompt('')
    bench.images.publish(bench.peer.stamped(RGB))
    bench.send('pick_box', RegionOfInterest(x_offset=9, width=20, height=20), 'is the box')
    since = len(bench.node.lines)
    boxes = (RegionOfInterest(x_offset=n % 90, width=30, height=40) for n in range(2000))
    answered = flood(bench, 'pick_box', boxes)
    last = RegionOfInterest(x_offset=93, y_offset=7, width=30, height=40)
    bench.commands['pick_box'].publish(last)
    bench.node.wait_for('box (93, 7, 30, 40) of a frame', since=since)
    assert bench.node.count('is the box', since) < 20, 'not every one took its time'
    served = {stamp_of(message) for message in list(bench.received['mask'])}
    assert len(served & answered) >= 10
