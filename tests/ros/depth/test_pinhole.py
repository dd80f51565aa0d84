"""Rays of a camera against OpenCV's own projection, and calibrations that do not serve."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from clipseg_ros.camera.node import camera_info
from clipseg_ros.depth.pinhole import pinhole_of
from clipseg_ros.errors import DepthError

WIDTH, HEIGHT = 160, 120
K = np.array([[150.0, 0.0, 81.5], [0.0, 145.0, 58.25], [0.0, 0.0, 1.0]])
BROWN = [-0.2, 0.05, 0.001, -0.002, 0.0]
RATIONAL = [0.3, 0.05, 0.001, -0.002, 0.01, 0.35, 0.06, 0.011]
FISHEYE = [0.02, -0.01, 0.003, -0.001]


def calibration(**changes: Any) -> CameraInfo:
    info = camera_info(Header(), WIDTH, HEIGHT, K)
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def every_pixel(depth: float = 2.0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.arange(WIDTH * HEIGHT), np.full(WIDTH * HEIGHT, depth, np.float32)


def pixels(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack((columns, rows), -1).reshape(-1, 2).astype(np.float64)


def test_projecting_the_points_gives_the_pixels() -> None:
    index, _ = every_pixel()
    depth = np.linspace(0.3, 9.0, len(index), dtype=np.float32)
    points = pinhole_of(calibration(), WIDTH, HEIGHT).points(index, depth)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points[:, 2], depth)
    seen = cv2.projectPoints(points.astype(np.float64), np.zeros(3), np.zeros(3), K, None)[0]
    np.testing.assert_allclose(seen.reshape(-1, 2), pixels(), atol=1e-4)


def test_x_is_right_and_y_is_down() -> None:
    camera = pinhole_of(calibration(), WIDTH, HEIGHT)
    corner = camera.points(np.array([WIDTH * HEIGHT - 1]), np.ones(1, np.float32))
    assert (corner[0] > 0).all()
    np.testing.assert_allclose(corner[0, :2], [(159 - 81.5) / 150, (119 - 58.25) / 145], rtol=1e-6)


@pytest.mark.parametrize(('model', 'd'), [('plumb_bob', BROWN), ('rational_polynomial', RATIONAL)])
def test_distortion_is_undone(model: str, d: list[float]) -> None:
    info = calibration(distortion_model=model, d=d)
    points = pinhole_of(info, WIDTH, HEIGHT, 'undistort').points(*every_pixel())
    assert np.isfinite(points).all()
    seen = cv2.projectPoints(points.astype(np.float64), np.zeros(3), np.zeros(3), K, np.array(d))[0]
    np.testing.assert_allclose(seen.reshape(-1, 2), pixels(), atol=1e-3)
    ideal = pinhole_of(calibration(), WIDTH, HEIGHT).points(*every_pixel())
    assert np.abs(points - ideal).max() > 0.01, 'the test lens matters'


def test_a_fisheye_is_undone() -> None:
    info = calibration(distortion_model='equidistant', d=FISHEYE)
    points = pinhole_of(info, WIDTH, HEIGHT, 'undistort').points(*every_pixel())
    # The model itself (Kannala and Brandt): the image's radius is a polynomial of the angle.
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    radius = np.hypot(x, y)
    angle = np.arctan(radius)
    factor = angle * (1 + sum(c * angle ** (2 * n) for n, c in enumerate(FISHEYE, 1)))
    seen = np.stack((x, y), 1) * (factor / radius)[:, None] * np.diag(K)[:2] + K[:2, 2]
    np.testing.assert_allclose(seen, pixels(), atol=1e-3)


def test_pixels_that_no_ray_reaches_have_no_point() -> None:
    # Strong barrel distortion folds back on itself: its corners are the image of nothing.
    info = calibration(d=[-0.9, 0.0, 0.0, 0.0, 0.0])
    points = pinhole_of(info, WIDTH, HEIGHT, 'undistort').points(*every_pixel())
    assert np.isnan(points[0, 0])
    assert not pinhole_of(info, WIDTH, HEIGHT, 'undistort').complete
    middle = points[60 * WIDTH + 80]
    assert np.isfinite(middle).all()


def test_rectified_images_take_the_projection() -> None:
    p = [120.0, 0.0, 80.0, -12.0, 0.0, 120.0, 60.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = calibration(d=BROWN, p=p)
    camera = pinhole_of(info, WIDTH, HEIGHT, 'rectified')
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (120, 120, 80, 60)
    np.testing.assert_allclose(
        camera.points(np.array([0]), np.ones(1, np.float32)), [[-2 / 3, -0.5, 1]]
    )
    raw = pinhole_of(info, WIDTH, HEIGHT, 'undistort')
    assert (raw.fx, raw.cx) == (150, 81.5)


def test_without_distortion_the_projection_is_taken_and_k_where_there_is_none() -> None:
    p = [120.0, 0.0, 80.0, 0.0, 0.0, 120.0, 60.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert pinhole_of(calibration(p=p), WIDTH, HEIGHT).fx == 120
    assert pinhole_of(calibration(p=[0.0] * 12, d=[]), WIDTH, HEIGHT).fx == 150


def test_binning_and_region_of_interest() -> None:
    info = calibration(binning_x=2, binning_y=2)
    info.roi = RegionOfInterest(x_offset=40, y_offset=20, width=80, height=60)
    camera = pinhole_of(info, 40, 30)
    # The pixel (0, 0) of the image looks along the ray of (40, 20) of the sensor.
    first = camera.points(np.array([0]), np.ones(1, np.float32))[0]
    np.testing.assert_allclose(first, [(40 - 81.5) / 150, (20 - 58.25) / 145, 1], rtol=1e-6)
    last = camera.points(np.array([40 * 30 - 1]), np.ones(1, np.float32))[0]
    np.testing.assert_allclose(last, [(118 - 81.5) / 150, (78 - 58.25) / 145, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ('changes', 'kind', 'words'),
    [
        ({'k': [0.0] * 9, 'p': [0.0] * 12}, 'calibration', ['all zero', 'not calibrated']),
        ({'width': 320, 'height': 240}, 'size', ['320x240', 'image is 160x120']),
        ({'binning_x': 2, 'binning_y': 2}, 'size', ['80x60', '160x120 before binning']),
        ({'width': 0, 'height': 0}, 'size', ['0x0', '160x120']),
        ({'d': BROWN}, 'distortion', ['plumb_bob', '-0.2', 'rectified', 'undistort']),
        ({'k': [np.nan] * 9}, 'calibration', ['nan']),
        ({'d': [np.inf]}, 'calibration', ['inf']),
        ({'k': [-1.0, 0.0, 1.0] * 3, 'p': [0.0] * 12}, 'calibration', ['-1', 'above']),
    ],
)
def test_calibrations_that_do_not_serve(
    changes: dict[str, Any], kind: str, words: list[str]
) -> None:
    with pytest.raises(DepthError) as caught:
        pinhole_of(calibration(**changes), WIDTH, HEIGHT)
    assert caught.value.kind == kind
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'d': BROWN, 'distortion_model': 'my lens'}, ["'my lens'", 'plumb_bob']),
        ({'d': [0.1] * 6}, ['6 coefficients', 'plumb_bob']),
        ({'d': BROWN, 'k': [0.0] * 9}, ['k is all zero']),
    ],
)
def test_distortion_that_cannot_be_undone(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DepthError) as caught:
        pinhole_of(calibration(**changes), WIDTH, HEIGHT, 'undistort')
    for word in words:
        assert word in str(caught.value)
