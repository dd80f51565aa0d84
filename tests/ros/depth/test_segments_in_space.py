"""Positions in ~/segments, between processes, with the package's own messages built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_peers import answer_of, picture, running_node

from clipseg_model.registry import create_model
from clipseg_ros.process.domain import claimed_domain

HEIGHT, WIDTH = 100, 140


@pytest.fixture(scope='module')
def seen(built: dict[str, str], tiny_model: Path) -> Iterator[dict[str, Any]]:
    """What a peer saw of a node, in a domain of their own."""
    with claimed_domain() as domain:
        environment = {**built, 'ROS_DOMAIN_ID': str(domain)}
        stand_ins = Path(__file__).parents[1] / 'stand_ins'
        with_tf2 = {'PYTHONPATH': f'{environment["PYTHONPATH"]}:{stand_ins}'}
        with running_node(
            'clipseg_ros.segment_node',
            {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'"},
            environment={**environment, **with_tf2},
        ) as node:
            yield {**answer_of('space_peer.py', environment), 'log': node.output}


def test_where_the_model_s_masks_are_in_space(seen: dict[str, Any], tiny_model: Path) -> None:
    depth = np.linspace(1.0, 3.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    known = np.ones((HEIGHT, WIDTH), bool)
    known[:, 40:50] = False
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    space = np.stack(((columns - 69.5) / 120 * depth, (rows - 49.5) / 120 * depth, depth), -1)
    expected = create_model(tiny_model, 'cpu').segment(
        picture(HEIGHT, WIDTH, seed=3), ['the mug', 'red bowl']
    )
    assert seen['with depth']['frame'] == 'lens'
    for found, result in zip(seen['with depth']['segments'], expected.results, strict=True):
        area, number, position, low, high, nearest = found
        points = space[result.mask & known]
        assert area == result.mask.sum()
        assert number == len(points) < area
        np.testing.assert_allclose(position, points.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(low, points.min(axis=0), atol=1e-5)
        np.testing.assert_allclose(high, points.max(axis=0), atol=1e-5)
        closest = points[np.argmin(np.linalg.norm(points, axis=1))]
        np.testing.assert_allclose(nearest, closest, atol=1e-5)


@pytest.mark.parametrize('case', ['without depth', 'silent depth'])
def test_segments_come_without_depth_too(seen: dict[str, Any], case: str) -> None:
    assert seen[case]['frame'] == ''
    for found, placed in zip(seen[case]['segments'], seen['with depth']['segments'], strict=True):
        area, number, *points = found
        assert area == placed[0] > 0
        assert number == 0
        assert points == [[0.0, 0.0, 0.0]] * 4


def test_in_a_target_frame_that_tf2_supplies(seen: dict[str, Any]) -> None:
    """The camera looks along base_link's x, 1 m above it: z, -x, -y of the lens are x, y, z."""
    assert seen['in base_link']['frame'] == 'base_link'
    pairs = zip(seen['in base_link']['segments'], seen['with depth']['segments'], strict=True)
    for found, placed in pairs:
        assert found[:2] == placed[:2]
        position, low, high, nearest = np.array(placed[2:])
        for point, expected in ((found[2], position), (found[5], nearest)):
            x, y, z = expected
            np.testing.assert_allclose(point, [z + 0.2, -x, 1 - y], atol=1e-5)
        np.testing.assert_allclose(found[3], [low[2] + 0.2, -high[0], 1 - high[1]], atol=1e-5)
        np.testing.assert_allclose(found[4], [high[2] + 0.2, -low[0], 1 - low[1]], atol=1e-5)


def test_until_tf2_supplies_it_points_stay_where_they_are(seen: dict[str, Any]) -> None:
    assert seen['no transform yet'] == seen['with depth']
    assert 'points stay in lens: no transform from lens to base_link' in seen['log']


def test_who_asks_once_has_positions_there_too_though_nobody_listens(seen: dict[str, Any]) -> None:
    once = seen['once in base_link']
    assert once['frame'] == 'base_link', once['message']
    assert once['message'].endswith('px'), 'no remark'
    for found, placed in zip(once['segments'], seen['in base_link']['segments'], strict=True):
        assert found[:2] == placed[:2]
        np.testing.assert_allclose(found[2], placed[2], atol=1e-5)
    once = seen['once in elsewhere']
    assert once['frame'] == 'lens'
    said = 'px, points stay in lens: no transform from lens to elsewhere'
    assert said in once['message']
    assert 'tf2_ros is not installed' not in seen['log']


def test_silent_depth_delays_an_image_and_no_more(seen: dict[str, Any]) -> None:
    assert 0.2 < seen['waited'] < 2.0
    assert seen['in order']
