"""Depth by compressedDepth, and a calibration that was published once, before a node."""

from __future__ import annotations

import array
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from depth_camera import HEIGHT, RELIABLE, WIDTH, K, depth_values, read
from diagnostic_msgs.msg import DiagnosticArray
from ros_peers import NodeProcess, Peer, picture, running_node, stamp_of, wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from clipseg_ros.camera.node import camera_info
from clipseg_ros.ros.qos import image_output, latched_output

MILLIMETRES = np.round(np.nan_to_num(depth_values()) * 1000).astype(np.uint16)


@pytest.fixture(scope='module')
def deep(tiny_model: Path, domain: int) -> Iterator[NodeProcess]:
    parameters = {
        'model': tiny_model,
        'device': 'cpu',
        'threads': 1,
        'prompt': "'the mug; red bowl'",
        'depth_transport': 'compressedDepth',
    }
    with running_node('clipseg_ros.segment_node', parameters, ['-r', '__ns:=/deep']) as node:
        yield node


def compressed_depth(image: Image) -> CompressedImage:
    png = cv2.imencode('.png', MILLIMETRES)[1].tobytes()
    data = array.array('B', struct.pack('<iff', 0, 0.0, 0.0) + png)
    return CompressedImage(header=image.header, format='16UC1; compressedDepth png', data=data)


def test_raw_depth_before_a_node_that_reads_compressed_says_so(
    deep: NodeProcess, domain: int
) -> None:
    peer = Peer(domain, 'raw_depth')
    try:
        peer.collect(PointCloud2, '/deep/clipseg/points', RELIABLE)
        diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
        peer.node.create_publisher(Image, '/deep/depth', image_output())

        def said() -> bool:
            found = [a.status[0] for a in list(diagnostics)]
            words = '/deep/depth is published: start this node with -p depth_transport:=raw'
            return any(s.name.startswith('deep/') and words in s.message for s in found)

        wait_until(said)
    finally:
        peer.close()


def test_one_latched_calibration_and_compressed_depth_make_points(
    deep: NodeProcess, domain: int
) -> None:
    peer = Peer(domain, 'deep_camera')
    try:
        # Once, without a stamp, and before anybody listens.
        latched = peer.node.create_publisher(CameraInfo, '/deep/camera_info', latched_output())
        latched.publish(camera_info(Header(frame_id='lens'), WIDTH, HEIGHT, K))
        time.sleep(0.5)
        clouds = peer.collect(PointCloud2, '/deep/clipseg/points', RELIABLE)
        labels = peer.collect(Image, '/deep/clipseg/labels', RELIABLE)
        depths = peer.publisher(CompressedImage, '/deep/depth/compressedDepth', image_output())
        images = peer.publisher(Image, '/deep/image', image_output())

        def both() -> Any:
            image = peer.stamped(picture(HEIGHT, WIDTH, seed=5), frame='lens')
            depths.publish(compressed_depth(image))
            images.publish(image)
            time.sleep(0.3)
            stamps = {stamp_of(m) for m in list(clouds)} & {stamp_of(m) for m in list(labels)}
            return sorted(stamps)

        stamp = wait_until(both, 20)[-1]
        cloud, label = (next(m for m in got if stamp_of(m) == stamp) for got in (clouds, labels))
        metres = MILLIMETRES.ravel() * np.float32(0.001)
        on = np.frombuffer(label.data, np.uint8)
        index = np.flatnonzero((metres > 0) & (on > 0))
        assert len(index) > 100
        points = read(cloud)
        np.testing.assert_array_equal(points['z'], metres[index])
        np.testing.assert_array_equal(points['label'], on[index])
        columns, rows = index % WIDTH, index // WIDTH
        expected = (columns - K[0, 2]) / K[0, 0] * metres[index]
        np.testing.assert_allclose(points['x'], expected, atol=1e-4)
        expected = (rows - K[1, 2]) / K[1, 1] * metres[index]
        np.testing.assert_allclose(points['y'], expected, atol=1e-4)
        assert 'QoS mismatch' not in deep.output
    finally:
        peer.close()
