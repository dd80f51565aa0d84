"""The layer that docs/nav2.md configures reads what the node publishes, and is told its classes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import reference_page
import yaml

from clipseg_model.prompts import parse_prompts

LETHAL = 253
"""Cost from which Nav2 plans no way through a cell: inscribed (253) and lethal (254)."""


@pytest.fixture(scope='module')
def page(repository: Path) -> str:
    return (repository / 'docs' / 'nav2.md').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def camera(page: str) -> dict[str, Any]:
    """The source of observations that the page configures."""
    block = re.search(r'```yaml\n(.*?)```', page, re.DOTALL)
    assert block is not None
    costmap = yaml.safe_load(block[1])['local_costmap']['local_costmap']['ros__parameters']
    return dict(costmap['semantic_segmentation_layer']['camera'])


def test_its_topics_are_published_by_the_node(camera: dict[str, Any]) -> None:
    kinds = {name: (way, kind) for name, way, kind, _ in reference_page.topics('segment')}
    for setting, kind in {
        'segmentation_topic': 'sensor_msgs/msg/Image',
        'confidence_topic': 'sensor_msgs/msg/Image',
        'labels_topic': 'vision_msgs/msg/LabelInfo',
    }.items():
        assert kinds[camera[setting]] == ('out', kind), setting


def test_the_classes_are_the_names_of_the_prompts(page: str, camera: dict[str, Any]) -> None:
    command = re.search(r'```\nros2 launch (.*?)```', page, re.DOTALL)
    assert command is not None
    words = shlex.split(command[1].replace('\\\n', ' '))
    given = next(word for word in words if word.startswith('prompt:='))
    names = {str(prompt.name) for prompt in parse_prompts(given.removeprefix('prompt:='))}
    classes = [name for kind in camera['class_types'] for name in camera[kind]['classes']]
    assert sorted(classes) == sorted(names)


def test_no_single_pixel_closes_a_way(camera: dict[str, Any]) -> None:
    """A tile seen once costs ``base_cost``, which only enough sure pixels raise."""
    dangers = [camera[kind] for kind in camera['class_types'] if camera[kind]['max_cost'] >= LETHAL]
    assert dangers
    for danger in dangers:
        assert danger['base_cost'] < LETHAL
        assert danger['samples_to_max_cost'] > 1
        assert danger['mark_confidence'] >= 128, 'a probability of one half'
