"""The camera between processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from ros_peers import NodeProcess, Peer, shared_memory_files, stamp_of, wait_until
from sensor_msgs.msg import CameraInfo, Image

from clipseg_ros.camera.sources import open_source
from clipseg_ros.images.conversion import depth_to_metres, image_to_rgb

BEST_EFFORT = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)


@pytest.fixture(scope='module')
def camera(domain: int) -> Iterator[NodeProcess]:
    node = NodeProcess(
        'clipseg_ros.camera_node',
        {'seed': 3, 'rate': 20.0, 'frame_id': 'head_optical'},
        ['-r', '__ns:=/robot', '-r', 'image:=rgb/image_raw'],
    )
    node.wait_for('tabletop at 20 Hz')
    yield node
    status = node.stop()
    assert status == 0, node.output
    assert 'Traceback' not in node.output, node.output


def test_all_topics_of_a_frame_belong_together(camera: NodeProcess, peer: Peer) -> None:
    images = peer.collect(Image, '/robot/rgb/image_raw', RELIABLE)
    depths = peer.collect(Image, '/robot/depth', BEST_EFFORT)
    instances = peer.collect(Image, '/robot/camera/instances', RELIABLE)
    infos = peer.collect(CameraInfo, '/robot/camera_info', RELIABLE)

    def complete() -> list[tuple[int, int]]:
        stamps = [{stamp_of(m) for m in list(got)} for got in (images, depths, instances, infos)]
        return sorted(set.intersection(*stamps))

    stamp = wait_until(complete, 20)[-1]
    image, depth, truth, info = (
        next(m for m in got if stamp_of(m) == stamp) for got in (images, depths, instances, infos)
    )
    for message in (image, depth, truth, info):
        assert message.header.frame_id == 'head_optical'
        assert (message.height, message.width) == (480, 640)
    assert (image.encoding, image.step) == ('rgb8', 1920)
    assert (depth.encoding, depth.step) == ('32FC1', 2560)
    assert (truth.encoding, truth.step) == ('mono8', 640)

    world = open_source('tabletop', seed=3)
    frame = world.frame(0.0)
    world.close()
    assert frame is not None
    np.testing.assert_array_equal(image_to_rgb(image), frame.rgb)
    np.testing.assert_array_equal(depth_to_metres(depth), frame.depth)
    np.testing.assert_array_equal(np.frombuffer(truth.data, np.uint8).reshape(480, 640),
                                  frame.instances)  # fmt: skip
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), frame.intrinsics)


def test_another_scene_while_running(camera: NodeProcess, peer: Peer) -> None:
    truths = peer.collect(Image, '/robot/camera/instances', RELIABLE)
    wait_until(lambda: truths)
    assert peer.set_parameter('/robot/camera', 'seed', 4).successful
    assert peer.get_parameter('/robot/camera', 'seed') == 4
    count = len(truths) + 1
    world = open_source('tabletop', seed=4)
    frame = world.frame(0.0)
    world.close()
    assert frame is not None
    wait_until(lambda: len(truths) > count)
    found = np.frombuffer(truths[-1].data, np.uint8).reshape(480, 640)
    np.testing.assert_array_equal(found, frame.instances)


def test_parameters_out_of_range(camera: NodeProcess, peer: Peer) -> None:
    for name, value, words in (
        ('rate', 0.0, 'rate'),
        ('rate', 1e6, 'rate'),
        ('seed', -1, 'seed'),
        ('motion', 'fly', 'still, orbit'),
        ('source', '/tmp', 'read-only'),
    ):
        result = peer.set_parameter('/robot/camera', name, value)
        assert not result.successful
        assert words in result.reason


def test_rate_while_running(camera: NodeProcess, peer: Peer) -> None:
    infos = peer.collect(CameraInfo, '/robot/camera_info', RELIABLE)
    assert peer.set_parameter('/robot/camera', 'rate', 2.0).successful
    wait_until(lambda: infos)
    time.sleep(0.6)
    del infos[:]
    time.sleep(1.6)
    assert 2 <= len(infos) <= 4
    assert peer.set_parameter('/robot/camera', 'rate', 20.0).successful


def test_a_folder_until_its_end_and_a_signal(domain: int, peer: Peer, tmp_path: Path) -> None:
    for red in (50, 100):
        picture = np.full((30, 40, 3), (0, 0, red), np.uint8)
        assert cv2.imwrite(str(tmp_path / f'{red:03}.png'), picture)
    (tmp_path / '075.png').write_bytes(b'damaged')
    images = peer.collect(Image, '/files/image', RELIABLE)
    depths = peer.collect(Image, '/files/depth', RELIABLE)
    infos = peer.collect(CameraInfo, '/files/camera_info', RELIABLE)
    node = NodeProcess(
        'clipseg_ros.camera_node',
        {'source': tmp_path, 'loop': False, 'rate': 20.0},
        ['-r', '__ns:=/files'],
    )
    try:
        node.wait_for('is at its end')
        assert '075.png cannot be decoded' in node.wait_for('ERROR')
        wait_until(lambda: len(images) == len(infos) == 2)
        assert [image_to_rgb(image)[0, 0].tolist() for image in images] == [[50, 0, 0], [100, 0, 0]]
        assert images[0].header.frame_id == 'camera_optical_frame'
        assert (infos[0].width, infos[0].height, infos[0].k[0]) == (40, 30, 0.0)
        assert depths == []
        used = shared_memory_files(node.pid) - shared_memory_files()
        assert used
    finally:
        status = node.stop([signal.SIGTERM])
    assert status == 0, node.output
    assert not used & set(os.listdir('/dev/shm'))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['-p', 'source:=/nowhere/at/all'], "source '/nowhere/at/all' is neither"),
        (['-p', 'prompt:=the', 'mug'], "['mug']"),
        (['--params-file', '/nowhere.yaml'], '/nowhere.yaml'),
    ],
)
def test_what_cannot_start_says_why(domain: int, arguments: list[str], words: str) -> None:
    node = NodeProcess('clipseg_ros.camera_node', arguments=arguments)
    wait_until(lambda: not node.running, 20)
    assert node.stop() == 1
    assert 'cannot start: ' in node.output
    assert words in node.output
    assert 'Traceback' not in node.output
