"""Points in another frame, with tf2 itself: the transform is that of the image's own time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('tf2_ros', reason='tf2 comes with a ROS 2 installation, not with pip')

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from ros_peers import NodeProcess, Peer, picture, running_node, stamp_of, wait_until
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from clipseg_ros.camera.node import camera_info
from clipseg_ros.depth.clouds import cloud_dtype
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.ros.qos import image_output

HEIGHT, WIDTH = 100, 140
K = np.array([[120.0, 0.0, 69.5], [0.0, 120.0, 49.5], [0.0, 0.0, 1.0]])


class DepthCamera:
    """Publishes an image with depth at a time; returns the cloud that is made of it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.clouds = peer.collect(PointCloud2, '/clipseg/points', image_output())
        self.depth = peer.publisher(Image, '/depth', image_output())
        self.info = peer.publisher(CameraInfo, '/camera_info', image_output())
        self.images = peer.publisher(Image, '/image', image_output())

    def now(self) -> float:
        return float(self.peer.node.get_clock().now().nanoseconds) * 1e-9

    def cloud(self, at: float, timeout: float = 10.0) -> PointCloud2:
        image = self.peer.stamped(picture(HEIGHT, WIDTH, seed=3), frame='lens')
        image.header.stamp.sec = int(at)
        image.header.stamp.nanosec = int((at - int(at)) * 1e9)
        depth = np.linspace(1.0, 3.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)

        def answers() -> list[PointCloud2]:
            self.info.publish(camera_info(image.header, WIDTH, HEIGHT, K))
            self.depth.publish(array_to_image(depth, '32FC1', image.header))
            self.images.publish(image)
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                found = [m for m in list(self.clouds) if stamp_of(m) == stamp_of(image)]
                if found:
                    return found
                time.sleep(0.01)
            return []

        return wait_until(answers, timeout, 'a cloud')[-1]


@pytest.fixture(scope='module')
def node(own_domain: int, tiny_model: Path) -> Iterator[NodeProcess]:
    with running_node(
        'clipseg_ros.segment_node',
        {
            'model': tiny_model,
            'device': 'cpu',
            'threads': 1,
            'prompt': 'the mug',
            'target_frame': 'base_link',
        },
        environment={
            'PYTHONPATH': os.environ.get('PYTHONPATH', ''),
            'ROS_DOMAIN_ID': str(own_domain),
        },
    ) as made:
        yield made


@pytest.fixture(scope='module')
def peer(own_domain: int, node: NodeProcess) -> Iterator[Peer]:
    made = Peer(own_domain)
    yield made
    made.close()


@pytest.fixture(scope='module')
def camera(peer: Peer) -> DepthCamera:
    return DepthCamera(peer)


def points(cloud: PointCloud2) -> np.ndarray[Any, Any]:
    values = np.frombuffer(cloud.data, cloud_dtype(rgb=cloud.point_step == 24))
    return np.stack([values[name] for name in 'xyz'], axis=-1)


def transform(parent: str, child: str, at: float, along: float, **turn: float) -> TransformStamped:
    """A shift along x, 1 m up, and a turn."""
    header = Header(frame_id=parent)
    header.stamp.sec, header.stamp.nanosec = int(at), int((at - int(at)) * 1e9)
    return TransformStamped(
        header=header,
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=along, z=1.0), rotation=Quaternion(**(turn or {'w': 1.0}))
        ),
    )


def test_until_tf2_knows_points_stay_in_the_optical_frame(
    node: NodeProcess, camera: DepthCamera
) -> None:
    cloud = camera.cloud(camera.now())
    assert cloud.header.frame_id == 'lens'
    node.wait_for('points stay in lens: no transform from lens to base_link')


def test_the_transform_is_that_of_the_image_s_time(camera: DepthCamera, peer: Peer) -> None:
    # base_link → mast moves along x with 1 m in 2 s; mast → lens is fixed, an optical frame.
    fixed, moving = StaticTransformBroadcaster(peer.node), TransformBroadcaster(peer.node)
    fixed.sendTransform(transform('mast', 'lens', 0.0, 0.2, x=-0.5, y=0.5, z=-0.5, w=0.5))
    begin = camera.now()
    wait_until(lambda: peer.node.count_subscribers('/tf'))
    for seconds in (0.0, 2.0):
        moving.sendTransform(transform('base_link', 'mast', begin + seconds, seconds / 2))

    def placed() -> PointCloud2 | None:
        cloud = camera.cloud(begin + 0.5)
        return cloud if cloud.header.frame_id == 'base_link' else None

    cloud = wait_until(placed, 20.0, 'a cloud in base_link')
    later = points(camera.cloud(begin + 1.5))
    # At once, with the answer of the service.
    assert peer.set_parameter('/clipseg', 'target_frame', '').successful
    own = camera.cloud(begin + 0.6)
    assert own.header.frame_id == 'lens'
    assert peer.set_parameter('/clipseg', 'target_frame', 'base_link').successful
    x, y, z = points(own).T
    assert len(x) > 100
    # At half a second: a quarter of a metre. The lens looks along x, 2 m up.
    expected = np.stack((z + 0.2 + 0.25, -x, 2.0 - y), axis=-1)
    np.testing.assert_allclose(points(cloud), expected, atol=1e-5)
    np.testing.assert_allclose(later - points(cloud), [[0.5, 0.0, 0.0]] * len(later), atol=1e-5)


def test_a_time_that_tf2_does_not_know_is_told(camera: DepthCamera, peer: Peer) -> None:
    diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 10)
    assert camera.cloud(camera.now() + 3600.0).header.frame_id == 'lens'

    moving = TransformBroadcaster(peer.node)

    def told() -> bool:
        moving.sendTransform(transform('base_link', 'mast', camera.now(), 0.0))
        camera.cloud(camera.now() + 3600.0)
        message = diagnostics[-1].status[0].message if diagnostics else ''
        return 'no transform from lens to base_link' in message and 'extrapolation' in message

    wait_until(told)
