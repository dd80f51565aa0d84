"""A camera with depth before the shared node, and what may be wrong with its messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from ros_peers import Peer, picture, stamp_of, wait_until
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from clipseg_ros.camera.node import camera_info
from clipseg_ros.depth.clouds import cloud_dtype
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.ros.qos import image_output

RELIABLE = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
HEIGHT, WIDTH = 120, 160
K = np.array([[150.0, 0.0, 79.5], [0.0, 145.0, 59.5], [0.0, 0.0, 1.0]])
Change = Callable[[Image, Image, CameraInfo], None]


def depth_values() -> np.ndarray[Any, Any]:
    """A sloping surface with holes, as float cameras have them."""
    depth = np.linspace(0.5, 4.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth[::7] = np.nan
    depth[3::7] = 0.0
    return depth


class DepthCamera:
    """Publishes an image with its depth and calibration, and listens to what is made of them."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.clouds = peer.collect(PointCloud2, '/clipseg/points', RELIABLE)
        self.labels = peer.collect(Image, '/clipseg/labels', RELIABLE)
        self.confidence = peer.collect(Image, '/clipseg/confidence', RELIABLE)
        self.diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 10)
        # Opened because of the listener to ~/points, and by nothing else.
        self.depth = peer.publisher(Image, '/depth', image_output())
        self.info = peer.publisher(CameraInfo, '/camera_info', image_output())
        self.image = peer.publisher(Image, '/image', image_output())

    def messages(self, form: str = '32FC1') -> tuple[Image, Image, CameraInfo]:
        """An image of now with what belongs to it."""
        image = self.peer.stamped(picture(HEIGHT, WIDTH, seed=5), frame='lens')
        values = depth_values()
        depth = array_to_image(values, '32FC1', image.header)
        if form == '16UC1':
            millimetres = np.round(np.nan_to_num(values) * 1000).astype('>u2')
            rows = np.hstack((millimetres.view(np.uint8), np.full((HEIGHT, 10), 9, np.uint8)))
            depth.encoding, depth.is_bigendian, depth.step = '16UC1', 1, rows.shape[1]
            depth.data = rows.tobytes()
        return image, depth, camera_info(image.header, WIDTH, HEIGHT, K)

    def send(self, image: Image, depth: Image, info: CameraInfo) -> None:
        self.info.publish(info)
        self.depth.publish(depth)
        self.image.publish(image)

    def ask(self, form: str = '32FC1', change: Change | None = None) -> dict[str, Any]:
        """Publishes anew until cloud, labels and confidence of one stamp are there."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            sent = self.messages(form)
            if change is not None:
                change(*sent)
            self.send(*sent)
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                found = {
                    name: message
                    for name in ('clouds', 'labels', 'confidence')
                    for message in list(getattr(self, name))
                    if stamp_of(message) == stamp_of(sent[0])
                }
                if len(found) == 3:
                    return {**found, 'image': sent[0], 'depth': sent[1]}
                time.sleep(0.01)
        raise AssertionError('no cloud for any image')

    def status(self) -> DiagnosticStatus:
        """The newest diagnosis."""
        wait_until(lambda: self.diagnostics)
        return self.diagnostics[-1].status[0]


def read(cloud: PointCloud2) -> np.ndarray[Any, Any]:
    return np.frombuffer(cloud.data, cloud_dtype(rgb=cloud.point_step == 24))


def later(message: Any, milliseconds: int) -> None:
    nanoseconds = message.header.stamp.nanosec + milliseconds * 1_000_000
    stamp = Time(sec=message.header.stamp.sec + nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    message.header = Header(stamp=stamp, frame_id=message.header.frame_id)


def change_depth(**fields: Any) -> Change:
    def change(image: Image, depth: Image, info: CameraInfo) -> None:
        for name, value in fields.items():
            setattr(depth, name, value)

    return change


def change_info(**fields: Any) -> Change:
    def change(image: Image, depth: Image, info: CameraInfo) -> None:
        for name, value in fields.items():
            setattr(info, name, value)

    return change
