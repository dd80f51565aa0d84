"""Zoom in the node: the parameters ``zoom``, and ClsCLIP+ by a detector of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ros_peers import (
    NodeProcess,
    Peer,
    ros_arguments,
    running_node,
    stamp_of,
    until_answered,
    wait_until,
)
from sensor_msgs.msg import Image

from clipseg_model.errors import RegionError
from clipseg_model.modeling.clsclip import ClsCLIP
from clipseg_model.registry import create_model
from clipseg_model.settings import SegmentSettings
from clipseg_model.weights.checkpoints import load_checkpoint, save_checkpoint
from clipseg_model.zoom.proposals import CoarseProposals
from clipseg_model.zoom.refinement import Zoom
from clipseg_model.zoom_by_name import make_zoom, open_detector
from clipseg_ros.errors import ParameterError
from clipseg_ros.ros.qos import image_output
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.zoom import NodeZoom

PROMPTS = ['red', 'blue']


def discs() -> NDArray[np.uint8]:
    """A red and a blue disc on grey, which the bundled model sees."""
    rgb = np.full((240, 320, 3), 150, np.uint8)
    cv2.circle(rgb, (90, 120), 30, (200, 30, 30), -1)
    cv2.circle(rgb, (230, 150), 18, (30, 40, 200), -1)
    return rgb


RGB = discs()


@pytest.fixture(scope='module')
def sees_prompts(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('model') / 'clsclip.safetensors'
    model, _ = load_checkpoint(tiny_model)
    torch.manual_seed(0)
    decoder: dict[str, Any] = {'dim': 16, 'num_layers': 1, 'num_heads': 4, 'feedforward': 32}
    other = ClsCLIP(model.backbone, [1], **decoder)
    save_checkpoint(path, other.eval(), {'name': 'cls', 'input_size': 64})
    return path


@pytest.fixture(scope='module')
def host(domain: int, sees_prompts: Path) -> Iterator[NodeProcess]:
    common = {'device': 'cpu', 'threads': 1, 'prompt': f"'{'; '.join(PROMPTS)}'"}
    plus = {'zoom': 'detector', 'zoom_detector': 'tabletop', 'zoom_regions': 3}
    nodes = {
        'zoomed': ros_arguments({**common, 'model': 'tabletop'}),
        'plus': ros_arguments({**common, 'model': sees_prompts, **plus}),
    }
    host = str(Path(__file__).parents[1] / 'processes' / 'node_host.py')
    with running_node(
        host, script=[json.dumps(nodes)], ready='images from /zoomed/image'
    ) as process:
        process.wait_for('images from /plus/image')
        yield process


def probability(peer: Peer, namespace: str, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a node answers to an image."""
    found = peer.collect(Image, f'/{namespace}/clipseg/probability', image_output())
    images = peer.publisher(Image, f'/{namespace}/image', image_output())
    until_answered(images, peer.stamped(np.zeros_like(rgb)), found)
    image = peer.stamped(rgb)
    images.publish(image)
    [message] = wait_until(
        lambda: [one for one in list(found) if stamp_of(one) == stamp_of(image)], what='an answer'
    )
    peer.node.destroy_publisher(images)
    return np.frombuffer(message.data, np.float32).reshape(rgb.shape[:2])


def test_clsclip_plus_by_a_detector(host: NodeProcess, peer: Peer, sees_prompts: Path) -> None:
    segmenter = create_model(sees_prompts, 'cpu', 1)
    plain = segmenter.segment(RGB, PROMPTS).probability()
    zoom = Zoom.published(open_detector('tabletop', 'cpu'), max_regions=3)
    found = segmenter.segment(RGB, PROMPTS, settings=SegmentSettings(zoom=zoom))
    boxes = [result.close_ups.parts[0].boxes[0] for result in found.results if result.close_ups]
    assert all(box.left < x < box.right for box, x in zip(boxes, (90, 230), strict=True))
    seen = probability(peer, 'plus', RGB)
    np.testing.assert_allclose(seen, found.probability(), atol=1e-4)
    assert np.abs(seen - plain).max() > 0.01
    assert seen[0, 0] < 1e-6, 'nothing is on outside of regions'


def test_it_is_changed_while_the_node_runs(host: NodeProcess, peer: Peer) -> None:
    node = '/zoomed/clipseg'
    segmenter = create_model('tabletop', 'cpu', 1)
    plain = segmenter.segment(RGB, PROMPTS)
    np.testing.assert_allclose(probability(peer, 'zoomed', RGB), plain.probability(), atol=1e-3)
    assert peer.set_parameter(node, 'zoom', 'self').successful
    assert peer.set_parameter(node, 'zoom_combination', 'replace').successful
    zoom = make_zoom(CoarseProposals(), 'clipseg', 'replace')
    found = segmenter.segment(RGB, PROMPTS, settings=SegmentSettings(zoom=zoom))
    assert np.abs(found.probability() - plain.probability()).max() > 0.1
    np.testing.assert_allclose(probability(peer, 'zoomed', RGB), found.probability(), atol=1e-3)
    answer = peer.set_parameter(node, 'reuse_below', 3.0)
    assert not answer.successful
    assert 'leave zoom out' in answer.reason
    answer = peer.set_parameter(node, 'prompt', 'red; !blue')
    assert not answer.successful
    assert 'set zoom to none' in answer.reason
    assert peer.set_parameter(node, 'zoom', 'none').successful
    assert peer.set_parameter(node, 'prompt', 'red; !blue').successful
    answer = peer.set_parameter(node, 'zoom', 'self')
    assert not answer.successful
    assert 'Negative prompts do not work with zoom' in answer.reason


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('zoom', 'boxes', 'zoom'),
        ('zoom', 'detector', 'set zoom_detector'),
        ('zoom_combination', 'sum', 'zoom_combination'),
        ('zoom_regions', 101, 'zoom_regions'),
        ('zoom_detector', 'tabletop', 'zoom_detector'),
    ],
)
def test_values_that_are_refused(
    host: NodeProcess, peer: Peer, name: str, value: Any, reason: str
) -> None:
    answer = peer.set_parameter('/zoomed/clipseg', name, value)
    assert not answer.successful
    assert reason in answer.reason


def test_a_detector_that_is_not_there_is_named() -> None:
    segmenter = create_model('tabletop', 'cpu', 1)
    with pytest.raises(RegionError, match="torchvision has no detector 'yolo'"):
        NodeZoom(Settings(zoom_detector='yolo'), segmenter)
    with pytest.raises(RegionError, match="'yolo' is none"):
        NodeZoom(Settings(zoom_detector='yolo', zoom_tiles=2), segmenter)
    with pytest.raises(ParameterError, match='set zoom_detector'):
        NodeZoom(Settings(zoom='detector', zoom_detector=None), segmenter)
