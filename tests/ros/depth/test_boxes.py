"""Boxes of shapes whose size is known, and their messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Pose, PoseWithCovariance
from numpy.typing import NDArray
from rclpy.time import Time
from std_msgs.msg import Header

from clipseg_model.instances import Instance, find_instances
from clipseg_model.prompts import Prompt
from clipseg_ros.camera.node import camera_info
from clipseg_ros.depth.box_messages import (
    MarkerLife,
    detection_3d_array,
    marker_array,
    pose_of,
)
from clipseg_ros.depth.boxes import Box3D, Plane, clean_mask, measure_box, thing_box
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.pinhole import Pinhole
from clipseg_ros.depth.points import PointMaker, PointsInSpace
from clipseg_ros.depth.stage import DepthStage
from clipseg_ros.depth.transforms import RigidTransform
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.outputs.things import Thing
from clipseg_ros.prompts.set import ActivePrompt

WIDTH, HEIGHT = 320, 240
CAMERA = Pinhole(300.0, 300.0, 159.5, 119.5, WIDTH, HEIGHT)
# A camera 1 m above a table that looks 45° down along the x of the world, whose z is up.
SLOPE = np.sqrt(0.5)
TO_WORLD = RigidTransform(
    np.array([[0.0, -SLOPE, SLOPE], [-1.0, 0.0, 0.0], [0.0, -SLOPE, -SLOPE]]),
    np.array([0.0, 0.0, 1.0]),
)


def view(low: tuple[float, float, float], high: tuple[float, float, float]) -> Any:
    """Mask and depth of a box (corners in the world) on the table z = 0, by rays."""
    assert CAMERA.rays is not None
    rays = np.concatenate((CAMERA.rays, np.ones((1, CAMERA.rays.shape[1])))).T
    directions = rays.astype(np.float64) @ TO_WORLD.rotation.T
    origin = TO_WORLD.translation
    with np.errstate(divide='ignore', invalid='ignore'):
        table = np.where(directions[:, 2] < 0, -origin[2] / directions[:, 2], 0.0)
        first, second = (low - origin) / directions, (high - origin) / directions
    enter = np.minimum(first, second).max(axis=1)
    leave = np.maximum(first, second).min(axis=1)
    hit = (enter < leave) & (enter > 0)
    depth = np.where(hit, enter, table).astype(np.float32)
    return hit.reshape(HEIGHT, WIDTH), depth.reshape(HEIGHT, WIDTH)


LOW, HIGH = (0.9, -0.1, 0.0), (1.05, 0.08, 0.12)


def instance(mask: NDArray[np.bool_]) -> Instance:
    return find_instances(mask, np.full(mask.shape, 0.75, np.float32))[0]


def corners(box: Box3D) -> NDArray[np.float64]:
    signs = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3), -1).reshape(-1, 3)
    return box.centre + (signs * box.size) @ box.rotation.T


def test_a_box_on_a_table_in_the_frame_of_the_world() -> None:
    mask, depth = view(LOW, HIGH)
    box = thing_box(instance(mask), depth, CAMERA, transform=TO_WORLD)
    assert box is not None
    assert box.standing
    np.testing.assert_allclose(box.centre, np.add(LOW, HIGH) / 2, atol=0.005)
    np.testing.assert_allclose(box.size, np.subtract(HIGH, LOW), atol=0.01)
    np.testing.assert_allclose(box.rotation, np.eye(3), atol=0.01)


def test_in_the_optical_frame_it_is_the_same_box_and_stands_on_the_table() -> None:
    mask, depth = view(LOW, HIGH)
    box = thing_box(instance(mask), depth, CAMERA)
    assert box is not None
    # x of the optical frame is −y of the world, so the sides change places.
    np.testing.assert_allclose(sorted(box.size), [0.12, 0.15, 0.18], atol=0.01)
    world = TO_WORLD.apply(corners(box).astype(np.float32))
    np.testing.assert_allclose(world.min(axis=0), LOW, atol=0.01)
    np.testing.assert_allclose(world.max(axis=0), HIGH, atol=0.01)
    np.testing.assert_allclose(TO_WORLD.rotation @ box.rotation[:, 2], [0, 0, 1], atol=0.01)


def test_a_mask_that_shows_the_table_and_flying_pixels_does_not_widen_it() -> None:
    mask, depth = view(LOW, HIGH)
    good = thing_box(instance(mask), depth, CAMERA, transform=TO_WORLD)
    rows, columns = np.nonzero(mask)
    wide = mask.copy()
    wide[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3] = True
    spoiled, random = depth.copy(), np.random.default_rng(0)
    beside = wide & ~mask
    spoiled[beside] *= 1 + 0.3 * (random.random(beside.sum()) < 0.3)
    box = thing_box(instance(wide), spoiled, CAMERA, transform=TO_WORLD)
    assert good is not None
    assert box is not None
    np.testing.assert_allclose(box.size, good.size, atol=0.012)
    np.testing.assert_allclose(box.centre, good.centre, atol=0.01)
    raw = CAMERA.points(np.flatnonzero(wide), spoiled.ravel()[np.flatnonzero(wide)])
    naive = measure_box(raw, None, TO_WORLD)
    assert naive is not None
    assert (naive.size - good.size).max() > 0.1, 'that is what the extremes say'


def test_a_ball_is_as_deep_as_it_is_wide() -> None:
    random = np.random.default_rng(1)
    unit = random.normal(size=(20_000, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # What a camera sees of a ball of 10 cm: the half that faces it.
    centre = np.array([1.0, 0.0, 0.05])
    to_camera = TO_WORLD.translation - centre
    seen = (centre + 0.05 * unit)[unit @ to_camera > 0.05 * np.linalg.norm(unit, axis=1)]
    inverse = RigidTransform(TO_WORLD.rotation.T, -TO_WORLD.rotation.T @ TO_WORLD.translation)
    points = inverse.apply(seen.astype(np.float32))
    normal = inverse.rotation @ np.array([0.0, 0.0, 1.0])
    support = Plane(normal, float(normal @ inverse.translation))
    box = measure_box(points, support, TO_WORLD)
    assert box is not None
    np.testing.assert_allclose(box.size, 0.1, rtol=0.06)
    np.testing.assert_allclose(box.centre, centre, atol=0.005)
    visible = measure_box(points, None, TO_WORLD)
    assert visible is not None
    assert visible.size[0] < 0.09, 'the far side is hidden'


def test_without_a_plane_around_it_the_box_is_along_the_axes_of_what_is_seen() -> None:
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[100:140, 150:200] = True
    depth[mask] = 1.5
    box = thing_box(instance(mask), depth, CAMERA)
    assert box is not None
    assert not box.standing
    np.testing.assert_array_equal(box.rotation, np.eye(3))
    np.testing.assert_allclose(box.size, [49 * 1.5 / 300, 39 * 1.5 / 300, 0.0], atol=1e-6)
    assert thing_box(instance(mask), depth, CAMERA, depth_max=1.0) is None
    assert thing_box(instance(mask), np.zeros_like(depth), CAMERA) is None


def test_at_the_border_of_the_picture() -> None:
    mask, depth = view(LOW, HIGH)
    rows, columns = np.nonzero(mask)
    moved = np.roll(mask, (-rows.min(), -columns.min()), (0, 1))
    box = thing_box(instance(moved), np.roll(depth, (-rows.min(), -columns.min()), (0, 1)), CAMERA)
    assert box is not None
    assert np.isfinite(box.size).all()


def test_parts_of_a_thing_before_and_behind_each_other_stay() -> None:
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[80:160, 100:180] = True
    depth[mask] = 1.0
    depth[100:140, 100:110] = 0.9  # A handle, a tenth of it.
    assert clean_mask(mask, depth)[105:135, 101:109].all()
    depth[mask & (np.arange(WIDTH) == 179)] = 1.5
    assert not clean_mask(mask, depth)[90:150, 179].any(), 'flying pixels'


# Messages.


class Message(SimpleNamespace):
    """Stands in for a message class."""


class Marker(Message):
    ADD, DELETEALL, CUBE, TEXT_VIEW_FACING = 0, 3, 1, 9


def hypothesis(**fields: Any) -> Message:
    return Message(**fields, pose=PoseWithCovariance(pose=Pose()))


MESSAGES: Any = SimpleNamespace(
    **dict.fromkeys(
        ('ObjectHypothesis', 'Detection3D', 'BoundingBox3D', 'Detection3DArray', 'MarkerArray'),
        Message,
    ),
    ObjectHypothesisWithPose=hypothesis,
    Marker=Marker,
)
THINGS = [
    Thing(7, ActivePrompt(2, Prompt('the mug')), instance(np.ones((4, 4), bool))),
    Thing(9, ActivePrompt(3, Prompt('a bowl')), instance(np.ones((4, 4), bool))),
]
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
BOX = Box3D(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.4]), TURN, True)
HEADER = Header(frame_id='base')


def xyz(message: Any) -> list[float]:
    return [message.x, message.y, message.z]


def test_detections_3d() -> None:
    array = detection_3d_array(MESSAGES, HEADER, THINGS, [BOX, None])
    assert array.header == HEADER
    (one,) = array.detections
    assert (one.id, one.header) == ('7', HEADER)
    (found,) = one.results
    assert (found.hypothesis.class_id, found.hypothesis.score) == ('the mug', 0.75)
    assert xyz(one.bbox.center.position) == xyz(found.pose.pose.position) == [1.0, 2.0, 3.0]
    assert xyz(one.bbox.size) == [0.1, 0.2, 0.4]
    q = one.bbox.center.orientation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, SLOPE, SLOPE], atol=1e-9)


def test_markers_replace_those_of_before() -> None:
    first, *rest = marker_array(MESSAGES, HEADER, THINGS, [BOX, None]).markers
    assert first.action == Marker.DELETEALL
    cube, name = rest
    assert (cube.type, cube.ns, cube.id, cube.action) == (Marker.CUBE, 'boxes', 7, Marker.ADD)
    assert xyz(cube.scale) == [0.1, 0.2, 0.4]
    assert 0 < cube.color.a < 1
    assert (name.type, name.text) == (Marker.TEXT_VIEW_FACING, 'the mug 7')
    assert name.pose.position.z > 3.2
    assert name.scale.z > 0
    assert len(marker_array(MESSAGES, HEADER, [], []).markers) == 1, 'nothing is there any more'


def test_markers_go_by_themselves_once_no_others_come() -> None:
    """An RViz that gets none any more would show the last ones for good."""
    for life, sec, nanosec in ((1.0, 1, 0), (2.25, 2, 250_000_000)):
        _, *rest = marker_array(MESSAGES, HEADER, THINGS, [BOX, BOX], life=life).markers
        assert len(rest) == 4
        assert [(one.lifetime.sec, one.lifetime.nanosec) for one in rest] == [(sec, nanosec)] * 4


def test_markers_live_until_the_next_can_be_expected() -> None:
    life = MarkerLife()
    assert life.next(100.0) == 1.0
    assert life.next(100.03) == 1.0, 'a fast camera'
    assert life.next(102.03) == pytest.approx(6.0), 'a slow one, or a slow model'
    assert life.next(302.03) == 10.0, 'at most'
    assert life.next(9.0) == 1.0, 'the clock of a bag begins again'
    life.next(50.0)
    life.forget()
    assert life.next(70.0) == 1.0, 'after a pause'


@pytest.mark.parametrize('turn', [np.eye(3), TURN, TURN @ TURN, np.diag([1.0, -1.0, -1.0])])
def test_poses_have_the_rotation(turn: NDArray[np.float64]) -> None:
    pose = pose_of(Box3D(np.zeros(3), np.ones(3), turn, True))
    back = RigidTransform.of_message(
        SimpleNamespace(translation=pose.position, rotation=pose.orientation)
    )
    np.testing.assert_allclose(back.rotation, turn, atol=1e-9)


# From a frame to the topics.


def frame_of(mask: NDArray[np.bool_], header: Header, *wanted: str) -> FrameResult:
    nothing: Any = None
    things = (Thing(5, ActivePrompt(2, Prompt('the mug')), instance(mask)),)
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return FrameResult(
        header, rgb, (), nothing, nothing, frozenset(wanted), False, things, ((2, (255, 0, 51)),)
    )


def test_a_frame_with_depth_has_the_boxes_of_its_things_in_the_target_frame() -> None:
    mask, depth = view(LOW, HIGH)
    header = Header(frame_id='lens')
    message = array_to_image(depth, '32FC1', header)
    k = np.array([[300.0, 0.0, 159.5], [0.0, 300.0, 119.5], [0.0, 0.0, 1.0]])
    info, settings = camera_info(header, WIDTH, HEIGHT, k), DepthSettings(target_frame='base')
    maker = PointMaker(lambda target, source, stamp: TO_WORLD)
    result = frame_of(mask, header, 'markers')
    points = maker.make(result, message, info, settings, cloud=False, surfaces=False, boxes=True)
    assert points.frame_id == 'base'
    [box] = points.boxes
    assert box is not None
    np.testing.assert_allclose(box.size, np.subtract(HIGH, LOW), atol=0.01)
    points = maker.make(result, message, info, settings, cloud=False, surfaces=False)
    assert points.boxes == (), 'not wanted'


@pytest.mark.parametrize(
    'wanted', [('markers',), ('detections_3d',), ('detections_3d', 'markers'), ()]
)
def test_boxes_go_to_who_wants_them(wanted: tuple[str, ...]) -> None:
    published: dict[str, Any] = {}
    stage = object.__new__(DepthStage)
    outputs: Any = SimpleNamespace(vision=MESSAGES, markers=MESSAGES, publish=published.__setitem__)
    stage._outputs, stage._marker_life = outputs, MarkerLife()
    node: Any = SimpleNamespace(get_clock=lambda: SimpleNamespace(now=lambda: Time(seconds=7)))
    stage._node = node
    result = frame_of(view(LOW, HIGH)[0], Header(frame_id='lens'), *wanted)
    stage._publish_boxes(result, PointsInSpace('base', None, (), (BOX,)))
    assert tuple(published) == wanted
    if 'markers' in wanted:
        color = published['markers'].markers[1].color
        np.testing.assert_allclose([color.r, color.g, color.b], [1.0, 0.0, 0.2])
        assert published['markers'].markers[1].lifetime.sec == 1
    for message in published.values():
        header = message.markers[0].header if hasattr(message, 'markers') else message.header
        assert header.frame_id == 'base'
