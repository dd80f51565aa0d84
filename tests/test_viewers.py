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

from clipseg_ros.outputs.result import IMAGE_OUTPUTS
from clipseg_ros.ros.viewers import layout, main

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
def layout_(repository: Path) -> dict[str, Any]:
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


def test_foxglove_shows_each_panel_once(layout_: dict[str, Any]) -> None:
    assert set(layout_) == {
        'configById',
        'globalVariables',
        'userNodes',
        'playbackConfig',
        'layout',
    }
    shown = list(leaves(layout_['layout']))
    assert len(shown) == len(set(shown))
    assert set(shown) == set(layout_['configById'])
    titles = [panel['foxglovePanelTitle'] for panel in layout_['configById'].values()]
    assert len(titles) == len(set(titles))


def test_foxglove_reads_and_writes_real_topics(
    layout_: dict[str, Any], topics: dict[str, tuple[str, str, str]]
) -> None:
    for panel, configuration in layout_['configById'].items():
        for topic in topics_of(panel, configuration):
            direction, kind, _ = topics[topic]
            assert kind == FOXGLOVE[panel.split('!')[0]], panel
            assert direction == ('in' if panel.startswith('Publish') else 'out'), panel


def test_what_foxglove_publishes_is_a_prompt(layout_: dict[str, Any]) -> None:
    panel = layout_['configById']['Publish!prompt']
    assert panel['datatype'] == 'std_msgs/msg/String'
    assert list(json.loads(panel['value'])) == ['data']


def test_fields_that_are_plotted_exist(layout_: dict[str, Any], repository: Path) -> None:
    fields = (repository / 'msg' / 'Segment.msg').read_text()
    for path in layout_['configById']['Plot!scores']['paths']:
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


@pytest.mark.parametrize('file', ['clipseg.rviz', 'foxglove.json'])
def test_topics_and_frame_of_another_robot(
    repository: Path, topics: dict[str, tuple[str, str, str]], file: str
) -> None:
    plain = (repository / 'config' / file).read_text()
    assert layout(file) == plain
    text = layout(file, '/robot1/', '/camera/color/image_raw', 'base_link')
    read: Any = json.loads(text) if file.endswith('.json') else yaml.safe_load(text)
    named = [one for one in strings(read) if one.startswith('/') and not one.startswith('/dia')]
    outputs = [one for one in named if one.startswith('/robot1/clipseg/')]
    assert len(outputs) >= 4
    for one in outputs:
        assert one.removeprefix('/robot1').split('.')[0] in topics
    assert set(named) - set(outputs) <= {'/camera/color/image_raw'}
    assert ('/camera/color/image_raw' in named) == (
        '/image' in list(strings(yaml.safe_load(plain)))
    )
    assert 'camera_optical_frame' not in text
    assert 'base_link' in list(strings(read))


def test_the_command_writes_a_layout(tmp_path: Path) -> None:
    for name, file in (('mine.rviz', 'clipseg.rviz'), ('mine.json', 'foxglove.json')):
        assert main([str(tmp_path / name), '--namespace', 'robot1', '--frame', 'map']) == 0
        assert (tmp_path / name).read_text() == layout(file, 'robot1', 'image', 'map')


def test_labels_are_shown_in_the_colours_of_their_ids(
    repository: Path, layout_: dict[str, Any]
) -> None:
    """Viewers have no colours of their own that differ from one id to the next, up to 254."""
    (encoding,) = {IMAGE_OUTPUTS['labels/color'], IMAGE_OUTPUTS['overlay']}
    assert encoding == 'rgb8', 'needs no colour map'
    assert layout_['configById']['Image!labels']['imageMode'] == {
        'imageTopic': '/clipseg/labels/color'
    }
    displays = yaml.safe_load((repository / 'config' / 'clipseg.rviz').read_text())
    topics = {
        display['Name']: display['Topic']['Value']
        for display in displays['Visualization Manager']['Displays']
    }
    assert topics['Labels'] == '/clipseg/labels/color'


def strings(tree: Any) -> Iterator[str]:
    """All keys and values that are text."""
    if isinstance(tree, str):
        yield tree
    for part in tree if isinstance(tree, (list, dict)) else ():
        yield from strings(part)
        if isinstance(tree, dict):
            yield from strings(tree[part])
