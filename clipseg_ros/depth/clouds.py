"""Point clouds as messages.

One point has 24 bytes, or 20 without colour: ``x``, ``y``, ``z`` and ``rgb`` (packed as PCL and
RViz expect it: a float32 whose bits are 0x00RRGGBB), ``label`` (uint32, as in PCL's
``PointXYZRGBL``) and ``probability`` (float32).
"""

from __future__ import annotations

import array
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_FLOAT, _UINT = np.dtype(np.float32), np.dtype(np.uint32)
_DATATYPES = {_FLOAT: PointField.FLOAT32, _UINT: PointField.UINT32}


def cloud_dtype(rgb: bool) -> np.dtype[Any]:
    """Return the layout of a point, with colour or without."""
    fields = [('x', _FLOAT), ('y', _FLOAT), ('z', _FLOAT)]
    if rgb:
        fields.append(('rgb', _FLOAT))
    return np.dtype([*fields, ('label', _UINT), ('probability', _FLOAT)])


def pack_points(
    xyz: NDArray[np.float32],
    labels: NDArray[np.uint8],
    probability: NDArray[np.float32],
    rgb: NDArray[np.uint8] | None,
) -> NDArray[Any]:
    """Return points in the layout of the message.

    Args:
        xyz: Metres, float32 (N, 3).
        labels: Id of the prompt of each, uint8 (N,).
        probability: Of that prompt, float32 (N,), 0…1.
        rgb: Colour, uint8 (N, 3); None leaves the field out.

    Returns:
        (N,) of :func:`cloud_dtype`.
    """
    points = np.empty(len(xyz), cloud_dtype(rgb is not None))
    for axis, name in enumerate('xyz'):
        points[name] = xyz[:, axis]
    if rgb is not None:
        wide = rgb.astype(np.uint32)
        points['rgb'] = (wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2]).view(np.float32)
    points['label'] = labels
    points['probability'] = probability
    return points


def cloud_fields(dtype: np.dtype[Any]) -> list[PointField]:
    """Return the description of a layout of float32 and uint32 values."""
    assert dtype.fields is not None
    return [
        PointField(name=name, offset=offset, datatype=_DATATYPES[kind], count=1)
        for name, (kind, offset, *_) in dtype.fields.items()
    ]


def numpy_cloud(header: Header, points: NDArray[Any]) -> PointCloud2:
    """Return the message, made without sensor_msgs_py, with the same bytes.

    Args:
        header: Used as it is.
        points: Structured, (N,); N may be 0.
    """
    step = points.dtype.itemsize
    cloud = PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=cloud_fields(points.dtype),
        is_bigendian=sys.byteorder == 'big',
        point_step=step,
        row_step=step * len(points),
        is_dense=True,
    )
    # A numpy array assigned to `data` is converted byte by byte; an array.array is taken as it is.
    cloud.data = array.array('B', points.tobytes())
    return cloud


def sensor_msgs_cloud(header: Header, points: NDArray[Any]) -> PointCloud2:
    """Return the message, made by ``sensor_msgs_py``, which a ROS installation has.

    Args:
        header: Used as it is.
        points: Structured, (N,); N may be 0.

    Raises:
        ImportError: There is no sensor_msgs_py.
    """
    if not len(points):
        return numpy_cloud(header, points)  # sensor_msgs_py cannot make an empty one.
    module = importlib.import_module('sensor_msgs_py.point_cloud2')
    fields = cloud_fields(points.dtype)
    cloud: PointCloud2 = module.create_cloud(header, fields, points)
    # Every point is a number, which sensor_msgs_py leaves open.
    cloud.is_dense = True
    return cloud


def cloud_maker() -> Callable[[Header, NDArray[Any]], PointCloud2]:
    """Return the function that makes messages: sensor_msgs_py's where it is installed."""
    if importlib.util.find_spec('sensor_msgs_py') is None:
        return numpy_cloud
    return sensor_msgs_cloud
