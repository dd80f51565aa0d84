"""From a mask and a depth image to points in space, and to measures of the visible surface.

A camera sees one side of an object, so what is measured is the visible surface, not the solid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipseg_ros.depth.pinhole import Pinhole
from clipseg_ros.depth.transforms import RigidTransform
from clipseg_ros.errors import DepthError


@dataclass(frozen=True)
class Surface:
    """The visible surface under a mask; places are x, y, z in metres, float64 (3,).

    Attributes:
        points: Number of pixels that were measured, at least 1.
        centroid: Mean of the points.
        low: Least x, y and z.
        high: Greatest x, y and z.
        nearest: The point nearest to the camera.
    """

    points: int
    centroid: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    nearest: NDArray[np.float64]


def check_registered(
    depth: NDArray[np.float32], frame_id: str, width: int, height: int, image_frame_id: str
) -> None:
    """Make sure that a depth image, (H, W), is registered to a colour image.

    Raises:
        DepthError: It has another size or ``frame_id``.
    """
    rows, columns = depth.shape
    if (columns, rows) != (width, height):
        raise DepthError(
            'size',
            f'depth is {columns}x{rows}, image {width}x{height}: publish depth that is registered '
            "to the colour image (the driver's aligned depth, or depth_image_proc's register node)",
        )
    if frame_id and image_frame_id and frame_id != image_frame_id:
        raise DepthError(
            'frame',
            f'depth is in the frame {frame_id!r}, image in {image_frame_id!r}: it is not '
            "registered to the colour image. Publish the driver's aligned depth, or use "
            "depth_image_proc's register node",
        )


def visible_points(
    mask: NDArray[np.generic],
    depth: NDArray[np.float32],
    camera: Pinhole,
    depth_max: float = 0.0,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the points of a mask where depth is known.

    Args:
        mask: (H, W); not 0 on the object.
        depth: Metres along the optical axis, float32 (H, W); 0 is unknown.
        camera: For images of that size.
        depth_max: Metres beyond which depth is ignored; 0 is no limit.

    Returns:
        Flat index of each pixel (N,), ascending, and its point x, y, z in metres in the optical
        frame, float32 (N, 3). N may be 0.
    """
    index = np.flatnonzero(mask)
    measured = depth.ravel()[index]
    known = measured > 0
    if depth_max > 0:
        known &= measured <= depth_max
    if not camera.complete:
        assert camera.rays is not None
        known &= np.isfinite(camera.rays[0][index])
    if not known.all():
        index, measured = index[known], measured[known]
    return index, camera.points(index, measured)


def measure_surface(
    points: NDArray[np.float32], transform: RigidTransform | None = None
) -> Surface | None:
    """Measure a surface in the target frame; return None where there is no point.

    Args:
        points: x, y, z in metres in the camera's optical frame, float32 (N, 3).
        transform: From there to the target frame; None where that is the same.
    """
    if not len(points):
        return None
    # Before the points are transformed: nearest to the camera.
    nearest = int(np.argmin(np.einsum('ij,ij->i', points, points)))
    if transform is not None:
        points = transform.apply(points)
    return Surface(
        points=len(points),
        centroid=points.mean(axis=0, dtype=np.float64),
        low=points.min(axis=0).astype(np.float64),
        high=points.max(axis=0).astype(np.float64),
        nearest=points[nearest].astype(np.float64),
    )
