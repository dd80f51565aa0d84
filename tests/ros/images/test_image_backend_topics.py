"""Nodes that read images with cv_bridge, between processes; a stand-in takes its place."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from ros_peers import (
    ROOT,
    NodeProcess,
    Peer,
    picture,
    ros_arguments,
    running_node,
    until_answered,
    wait_until,
)
from sensor_msgs.msg import CompressedImage, Image

from clipseg_ros.ros.qos import image_output

STAND_INS = Path(__file__).parents[1] / 'stand_ins'


def hosting(folder: Path, nodes: dict[str, dict[str, Any]], ready: str) -> Any:
    """A process with nodes in namespaces of their own, which finds cv_bridge in a folder."""
    path = [str(folder), str(ROOT), os.environ.get('PYTHONPATH', '')]
    return running_node(
        str(Path(__file__).parents[1] / 'processes' / 'node_host.py'),
        script=[json.dumps({name: ros_arguments(nodes[name]) for name in nodes})],
        environment={'PYTHONPATH': ':'.join(filter(None, path))},
        ready=ready,
    )


@pytest.fixture(scope='module')
def common(tiny_model: Path) -> dict[str, Any]:
    return {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'"}


@pytest.fixture(scope='module')
def host(domain: int, common: dict[str, Any]) -> Iterator[NodeProcess]:
    bridge = {**common, 'image_backend': 'cv_bridge'}
    nodes = {
        'plain': common,
        'bridge': bridge,
        'pressed': {**bridge, 'image_transport': 'compressed'},
    }
    with hosting(STAND_INS, nodes, 'images from /pressed/image/compressed') as process:
        yield process


class Camera:
    """Sends the same images to the nodes and collects their labels."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.labels: dict[str, list[Image]] = {}
        self.publishers: dict[str, Any] = {}
        for name in ('plain', 'bridge', 'pressed'):
            kind, ending = (CompressedImage, '/compressed') if name == 'pressed' else (Image, '')
            self.labels[name] = peer.collect(Image, f'/{name}/clipseg/labels', image_output())
            self.publishers[name] = peer.publisher(kind, f'/{name}/image{ending}', image_output())

    def ask(self, name: str, message: Any) -> np.ndarray[Any, Any]:
        """Sends an image until its labels come back."""

        [found] = until_answered(self.publishers[name], message, self.labels[name])
        assert found.header == message.header
        return np.frombuffer(found.data, np.uint8).reshape(found.height, found.width)


@pytest.fixture(scope='module')
def camera(host: NodeProcess, peer: Peer) -> Camera:
    return Camera(peer)


def as_message(peer: Peer, encoding: str) -> Image:
    """A picture, its channels as they are; rows padded by two pixels."""
    pixels = picture(seed=5)
    values = {
        'rgb8': pixels,
        'bgr8': pixels[..., ::-1],
        'mono16': pixels[..., 0].astype(np.uint16) * 257,
        '16UC1': pixels[..., 0].astype(np.uint16) * 257,
    }[encoding]
    lines = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    pixel = lines.shape[1] // values.shape[1]
    lines = np.hstack((lines, np.full((len(lines), 2 * pixel), 200, np.uint8)))
    message = peer.stamped(pixels)
    message.encoding, message.step = encoding, lines.shape[1]
    del message.data[:]
    message.data.frombytes(lines.tobytes())
    return message


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono16', '16UC1'])
def test_labels_are_those_of_the_default(camera: Camera, encoding: str) -> None:
    message = as_message(camera.peer, encoding)
    expected = camera.ask('plain', message)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(camera.ask('bridge', message), expected)


def test_compressed_images_too(camera: Camera) -> None:
    pixels = picture(seed=5)
    image = camera.peer.stamped(pixels)
    data = cv2.imencode('.png', pixels[..., ::-1])[1].tobytes()
    message = CompressedImage(header=image.header, format='png')
    message.data.frombytes(data)
    np.testing.assert_array_equal(camera.ask('pressed', message), camera.ask('plain', image))


def test_the_log_says_what_reads_the_images(host: NodeProcess) -> None:
    said = f'images are read by cv_bridge in {STAND_INS}/cv_bridge.py, which passed its self-test'
    for name, times in (('plain', 0), ('bridge', 1), ('pressed', 1)):
        lines = [line for line in host.lines if f'[{name}.clipseg]' in line and said in line]
        assert len(lines) == times, name


def test_what_cv_bridge_cannot_read_is_dropped_and_the_node_goes_on(
    camera: Camera, host: NodeProcess
) -> None:
    bad = camera.peer.stamped(picture())
    bad.encoding, bad.step = 'nv21', 160
    del bad.data[160 * 180 :]
    since = len(host.lines)
    camera.publishers['bridge'].publish(bad)
    line = host.wait_for('image dropped', since=since)
    assert '[WARN]' in line
    assert 'cv_bridge cannot read this nv21 image' in line
    assert 'set image_backend to builtin' in line
    camera.ask('bridge', as_message(camera.peer, 'bgr8'))


def test_it_cannot_be_exchanged_while_configured(camera: Camera) -> None:
    refused = camera.peer.set_parameter('/bridge/clipseg', 'image_backend', 'builtin')
    assert not refused.successful
    assert 'cleanup' in refused.reason


def test_one_that_fails_is_refused_until_it_is_mended(
    tmp_path: Path, domain: int, peer: Peer, common: dict[str, Any]
) -> None:
    """One that takes red for blue."""
    (tmp_path / 'cv_bridge.py').write_text(
        'import runpy\n'
        f'Good = runpy.run_path({str(STAND_INS / "cv_bridge.py")!r})["CvBridge"]\n'
        'class CvBridge(Good):\n'
        '    def imgmsg_to_cv2(self, *words):\n'
        '        return super().imgmsg_to_cv2(*words)[..., ::-1]\n'
    )
    diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
    nodes = {'faulty': {**common, 'image_backend': 'cv_bridge'}}
    with hosting(tmp_path, nodes, 'configure failed') as process:
        line = process.wait_for('configure failed')
        for part in (
            '[ERROR]',
            'fails its self-test (bgr8, rows',
            str(tmp_path),
            'image_backend to builtin',
        ):
            assert part in line

        def reason() -> str:
            own = [a.status[0] for a in list(diagnostics) if 'faulty' in a.status[0].name]
            return str(own[-1].message) if own else ''

        wait_until(lambda: 'fails its self-test' in reason(), what='the diagnostics')

        assert peer.set_parameter('/faulty/clipseg', 'image_backend', 'builtin').successful
        for step in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=step))
            assert peer.call(ChangeState, '/faulty/clipseg/change_state', request).success
        masks = peer.collect(Image, '/faulty/clipseg/mask', image_output())
        images = peer.publisher(Image, '/faulty/image', image_output())

        def came() -> bool:
            images.publish(peer.stamped(picture()))
            time.sleep(0.05)
            return bool(masks)

        wait_until(came, what='a mask')
