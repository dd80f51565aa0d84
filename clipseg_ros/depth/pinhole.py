"""The camera's geometry, from its calibration message: the ray of each pixel.

Without distortion, the ray of a pixel is one multiplication (Hartley and Zisserman, "Multiple View
Geometry", 6.1). A ``sensor_msgs/CameraInfo`` does not say whether its image was rectified: one with
distortion is refused until the user says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_ros.errors import DepthError

DISTORTIONS = ('refuse', 'rectified', 'undistort')

_PERSPECTIVE = ('plumb_bob', 'rational_polynomial')
_FISHEYE = ('equidistant', 'fisheye')
_ITERATIONS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
# Where OpenCV's inversion of the distortion has not converged, it is off by far more.
_LARGEST_RESIDUAL = 0.1


@dataclass(frozen=True)
class Pinhole:
    """Rays of a camera, in its optical frame: x right, y down, z forward (REP 103).

    Attributes:
        fx, fy: Focal lengths, pixels.
        cx, cy: The principal point, pixels; pixel centres have whole coordinates.
        width, height: Of the image, pixels.
        rays: x/z and y/z of each pixel, float32 (2, H · W), NaN where it has none; None: compute.
        complete: Whether every pixel has a ray; computed.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    rays: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    complete: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.rays is None:
            rays = np.empty((2, self.height, self.width), np.float32)
            rays[0] = (np.arange(self.width) - self.cx) / self.fx
            rays[1] = ((np.arange(self.height) - self.cy) / self.fy)[:, None]
            object.__setattr__(self, 'rays', rays.reshape(2, -1))
        else:
            object.__setattr__(self, 'complete', bool(np.isfinite(self.rays).all()))

    def points(self, index: NDArray[np.intp], depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return where pixels are: x, y, z in metres, float32 (N, 3); NaN where there is no ray.

        Args:
            index: Flat index of each pixel (row · width + column), (N,).
            depth: Metres of each along the optical axis (not along the ray), float32 (N,).
        """
        assert self.rays is not None
        xyz = np.empty((3, len(index)), np.float32)
        for axis in (0, 1):
            np.multiply(self.rays[axis][index], depth, out=xyz[axis])
        xyz[2] = depth
        return xyz.T


def pinhole_of(info: Any, width: int, height: int, distortion: str = 'refuse') -> Pinhole:
    """Read a calibration.

    Without distortion the projection P is used, or K where P is zero. Binning and region of
    interest are applied as ``CameraInfo.msg`` describes them.

    Args:
        info: A ``sensor_msgs/CameraInfo``.
        width: Of the image, pixels.
        height: Of the image, pixels.
        distortion: Where there is distortion: ``refuse``; ``rectified``, the image has been
            rectified, so P holds; ``undistort``, it has not, so K and D hold.

    Raises:
        DepthError: It is all zero (not calibrated), for an image of another size, has values that
            no camera has, or has distortion that is not handled.
    """
    k = _matrix(info.k, 3, 'k')
    p = _matrix(info.p, 4, 'p')
    d = np.asarray(info.d, np.float64)
    if not np.isfinite(d).all():
        raise DepthError('calibration', f'camera_info has d {_listed(d)}: calibrate the camera')
    if not (k.any() or p.any()):
        raise DepthError(
            'calibration',
            'camera_info is all zero, which means that the camera is not calibrated (REP 104): '
            'calibrate it, or give its driver the calibration file',
        )
    _check_size(info, width, height)
    distorted = bool(np.abs(d).max(initial=0.0) > 0)
    if distorted and distortion == 'refuse':
        raise DepthError(
            'distortion',
            f'camera_info has distortion ({info.distortion_model or "no model named"}, d '
            f'{_listed(d)}), and does not tell whether the images are rectified. Set the parameter '
            'distortion to rectified where they are (image_rect), to undistort where they are not',
        )
    raw = distorted and distortion == 'undistort'
    matrix = k if raw or not p.any() else p
    if not matrix.any():
        raise DepthError(
            'calibration', 'camera_info has p but k is all zero, and distortion:=undistort needs k'
        )
    matrix = _cropped(matrix, info)
    fx, fy, cx, cy = (float(matrix[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    if not (fx > 0 and fy > 0):
        raise DepthError(
            'calibration',
            f'camera_info has focal lengths {fx:g} and {fy:g} pixels, and they have to be above '
            '0: calibrate the camera',
        )
    rays = _undistorted(matrix[:, :3], d, info.distortion_model, width, height) if raw else None
    return Pinhole(fx, fy, cx, cy, width, height, rays)


def _matrix(values: Sequence[float], columns: int, name: str) -> NDArray[np.float64]:
    matrix = np.asarray(values, np.float64).reshape(3, columns)
    if not np.isfinite(matrix).all():
        raise DepthError(
            'calibration', f'camera_info has {name} {_listed(matrix.ravel())}: calibrate the camera'
        )
    return matrix


def _check_size(info: Any, width: int, height: int) -> None:
    """Compare the size of the calibration, after binning and region of interest, with the image."""
    columns, rows = info.roi.width or info.width, info.roi.height or info.height
    columns //= max(1, info.binning_x)
    rows //= max(1, info.binning_y)
    if (columns, rows) != (width, height):
        detail = ''
        if (columns, rows) != (info.width, info.height):
            detail = f' ({info.width}x{info.height} before binning and region of interest)'
        raise DepthError(
            'size',
            f'camera_info is for {columns}x{rows}{detail}, image is {width}x{height}: take both '
            'from the same camera at the same resolution',
        )


def _cropped(matrix: NDArray[np.float64], info: Any) -> NDArray[np.float64]:
    """Return a matrix of the full sensor for its region of interest and binning."""
    matrix = matrix.copy()
    matrix[0, 2] -= info.roi.x_offset
    matrix[1, 2] -= info.roi.y_offset
    matrix[0] /= max(1, info.binning_x)
    matrix[1] /= max(1, info.binning_y)
    return matrix


def _undistorted(
    k: NDArray[np.float64], d: NDArray[np.float64], model: str, width: int, height: int
) -> NDArray[np.float32]:
    """Return the rays of a lens with distortion, (2, H · W), NaN where there is none."""
    if model not in (*_PERSPECTIVE, *_FISHEYE):
        raise DepthError(
            'distortion',
            f'camera_info has the distortion model {model[:60]!r}, which is not known: publish '
            f'rectified images, or one of {", ".join((*_PERSPECTIVE, *_FISHEYE))}',
        )
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack((columns, rows), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    try:
        if model in _FISHEYE:
            rays = cv2.fisheye.undistortPoints(pixels, k, d[:4])
            again = cv2.fisheye.distortPoints(rays, k, d[:4])
        else:
            rays = cv2.undistortPoints(pixels, k, d, criteria=_ITERATIONS)
            space = cv2.convertPointsToHomogeneous(rays.reshape(-1, 2))
            again = cv2.projectPoints(space, np.zeros(3), np.zeros(3), k, d)[0]
    except cv2.error as error:
        raise DepthError(
            'distortion', f'{len(d)} coefficients d do not make a {model} model: {error.err}'
        ) from error
    rays = np.array(rays, np.float32).reshape(-1, 2)
    residual = np.abs(np.asarray(again).reshape(-1, 2) - pixels.reshape(-1, 2)).max(axis=1)
    rays[~(residual <= _LARGEST_RESIDUAL)] = np.nan
    return np.ascontiguousarray(rays.T)


def _listed(values: NDArray[np.float64]) -> str:
    return '[' + ', '.join(f'{value:g}' for value in values[:12]) + ']'
