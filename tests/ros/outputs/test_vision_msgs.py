"""LabelInfo and Detection2DArray between processes, and Nav2's contract field by field.

The contract is that of the segmentation layer's README and of how it reads the messages: it takes
`data[v * width + u]` of labels and confidence for the point (u, v) of a cloud of the same stamp.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from build_vision_msgs import SOURCE, environment_with_vision_msgs
from ros_peers import (
    NodeProcess,
    Peer,
    answer_of,
    picture,
    running_node,
    wait_until,
)

from clipseg_model.outputs.frame_outputs import Scratch
from clipseg_model.registry import create_model
from clipseg_model.segmentation import Segmentation
from clipseg_ros.outputs.messages import (
    VISION_MISSING,
    detection_array,
    label_info,
    load_vision_messages,
)
from clipseg_ros.outputs.result import FrameResult, compute_pixels
from clipseg_ros.process.domain import claimed_domain
from clipseg_ros.prompts.set import ActivePrompt

built = [pytest.mark.slow, pytest.mark.ci, pytest.mark.timeout(400)]


def message(**fields: Any) -> SimpleNamespace:
    """Stands in for any message class."""
    return SimpleNamespace(**fields)


STAND_INS = SimpleNamespace(**{path.stem: message for path in SOURCE.glob('msg/*.msg')})


@pytest.fixture(scope='module')
def segmentation(tiny_model: Path) -> Segmentation:
    return create_model(tiny_model, 'cpu').segment(
        picture(100, 140, seed=3), ['the mug', 'red bowl']
    )


@pytest.fixture(scope='module')
def prompts(segmentation: Segmentation) -> list[ActivePrompt]:
    return [ActivePrompt(3 * n, result.prompt) for n, result in enumerate(segmentation.results, 1)]


def expected_boxes(segmentation: Segmentation, min_area: int) -> list[tuple[str, list[int]]]:
    """Name and box of every part, by flood fill, in order."""
    boxes = []
    for result in segmentation.results:
        parts, left = [], {(int(y), int(x)) for y, x in np.argwhere(result.mask)}
        while left:
            part, edge = set(), [left.pop()]
            while edge:
                y, x = edge.pop()
                part.add((y, x))
                near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
                left -= near
                edge += near
            rows, columns = zip(*part, strict=True)
            box = [min(columns), min(rows), max(columns) - min(columns) + 1,
                   max(rows) - min(rows) + 1]  # fmt: skip
            if len(part) >= min_area:
                parts.append((-len(part), box))
        label = result.prompt.label
        boxes += [(label, box) for _, box in sorted(parts, key=lambda p: (p[0], p[1][1], p[1][0]))]
    return boxes


def corner_and_size(centre: list[float], size: list[float]) -> list[float]:
    return [centre[0] - size[0] / 2, centre[1] - size[1] / 2, *size]


def result_of(segmentation: Segmentation, prompts: list[ActivePrompt]) -> FrameResult:
    pixels = compute_pixels(segmentation, prompts, (), Scratch())
    rgb = np.zeros((segmentation.height, segmentation.width, 3), np.uint8)
    return FrameResult('header', rgb, tuple(prompts), segmentation, pixels)


class TestMessages:
    def test_label_info_has_every_id_and_name(self, prompts: list[ActivePrompt]) -> None:
        info = label_info(STAND_INS, prompts, 0.4, 'header')
        assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [
            (3, 'the mug'),
            (6, 'red bowl'),
        ]
        assert (info.header, info.threshold) == ('header', 0.4)

    @pytest.mark.parametrize('min_area', [1, 20, 10**6])
    def test_every_part_of_every_mask_is_a_detection(
        self, segmentation: Segmentation, prompts: list[ActivePrompt], min_area: int
    ) -> None:
        array = detection_array(STAND_INS, result_of(segmentation, prompts), min_area)
        found = []
        for one in array.detections:
            (result,) = one.results
            assert one.header == 'header'
            assert 0.5 < result.hypothesis.score <= 1.0, 'a mask is where p > threshold'
            position = one.bbox.center.position
            size = [one.bbox.size_x, one.bbox.size_y]
            found.append(
                (result.hypothesis.class_id, corner_and_size([position.x, position.y], size))
            )
        assert found == expected_boxes(segmentation, min_area)
        assert bool(found) == (min_area < 1000)

    def test_absent_prompts_have_no_detections(
        self, segmentation: Segmentation, prompts: list[ActivePrompt]
    ) -> None:
        from dataclasses import replace

        absent = [replace(result, presence=False) for result in segmentation.results]
        found = replace(segmentation, results=absent)
        array = detection_array(STAND_INS, result_of(found, prompts), 1)
        assert array.detections == []


def test_a_vision_msgs_without_label_info_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if load_vision_messages() is not None:
        pytest.skip('vision_msgs is installed')
    old = tmp_path / 'vision_msgs' / 'msg'
    old.mkdir(parents=True)
    for folder in (old, old.parent):
        (folder / '__init__.py').touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises(ImportError, match='has no LabelInfo: install version 4'):
            load_vision_messages()
    finally:
        for name in ('vision_msgs', 'vision_msgs.msg'):
            sys.modules.pop(name, None)


def test_without_vision_msgs_the_node_says_so_once(segment: NodeProcess, peer: Peer) -> None:
    if load_vision_messages() is not None:
        pytest.skip('vision_msgs is installed')
    assert segment.count(VISION_MISSING) == 1
    wait_until(lambda: peer.node.count_publishers('/clipseg/mask'))
    assert peer.node.count_publishers('/clipseg/label_info') == 0
    assert peer.node.count_publishers('/clipseg/detections') == 0


@pytest.fixture(scope='module')
def seen(tiny_model: Path) -> Iterator[dict[str, Any]]:
    """What a peer saw of a node, both with vision_msgs, in a domain of their own."""
    variables = environment_with_vision_msgs()
    with claimed_domain() as domain:
        environment = {**variables, 'ROS_DOMAIN_ID': str(domain)}
        with running_node(
            'clipseg_ros.segment_node',
            {
                'model': tiny_model,
                'device': 'cpu',
                'threads': 1,
                'detection_min_area': 20,
                'prompt': "'the mug; red bowl'",
            },
            environment=environment,
        ) as node:
            assert VISION_MISSING not in node.output
            yield answer_of('vision_peer.py', environment)


class TestNav2:
    pytestmark = built

    @pytest.mark.parametrize('name', ['labels', 'confidence'])
    def test_an_image_belongs_to_the_cloud(self, seen: dict[str, Any], name: str) -> None:
        image, cloud = seen[name], seen['cloud']
        assert image['stamp'] == cloud['stamp'], 'the layer matches by stamp'
        assert image['frame'] == cloud['frame']
        assert image['size'] == cloud['size'], 'the layer walks image and cloud together'
        height, width = image['size']
        assert image['encoding'] == 'mono8', 'the layer reads one byte a pixel'
        assert image['step'] == width, 'the layer indexes without step'
        assert len(image['data']) == height * width

    def test_labels_are_ids_that_have_names(self, seen: dict[str, Any]) -> None:
        ids = {identity for identity, _ in seen['info']['classes']}
        assert set(seen['labels']['data']) <= ids | {0}
        assert set(seen['labels']['data']) - {0}, 'the test model answers'

    def test_confidence_is_0_on_background_and_there_alone(self, seen: dict[str, Any]) -> None:
        labels = np.array(seen['labels']['data'])
        confidence = np.array(seen['confidence']['data'])
        np.testing.assert_array_equal(confidence[labels == 0], 0)
        assert (confidence[labels > 0] >= 255 * seen['info']['threshold'] - 1).all()

    def test_label_info_is_latched_and_complete(self, seen: dict[str, Any]) -> None:
        # The peer subscribed long after the node was active.
        info = seen['info']
        assert info['classes'] == [[1, 'the mug'], [2, 'red bowl']]
        assert info['threshold'] == pytest.approx(0.5)
        assert info['stamped'] is True
        assert info['frame'] == ''

    def test_ids_keep_their_meaning_when_prompts_change(self, seen: dict[str, Any]) -> None:
        assert seen['info after']['classes'] == [[2, 'red bowl'], [3, 'sit']]


class TestDetections:
    pytestmark = built

    def test_they_are_the_parts_of_the_masks(
        self, seen: dict[str, Any], segmentation: Segmentation
    ) -> None:
        found = seen['detections']
        boxes = [
            (one['hypotheses'][0][0], corner_and_size(one['centre'], one['box'])) for one in found
        ]
        assert boxes == expected_boxes(segmentation, 20)
        assert seen['detections header'] is True
        for one in found:
            assert (one['header'], one['id'], one['theta']) == (True, '', 0.0)
            assert len(one['hypotheses']) == 1
            assert 0.5 < one['hypotheses'][0][1] <= 1.0

    def test_the_least_area_is_a_parameter(self, seen: dict[str, Any]) -> None:
        assert seen['detections too small'] == 0
