"""The layouts for RViz and Foxglove: what they show is what the nodes publish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reference_page
import yaml

# Panel → type of its topic, and where its configuration names it.
FOXGLOVE = {
    'Image': 'sensor_msgs/msg/Image',
    '3D': 'sensor_msgs/msg/PointCloud2',
    'Publish': 'std_msgs/msg/String',
    'RawMessages': 'clipseg_ros/msg/SegmentArray',
    'Plot': 'clipseg_ros/msg/SegmentArray',
    'DiagnosticSummary': 'diagnostic_msgs/msg/DiagnosticArray',
}
RVIZ = {
    'rviz_default_plugins/Image': 'sensor_msgs/msg/Image',
    'rviz_default_plugins/PointCloud2': 'sensor_msgs/msg/PointCloud2',
    'rviz_default_plugins/MarkerArray': 'visualization_msgs/msg/MarkerArray',
}


@pytest.fixture(scope='module')
def topics() -> dict[str, tuple[str, str, str]]:
    """Topic → direction, type and QoS, as docs/reference.md has them."""
    rows = [*reference_page.topics('segment'), *reference_page.topics('camera')]
    return {name: (direction, kind, qos) for name, direction, kind, qos in rows}


@pytest.fixture(scope='module')
def layout(repository: Path) -> dict[str, Any]:
    return dict(json.loads((repository / 'config' / 'foxglove.json').read_text()))


def leaves(tree: Any) -> Iterator[str]:
    """Panels of a layout; checks its branches on the way."""
    if isinstance(tree, str):
        yield tree
        return
    assert set(tree) <= {'direction', 'splitPercentage', 'first', 'second'}
    assert tree['direction'] in ('row', 'column')
    assert 0 < tree['splitPercentage'] < 100
    yield from leaves(tree['first'])
    yield from leaves(tree['second'])


def topics_of(panel: str, configuration: dict[str, Any]) -> list[str]:
    match panel.split('!')[0]:
        case 'Image':
            return [configuration['imageMode']['imageTopic']]
        case '3D':
            return [name for name, entry in configuration['topics'].items() if entry['visible']]
        case 'Publish':
            return [configuration['topicName']]
        case 'RawMessages':
            return [configuration['topicPath'].split('.')[0]]
        case 'Plot':
            return [path['value'].split('.')[0] for path in configuration['paths']]
        case 'DiagnosticSummary':
            return [configuration['topicToRender']]
    raise AssertionError(f'{panel} is not known here')


def test_foxglove_shows_each_panel_once(layout: dict[str, Any]) -> None:
    assert set(layout) == {'configById', 'globalVariables', 'userNodes', 'playbackConfig', 'layout'}
    shown = list(leaves(layout['layout']))
    assert len(shown) == len(set(shown))
    assert set(shown) == set(layout['configById'])
    titles = [panel['foxglovePanelTitle'] for panel in layout['configById'].values()]
    assert len(titles) == len(set(titles))


def test_foxglove_reads_and_writes_real_topics(
    layout: dict[str, Any], topics: dict[str, tuple[str, str, str]]
) -> None:
    for panel, configuration in layout['configById'].items():
        for topic in topics_of(panel, configuration):
            direction, kind, _ = topics[topic]
            assert kind == FOXGLOVE[panel.split('!')[0]], panel
            assert direction == ('in' if panel.startswith('Publish') else 'out'), panel


def test_what_foxglove_publishes_is_a_prompt(layout: dict[str, Any]) -> None:
    panel = layout['configById']['Publish!prompt']
    assert panel['datatype'] == 'std_msgs/msg/String'
    assert list(json.loads(panel['value'])) == ['data']


def test_fields_that_are_plotted_exist(layout: dict[str, Any], repository: Path) -> None:
    fields = (repository / 'msg' / 'Segment.msg').read_text()
    for path in layout['configById']['Plot!scores']['paths']:
        field = re.fullmatch(r'/clipseg/segments\.segments\[\d+\]\.(\w+)', path['value'])
        assert field is not None, path
        assert re.search(rf'^float32 {field[1]}$', fields, re.MULTILINE)


def test_rviz_shows_real_topics_with_a_qos_that_fits(
    repository: Path, topics: dict[str, tuple[str, str, str]]
) -> None:
    displays = yaml.safe_load((repository / 'config' / 'clipseg.rviz').read_text())[
        'Visualization Manager'
    ]['Displays']
    shown = {display['Topic']['Value']: display for display in displays}
    assert len(shown) == len(displays) >= 3
    for topic, display in shown.items():
        direction, kind, qos = topics[topic]
        assert kind == RVIZ[display['Class']]
        assert direction == 'out', 'of the node, or of the camera'
        policies = display['Topic']
        if 'reliable' not in qos:
            assert policies['Reliability Policy'] == 'Best Effort'
        if 'latched' not in qos:
            assert policies['Durability Policy'] == 'Volatile'
