"""Points between processes: what comes out belongs to the image, the depth and the calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from depth_camera import HEIGHT, RELIABLE, WIDTH, DepthCamera, change_info, later, read
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from ros_peers import NodeProcess, Peer, picture, stamp_of, wait_until
from sensor_msgs.msg import Image, PointCloud2

from clipseg_ros.images.conversion import array_to_image, depth_to_metres, image_to_rgb
from clipseg_ros.ros.qos import image_output

BEST_EFFORT = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)


# Before anybody else of this module publishes depth or listens to points:


def test_without_depth_it_says_who_is_missing(segment: NodeProcess, domain: int) -> None:
    peer = Peer(domain, 'no_depth')
    try:
        clouds = peer.collect(PointCloud2, '/clipseg/points', RELIABLE)
        diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 10)
        images = peer.publisher(Image, '/image', image_output())

        def reported() -> bool:
            images.publish(peer.stamped(picture(HEIGHT, WIDTH)))
            time.sleep(0.05)
            message = diagnostics[-1].status[0].message if diagnostics else ''
            return 'nobody publishes it' in message and '-r ' in message

        wait_until(reported)
        assert clouds == []
    finally:
        peer.close()


def test_depth_without_calibration_says_so(segment: NodeProcess, domain: int) -> None:
    peer = Peer(domain, 'no_calibration')
    try:
        clouds = peer.collect(PointCloud2, '/clipseg/points', RELIABLE)
        diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 10)
        images = peer.publisher(Image, '/image', image_output())
        depths = peer.publisher(Image, '/depth', image_output())
        metres = np.ones((HEIGHT, WIDTH), np.float32)

        def reported() -> bool:
            image = peer.stamped(picture(HEIGHT, WIDTH))
            depths.publish(array_to_image(metres, '32FC1', image.header))
            images.publish(image)
            time.sleep(0.05)
            status = diagnostics[-1].status[0] if diagnostics else None
            words = 'no camera_info on /camera_info, nobody publishes it'
            return status is not None and status.level == b'\x01' and words in status.message

        wait_until(reported)
        assert clouds == []
    finally:
        peer.close()


def test_nothing_is_subscribed_to_while_nobody_listens(segment: NodeProcess, domain: int) -> None:
    peer = Peer(domain, 'onlooker')
    try:
        wait_until(lambda: 'clipseg' in peer.node.get_node_names())

        def topics() -> set[str]:
            pairs = peer.node.get_subscriber_names_and_types_by_node('clipseg', '/')
            return {name for name, _ in pairs} & {'/depth', '/camera_info'}

        wait_until(lambda: not topics(), what='no subscription')
        subscription = peer.node.create_subscription(
            PointCloud2, '/clipseg/points', lambda message: None, RELIABLE
        )
        wait_until(lambda: topics() == {'/depth', '/camera_info'}, what='two subscriptions')
        peer.node.destroy_subscription(subscription)
        wait_until(lambda: not topics(), what='none again')
    finally:
        peer.close()


def test_from_the_simulated_camera(segment: NodeProcess, domain: int) -> None:
    """The demo's camera, this node and a listener: three processes."""
    peer = Peer(domain, 'watcher')
    camera = None
    try:
        clouds = peer.collect(PointCloud2, '/clipseg/points', RELIABLE)
        labels = peer.collect(Image, '/clipseg/labels', RELIABLE)
        depths = peer.collect(Image, '/depth', RELIABLE)
        camera = NodeProcess('clipseg_ros.camera_node', {'seed': 3, 'rate': 5.0})

        def complete() -> list[tuple[int, int]]:
            stamps = [{stamp_of(m) for m in list(got)} for got in (clouds, labels, depths)]
            return sorted(set.intersection(*stamps))

        stamp = wait_until(complete, 30)[-1]
        cloud, label, depth = (
            next(m for m in got if stamp_of(m) == stamp) for got in (clouds, labels, depths)
        )
        assert cloud.header.frame_id == 'camera_optical_frame'
        metres, on = depth_to_metres(depth).ravel(), np.frombuffer(label.data, np.uint8)
        index = np.flatnonzero((metres > 0) & (on > 0))
        points = read(cloud)
        np.testing.assert_array_equal(points['z'], metres[index])
        np.testing.assert_array_equal(points['label'], on[index])
    finally:
        peer.close()
        status = camera.stop() if camera is not None else 0
    assert status == 0


# From here on, with a camera and a listener.


@pytest.mark.parametrize('form', ['32FC1', '16UC1'])
def test_the_cloud_field_by_field(depth_camera: DepthCamera, form: str) -> None:
    answer = depth_camera.ask(form)
    cloud, image = answer['clouds'], answer['image']
    assert cloud.header == image.header
    points = read(cloud)
    assert cloud.height == 1
    assert cloud.width == len(points)
    labels = np.frombuffer(answer['labels'].data, np.uint8)
    confidence = np.frombuffer(answer['confidence'].data, np.uint8)
    metres = depth_to_metres(answer['depth']).ravel()
    index = np.flatnonzero((labels > 0) & (metres > 0))
    assert len(index) > 100, 'the test picture has labels'
    assert len(index) < np.count_nonzero(labels), 'and holes in its depth'
    np.testing.assert_array_equal(points['label'], labels[index])
    np.testing.assert_array_equal(np.rint(points['probability'] * 255), confidence[index])
    np.testing.assert_array_equal(points['z'], metres[index])
    rows, columns = np.divmod(index, WIDTH)
    np.testing.assert_allclose(points['x'] / points['z'] * 150 + 79.5, columns, atol=1e-3)
    np.testing.assert_allclose(points['y'] / points['z'] * 145 + 59.5, rows, atol=1e-3)
    rgb = image_to_rgb(image).reshape(-1, 3)[index].astype(np.uint32)
    np.testing.assert_array_equal(
        points['rgb'].view(np.uint32), rgb[:, 0] << 16 | rgb[:, 1] << 8 | rgb[:, 2]
    )


def test_both_kinds_of_subscriber(depth_camera: DepthCamera) -> None:
    received = depth_camera.peer.collect(PointCloud2, '/clipseg/points', BEST_EFFORT)
    wait_until(lambda: depth_camera.ask() and received)


def test_depth_may_come_before_the_image_and_after_its_labels(depth_camera: DepthCamera) -> None:
    depth_camera.ask()  # What is sent once is heard from then on.
    for late in (False, True):
        image, depth, info = depth_camera.messages()
        first, then = (image, depth) if late else (depth, image)
        depth_camera.info.publish(info)
        publishers = {id(image): depth_camera.image, id(depth): depth_camera.depth}
        publishers[id(first)].publish(first)
        if late:
            wait_until(
                lambda: any(stamp_of(m) == stamp_of(image) for m in depth_camera.labels)  # noqa: B023
            )
        else:
            time.sleep(0.1)
        publishers[id(then)].publish(then)
        wait_until(
            lambda: any(stamp_of(m) == stamp_of(image) for m in depth_camera.clouds)  # noqa: B023
        )


@pytest.fixture
def parameters(depth_camera: DepthCamera) -> Iterator[Callable[..., None]]:
    """Sets parameters, and sets them back afterwards."""
    before: dict[str, Any] = {}

    def change(**values: Any) -> None:
        for name, value in values.items():
            before.setdefault(name, depth_camera.peer.get_parameter('/clipseg', name))
            assert depth_camera.peer.set_parameter('/clipseg', name, value).successful
        time.sleep(0.3)  # They take effect within a fifth of a second.

    yield change
    change(**before)


def test_other_stamps_within_the_slop(
    depth_camera: DepthCamera, parameters: Callable[..., None]
) -> None:
    parameters(depth_slop=0.03)
    answer = depth_camera.ask(change=lambda image, depth, info: later(depth, 20))
    assert answer['clouds'].header == answer['image'].header, "the stamp is the image's"


def test_distortion_that_is_allowed_for(
    depth_camera: DepthCamera, parameters: Callable[..., None]
) -> None:
    change = change_info(d=[0.3, 0.0, 0.0, 0.0, 0.0])
    plain = read(depth_camera.ask()['clouds'])
    parameters(distortion='rectified')
    rectified = read(depth_camera.ask(change=change)['clouds'])
    np.testing.assert_array_equal(rectified, plain)
    parameters(distortion='undistort')
    undone = read(depth_camera.ask(change=change)['clouds'])
    np.testing.assert_array_equal(undone['z'], plain['z'])
    assert np.abs(undone['x'] - plain['x']).max() > 1e-3


def test_the_cloud_s_parameters(depth_camera: DepthCamera, parameters: Callable[..., None]) -> None:
    everything = read(depth_camera.ask()['clouds'])
    parameters(points_rgb=False, depth_max=2.0)
    cloud = depth_camera.ask()['clouds']
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'label', 'probability']
    near = read(cloud)
    assert 0 < len(near) < len(everything)
    assert near['z'].max() <= 2.0 < everything['z'].max()


def test_a_target_frame_without_tf2_says_so_once(
    depth_camera: DepthCamera, segment: NodeProcess, parameters: Callable[..., None]
) -> None:
    since = len(segment.lines)
    parameters(target_frame='base_link')
    for _ in range(3):
        assert depth_camera.ask()['clouds'].header.frame_id == 'lens'
    assert segment.count('tf2_ros is not installed here', since) == 1
    wait_until(
        lambda: 'tf2_ros is not installed' in depth_camera.status().message, what='a diagnosis'
    )
    assert depth_camera.status().level == b'\x01'


def test_depth_switched_off(depth_camera: DepthCamera, parameters: Callable[..., None]) -> None:
    parameters(depth=False)
    wait_until(lambda: depth_camera.depth.get_subscription_count() == 0)
    wait_until(lambda: 'depth is false' in depth_camera.status().message)
    parameters(depth=True)
    wait_until(lambda: depth_camera.depth.get_subscription_count() == 1)
    depth_camera.ask()


def test_diagnostics(depth_camera: DepthCamera) -> None:
    depth_camera.ask()
    wait_until(lambda: depth_camera.ask() and depth_camera.status().level == b'\x00')
    values = {item.key: item.value for item in depth_camera.status().values}
    assert int(values['points_published']) > 0
    assert int(values['depth_matched']) >= int(values['points_published'])
    assert {'depth_unmatched', 'depth_skipped'} <= set(values)
