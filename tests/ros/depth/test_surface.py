"""Points of masks, their measures, and moving them to another frame."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, Vector3

from clipseg_ros.depth.pinhole import Pinhole
from clipseg_ros.depth.surface import check_registered, measure_surface, visible_points
from clipseg_ros.depth.transforms import RigidTransform, TransformLookup
from clipseg_ros.errors import DepthError

CAMERA = Pinhole(fx=10.0, fy=10.0, cx=1.0, cy=1.0, width=4, height=3)


def transform_of(x: float, y: float, z: float, w: float, *translation: float) -> RigidTransform:
    tx, ty, tz = translation or (0.0, 0.0, 0.0)
    return RigidTransform.of_message(
        Transform(translation=Vector3(x=tx, y=ty, z=tz), rotation=Quaternion(x=x, y=y, z=z, w=w))
    )


# A camera that looks along the base's x: z forward becomes x, x right becomes -y.
OPTICAL_TO_BASE = transform_of(-0.5, 0.5, -0.5, 0.5, 0.2, 0.0, 1.0)


def test_only_what_is_on_the_mask_and_known() -> None:
    depth = np.array([[1, 1, 0, 1], [1, 2, 2, 0], [5, 1, 1, 1]], np.float32)
    mask = np.array([[0, 0, 1, 0], [0, 9, 1, 1], [1, 0, 0, 0]], np.uint8)
    index, points = visible_points(mask, depth, CAMERA)
    assert index.tolist() == [5, 6, 8]
    np.testing.assert_allclose(points, [[0, 0, 2], [0.2, 0, 2], [-0.5, 0.5, 5]], atol=1e-6)
    index, _ = visible_points(mask, depth, CAMERA, depth_max=2.0)
    assert index.tolist() == [5, 6]
    rays = np.zeros((2, 12), np.float32)
    rays[:, 6] = np.nan
    lens = Pinhole(10.0, 10.0, 1.0, 1.0, 4, 3, rays)
    index, points = visible_points(mask, depth, lens)
    assert index.tolist() == [5, 8]
    assert np.isfinite(points).all()


@pytest.mark.parametrize('what', ['mask', 'depth'])
def test_nothing_to_see_is_no_surface(what: str) -> None:
    mask = np.full((3, 4), what != 'mask')
    depth = np.full((3, 4), float(what != 'depth'), np.float32)
    index, points = visible_points(mask, depth, CAMERA)
    assert points.shape == (0, 3)
    assert points.dtype == np.float32
    assert len(index) == 0
    assert measure_surface(points) is None


def test_measures() -> None:
    points = np.array([[0, 0, 2], [1, 0, 1.5], [-1, 3, 4]], np.float32)
    surface = measure_surface(points)
    assert surface is not None
    assert surface.points == 3
    np.testing.assert_allclose(surface.centroid, [0, 1, 2.5])
    np.testing.assert_allclose(surface.low, [-1, 0, 1.5])
    np.testing.assert_allclose(surface.high, [1, 3, 4])
    # By its distance, not by its depth.
    np.testing.assert_allclose(surface.nearest, [1, 0, 1.5])
    far = measure_surface(np.array([[2, 0, 1.5], [0, 0, 2]], np.float32))
    assert far is not None
    np.testing.assert_allclose(far.nearest, [0, 0, 2])


def test_measures_in_another_frame() -> None:
    points = np.array([[0, 0, 2], [0.1, -0.3, 2.5]], np.float32)
    surface = measure_surface(points, OPTICAL_TO_BASE)
    assert surface is not None
    np.testing.assert_allclose(surface.low, [2.2, -0.1, 1.0], atol=1e-6)
    np.testing.assert_allclose(surface.high, [2.7, 0.0, 1.3], atol=1e-6)
    np.testing.assert_allclose(surface.nearest, [2.2, 0, 1], atol=1e-6)


def test_a_centroid_of_many_points_is_exact() -> None:
    points = np.full((2_000_000, 3), 1.001, np.float32)
    surface = measure_surface(points)
    assert surface is not None
    np.testing.assert_allclose(surface.centroid, np.float32(1.001), atol=1e-9)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_a_quarter_turn(axis: int) -> None:
    quaternion = [0.0, 0.0, 0.0, np.sqrt(0.5)]
    quaternion[axis] = np.sqrt(0.5)
    moved = transform_of(*quaternion).apply(np.eye(3, dtype=np.float32))
    following, last = (axis + 1) % 3, (axis + 2) % 3
    np.testing.assert_allclose(moved[axis], np.eye(3)[axis], atol=1e-6)
    np.testing.assert_allclose(moved[following], np.eye(3)[last], atol=1e-6)
    np.testing.assert_allclose(moved[last], -np.eye(3)[following], atol=1e-6)
    assert moved.dtype == np.float32


def test_an_unrounded_quaternion_is_made_exact() -> None:
    rotation = transform_of(0.3000001, 0.1, -0.2, 0.92736).rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ((0.0, 0.0, 0.0, 0.0), 'length 0'),
        ((0.0, 0.0, 0.0, 2.0), 'length 2'),
        ((0.0, 0.0, 0.0, float('nan')), 'nan'),
        ((0.0, 0.0, 0.0, 1.0, float('inf'), 0.0, 0.0), 'inf'),
    ],
)
def test_transforms_that_are_none(values: tuple[float, ...], words: str) -> None:
    with pytest.raises(DepthError, match=words) as caught:
        transform_of(*values)
    assert caught.value.kind == 'transform'


def test_depth_that_is_not_registered() -> None:
    depth = np.ones((240, 320), np.float32)
    check_registered(depth, 'colour', 320, 240, 'colour')
    check_registered(depth, '', 320, 240, 'colour')
    with pytest.raises(DepthError, match='depth is 320x240, image 640x480: publish') as caught:
        check_registered(depth, 'colour', 640, 480, 'colour')
    assert caught.value.kind == 'size'
    with pytest.raises(DepthError, match="the frame 'ir', image in 'colour'") as caught:
        check_registered(depth, 'ir', 320, 240, 'colour')
    assert caught.value.kind == 'frame'


class FakeBuffer:
    def lookup_transform(self, target: str, source: str, time: Any, timeout: Any) -> Any:
        assert timeout.nanoseconds > 0
        assert time.nanoseconds == 3_000_000_004
        if target != 'base':
            raise FakeTransformException(f'"{target}" does not exist')
        transform = Transform(translation=Vector3(x=1.0, y=2.0, z=3.0))
        return SimpleNamespace(transform=transform)


class FakeTransformException(Exception):
    pass


class FakeListener:
    open = 0

    def __init__(self, buffer: FakeBuffer, node: Any) -> None:
        FakeListener.open += 1

    def unregister(self) -> None:
        FakeListener.open -= 1


@pytest.fixture
def tf2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of tf2_ros as is used."""
    module = ModuleType('tf2_ros')
    module.__spec__ = SimpleNamespace(name='tf2_ros')  # type: ignore[assignment]
    module.Buffer = FakeBuffer  # type: ignore[attr-defined]
    module.TransformListener = FakeListener  # type: ignore[attr-defined]
    module.TransformException = FakeTransformException  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'tf2_ros', module)


def test_looking_up(tf2: None) -> None:
    lookup = TransformLookup(node=None)
    assert lookup.installed
    lookup.open()
    lookup.open()
    assert FakeListener.open == 1
    found = lookup.find('base', 'lens', Time(sec=3, nanosec=4))
    np.testing.assert_allclose(found.apply(np.zeros((1, 3), np.float32)), [[1, 2, 3]])
    with pytest.raises(DepthError, match=r'from lens to map: "map" does'):
        lookup.find('map', 'lens', Time(sec=3, nanosec=4))
    lookup.close()
    assert FakeListener.open == 0


def test_without_tf2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    lookup = TransformLookup(node=None)
    lookup.open()
    with pytest.raises(DepthError, match='tf2_ros is not installed here') as caught:
        lookup.find('base', 'lens', Time())
    assert caught.value.kind == 'transform'
    lookup.close()
