"""The package's own messages: there after a colcon build, and not missed without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_peers import (
    NodeProcess,
    Peer,
    answer_of,
    picture,
    running_node,
    wait_until,
)

from clipseg_model.registry import create_model
from clipseg_ros.process.domain import claimed_domain
from clipseg_ros.ros.interfaces import MISSING

pytestmark = pytest.mark.every_ros


@pytest.fixture(scope='module')
def seen(built: dict[str, str], tiny_model: Path) -> Iterator[dict[str, Any]]:
    """What a peer saw of a node, both with the messages, in a domain of their own."""
    with claimed_domain() as domain:
        environment = {**built, 'ROS_DOMAIN_ID': str(domain)}
        with running_node(
            'clipseg_ros.segment_node',
            {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'"},
            environment=environment,
        ) as node:
            assert MISSING not in node.output
            yield answer_of('interface_peer.py', environment)


def test_prompts_are_latched(seen: dict[str, Any]) -> None:
    assert seen['model'] == 'tiny'
    assert seen['at start'] == [
        [1, 'the mug', 'the mug', 0.5, True, 1.0],
        [2, 'red bowl', 'red bowl', 0.5, True, 1.0],
    ]


def test_segments_are_those_of_the_model(seen: dict[str, Any], tiny_model: Path) -> None:
    expected = create_model(tiny_model, 'cpu').segment(
        picture(100, 140, seed=3), ['the mug', 'red bowl']
    )
    assert seen['header'] is True
    assert seen['size'] == [100, 140]
    assert [entry[:2] for entry in seen['segments']] == [[1, 'the mug'], [2, 'red bowl']]
    for (_, _, score, presence, area, box, centroid), result in zip(
        seen['segments'], expected.results, strict=True
    ):
        rows, columns = np.nonzero(result.mask)
        assert score == pytest.approx(result.score, abs=1e-6)
        assert presence == result.presence
        assert area == len(rows) > 0
        left, top = columns.min(), rows.min()
        assert box == [left, top, columns.max() - left + 1, rows.max() - top + 1, False]
        np.testing.assert_allclose(centroid, [columns.mean(), rows.mean(), 0.0], atol=1e-6)


def test_set_prompts(seen: dict[str, Any]) -> None:
    success, message, prompts = seen['set']
    assert success, message
    assert "9 'seat' (disabled)" in message
    assert prompts == [
        [2, 'red bowl', 'red bowl', 0.7, True, 1.0],
        [9, 'seat', 'a chair', 0.5, False, 1.0],
    ]
    assert seen['latched after'] == prompts
    assert seen['parameter after'] == 'red bowl; seat:a chair'
    assert seen['names after'] == ['red bowl']


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('blank', ['blank']),
        ('separator', ["';'"]),
        ('colon', ['colon']),
        ('name', ['colon']),
        ('threshold', ['2.0', 'between 0 and 1']),
        ('not a number', ['nan']),
        ('taken id', ['id 9', 'seat']),
        ('weight', ['0.5', '~/prompt_image']),
        ('script', ['no word']),
        ('twice', ["'Mug'"]),
        ('many', ['255', '254']),
    ],
)
def test_set_prompts_refuses(seen: dict[str, Any], name: str, words: list[str]) -> None:
    success, message = seen['refused'][name]
    assert success is False
    for word in words:
        assert word in message
    assert seen['parameter still'] == 'red bowl; seat:a chair'


def test_prompts_with_pictures(seen: dict[str, Any]) -> None:
    answers = seen['pictures']
    success, message, prompts = answers['set']
    assert success, message
    by_name = {
        name: (phrase, threshold, weight) for _, name, phrase, threshold, _, weight in prompts
    }
    assert by_name == {
        'mine': ('', 0.5, 0.0),
        'mix': ('a mug', 0.5, 0.25),
        'red bowl': ('red bowl', 0.5, 1.0),
    }
    assert "'mine' (picture)" in message
    assert "'mix' (words and picture)" in message
    assert "2 'red bowl' (negative)" in message
    success, message, prompts = answers['again']
    assert success, message
    assert "'mine' (picture, disabled)" in message
    assert "'mix' (words and picture)" in message
    assert {prompt[1]: prompt[5] for prompt in prompts} == {'mine': 0.0, 'mix': 0.75}


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('none', ["'other'", 'no picture', '~/prompt_image']),
        ('weight 1', ["'a mug'", 'weight 1', '0.5']),
        ('mask alone', ['mask and no picture']),
        ('mask size', ['(40, 60)', '(20, 60)']),
        ('bang', ['negative']),
        ('presence', ['1.5']),
        ('encoding', ["'mine'", 'picture', 'nonsense']),
    ],
)
def test_prompts_with_pictures_are_refused(
    seen: dict[str, Any], name: str, words: list[str]
) -> None:
    success, message, _ = seen['pictures'][name]
    assert success is False
    for word in words:
        assert word in message


def test_pick(seen: dict[str, Any]) -> None:
    success, message, prompt, box = seen['picked']['box']
    assert success, message
    assert prompt[1:] == ['that', '', 0.0]
    assert box == [20, 10, 30, 40]
    assert f"{prompt[0]} 'that' is the box: box (20, 10, 30, 40) of a frame of 140 × 100" in message
    success, message, mixed, box = seen['picked']['mixed']
    assert success, message
    assert mixed[1:] == ['a mug', 'a mug', 0.25]
    assert box == [130, 90, 10, 10], 'cut off at the border'
    assert [prompt[0], 'that', 0.0] in seen['latched picked']
    assert [mixed[0], 'a mug', 0.25] in seen['latched picked']


@pytest.mark.parametrize(
    ('name', 'words'),
    [('outside', '(140, 5) lies outside'), ('weight', '1.5'), ('name', "';'")],
)
def test_pick_refuses(seen: dict[str, Any], name: str, words: str) -> None:
    success, message, prompt, box = seen['picked'][name]
    assert not success
    assert words in message
    assert prompt[:2] == [0, '']
    assert box == [0, 0, 0, 0]


def test_no_prompts_stop(seen: dict[str, Any]) -> None:
    assert seen['stopped'] == [True, 'no prompt active', []]
    assert seen['parameter stopped'] == ''


def test_without_a_build_the_node_says_so_once(segment: NodeProcess, peer: Peer) -> None:
    assert segment.count('the messages of clipseg_ros are not built') == 1
    wait_until(lambda: 'clipseg' in peer.node.get_node_names())

    def services() -> set[str]:
        found = peer.node.get_service_names_and_types_by_node('clipseg', '/')
        return {name for name, _ in found}

    wait_until(lambda: '/clipseg/enable' in services(), what=str(services()))
    assert '/clipseg/set_prompts' not in services()
    assert peer.node.count_publishers('/clipseg/prompts') == 0
    assert peer.node.count_publishers('/clipseg/mask') == 1
