"""Point clouds as messages.

One point has 24 bytes, or 20 without colour: ``x``, ``y``, ``z`` and ``rgb`` (packed as PCL and
RViz expect it: a float32 whose bits are 0x00RRGGBB), ``label`` (uint32, as in PCL's
``PointXYZRGBL``) and ``probability`` (float32).
"""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_FLOAT, _UINT = np.dtype(np.float32), np.dtype(np.uint32)
_DATATYPES = {_FLOAT: PointField.FLOAT32, _UINT: PointField.UINT32}


def cloud_dtype(rgb: bool) -> np.dtype[Any]:
    """Return the layout of a point, with colour or without."""
    colour = [('rgb', _FLOAT)] if rgb else []
    axes = [(axis, _FLOAT) for axis in 'xyz']
    return np.dtype([*axes, *colour, ('label', _UINT), ('probability', _FLOAT)])


def pack_points(
    xyz: NDArray[np.float32],
    labels: NDArray[np.uint8],
    probability: NDArray[np.float32],
    rgb: NDArray[np.uint8] | None,
) -> NDArray[Any]:
    """Return points as (N,) of :func:`cloud_dtype`.

    Args:
        xyz: Metres, float32 (N, 3).
        labels: Id of the prompt of each, uint8 (N,).
        probability: Of that prompt, float32 (N,), 0…1.
        rgb: Colour, uint8 (N, 3); None leaves the field out.
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


def point_cloud(header: Header, points: NDArray[Any]) -> PointCloud2:
    """Return the message of points, (N,) of :func:`cloud_dtype`; N may be 0."""
    assert points.dtype.fields is not None
    step = points.dtype.itemsize
    cloud = PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=offset, datatype=_DATATYPES[kind], count=1)
            for name, (kind, offset, *_) in points.dtype.fields.items()
        ],
        is_bigendian=sys.byteorder == 'big',
        point_step=step,
        row_step=step * len(points),
        is_dense=True,
    )
    # A numpy array assigned to `data` is converted byte by byte; an array.array is taken as it is.
    cloud.data = array.array('B', points.tobytes())
    return cloud
