"""Clouds as messages: their bytes, and what another reader makes of them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from clipseg_ros.depth.clouds import pack_points, point_cloud

HEADER = Header(stamp=Time(sec=3, nanosec=4), frame_id='lens')


def some_points(number: int = 5, rgb: bool = True) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(0)
    return pack_points(
        generator.normal(size=(number, 3)).astype(np.float32),
        generator.integers(1, 255, number).astype(np.uint8),
        generator.random(number, np.float32),
        generator.integers(0, 256, (number, 3)).astype(np.uint8) if rgb else None,
    )


def test_every_byte_of_a_point() -> None:
    points = pack_points(
        np.array([[1.5, -2.0, 3.25]], np.float32),
        np.array([254], np.uint8),
        np.array([0.75], np.float32),
        np.array([[200, 3, 255]], np.uint8),
    )
    cloud = point_cloud(HEADER, points)
    assert cloud.header == HEADER
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, 1, 24, 24)
    assert cloud.is_dense
    assert not cloud.is_bigendian
    assert bytes(cloud.data) == struct.pack('<3f', 1.5, -2.0, 3.25) + bytes(
        (255, 3, 200, 0)
    ) + struct.pack('<If', 254, 0.75)
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ('x', 0, PointField.FLOAT32, 1),
        ('y', 4, PointField.FLOAT32, 1),
        ('z', 8, PointField.FLOAT32, 1),
        ('rgb', 12, PointField.FLOAT32, 1),
        ('label', 16, PointField.UINT32, 1),
        ('probability', 20, PointField.FLOAT32, 1),
    ]


def test_without_colour() -> None:
    cloud = point_cloud(HEADER, some_points(rgb=False))
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'label', 'probability']
    assert (cloud.point_step, cloud.row_step, len(cloud.data)) == (20, 100, 100)


@pytest.mark.parametrize('number', [0, 1, 1000])
def test_through_the_middleware_and_back(number: int) -> None:
    points = some_points(number)
    cloud = deserialize_message(serialize_message(point_cloud(HEADER, points)), PointCloud2)
    assert (cloud.width, cloud.height) == (number, 1)
    formats = {PointField.FLOAT32: '<f4', PointField.UINT32: '<u4'}
    layout = np.dtype(
        {
            'names': [field.name for field in cloud.fields],
            'formats': [formats[field.datatype] for field in cloud.fields],
            'offsets': [field.offset for field in cloud.fields],
            'itemsize': cloud.point_step,
        }
    )
    read = np.frombuffer(cloud.data, layout)
    for name in layout.names or ():
        np.testing.assert_array_equal(read[name], points[name])
