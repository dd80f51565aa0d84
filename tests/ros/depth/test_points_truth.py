"""Points against the truth of the simulated world: rays cast at its geometry, not its depth image.

With true masks, and, in a slow test, with those of the bundled model.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clipseg_model.outputs.frame_outputs import FrameOutputs, Scratch
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_ros.camera.node import camera_info
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.points import PointMaker, PointsInSpace
from clipseg_ros.depth.transforms import RigidTransform
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.outputs.result import FrameResult
from tabletop_world.language.phrases import describe
from tabletop_world.language.truth import phrase_mask
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.blueprint import mujoco
from tabletop_world.scenes.random_scenes import generate_scene
from tabletop_world.scenes.scene import Frame

WIDTH, HEIGHT = 640, 480
HEADER = Header(frame_id='lens')
SCENES = ((3, 'tabletop', 0), (8, 'tabletop', 1), (2, 'floor', 0))
MILLIMETRE = 1e-3


class World:
    """A frame of a scene, and rays cast at the scene's geometry."""

    def __init__(self, seed: int, kind: str | None, camera: int) -> None:
        self.scene = generate_scene(seed, 'test', kind)
        with Renderer(WIDTH, HEIGHT) as renderer:
            self.frame: Frame = renderer.render(self.scene, camera)
        blueprint = self.scene.blueprint
        assert blueprint is not None
        self._owners = np.array([part.object_id for part in blueprint.parts])
        self._model = blueprint.compile()
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)

    def cast(self, directions: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Object id and point (optical frame, metres) that rays from the camera hit first.

        Args:
            directions: In the optical frame (N, 3), of any length.
        """
        unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        pose, number = self.frame.camera_pose, len(unit)
        geoms, distances = np.zeros(number, np.int32), np.zeros(number)
        rays = (unit @ pose[:3, :3].T).ravel()
        mujoco.mj_multiRay(
            self._model, self._data, pose[:3, 3], rays, None, 1, -1, geoms, distances, None,
            number, 1e10,
        )  # fmt: skip
        return np.where(geoms < 0, 0, self._owners[geoms]), unit * distances[:, None]

    def are_on(self, points: NDArray[np.float64], owners: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether the ray through each point meets its object, within a millimetre of the point.

        At an edge, a ray through the very point may pass it by: a twentieth of a pixel to any
        side counts too.
        """
        on = np.zeros(len(points), bool)
        for x, y in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)):
            left = np.flatnonzero(~on)
            aside = np.array([x, y, 0]) * 0.05 / self.frame.intrinsics[0, 0]
            owner, hit = self.cast(points[left] + aside * points[left, 2:])
            near = np.linalg.norm(hit - points[left], axis=1) < MILLIMETRE
            on[left] = near & (owner == owners[left])
        return on

    def true_points(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Where the surface is at the pixels of a mask, without any depth image."""
        rows, columns = np.nonzero(mask)
        k = self.frame.intrinsics
        x, y = (columns - k[0, 2]) / k[0, 0], (rows - k[1, 2]) / k[1, 1]
        _, points = self.cast(np.stack((x, y, np.ones(len(x))), 1))
        return points


@functools.cache
def world_of(seed: int, kind: str | None, camera: int) -> World:
    return World(seed, kind, camera)


def items_of(frame: Frame, least: int = 300) -> list[int]:
    """Ids of the objects, surfaces of the room left out, that show enough."""
    counts = frame.pixel_counts()
    return [
        thing.id
        for thing in frame.scene.objects
        if not thing.surface and counts.get(thing.id, 0) >= least
    ]


def segmentation_of(masks: list[NDArray[np.bool_]]) -> Segmentation:
    """What a model would say that knows the truth."""
    return Segmentation(
        HEIGHT,
        WIDTH,
        [
            PromptResult(
                Prompt(f'thing {number}'), 0.5, 1.0, True,
                np.where(mask, np.float32(8), np.float32(-8)), HEIGHT, WIDTH,
            )
            for number, mask in enumerate(masks)
        ],
        'truth',
    )  # fmt: skip


def depth_message(depth: NDArray[np.float32], form: str) -> Image:
    """Depth as cameras send it: floats, or padded big-endian millimetres."""
    if form == '32FC1':
        return array_to_image(depth, '32FC1', HEADER)
    values = np.round(depth * 1000).astype('>u2').view(np.uint8).reshape(HEIGHT, -1)
    padded = np.hstack((values, np.full((HEIGHT, 6), 255, np.uint8)))
    message = Image(header=HEADER, height=HEIGHT, width=WIDTH, encoding='16UC1', is_bigendian=1)
    message.step = padded.shape[1]
    message.data = padded.tobytes()
    return message


def points_of(
    world: World,
    segmentation: Segmentation,
    form: str = '32FC1',
    transform: RigidTransform | None = None,
) -> PointsInSpace:
    ids = [7 * number + 1 for number in range(len(segmentation.results))]
    frame = world.frame
    pixels = FrameOutputs(segmentation, ids, ['confidence'], Scratch())
    found = FrameResult(HEADER, frame.rgb, (), segmentation, pixels)
    settings = DepthSettings(target_frame='base' if transform is not None else '')
    maker = PointMaker(lambda target, source, stamp: transform)
    info = camera_info(HEADER, WIDTH, HEIGHT, frame.intrinsics)
    depth = depth_message(frame.depth, form)
    return maker.make(found, depth, info, settings, cloud=True, surfaces=True)


def stacked(cloud: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([cloud[name] for name in 'xyz'], 1).astype(np.float64)


@pytest.mark.parametrize('form', ['32FC1', '16UC1'])
@pytest.mark.parametrize('scene', SCENES)
def test_with_true_masks(scene: tuple[int, str, int], form: str) -> None:
    world = world_of(*scene)
    items = items_of(world.frame)
    assert len(items) >= 2
    masks = [world.frame.instances == item for item in items]
    points = points_of(world, segmentation_of(masks), form)
    assert points.frame_id == 'lens'
    for mask, surface in zip(masks, points.surfaces, strict=True):
        truth = world.true_points(mask)
        assert surface is not None
        assert surface.points == len(truth)
        assert np.linalg.norm(surface.centroid - truth.mean(axis=0)) < MILLIMETRE
        np.testing.assert_allclose(surface.low, truth.min(axis=0), atol=MILLIMETRE)
        np.testing.assert_allclose(surface.high, truth.max(axis=0), atol=MILLIMETRE)
        distances = np.linalg.norm(truth, axis=1)
        assert np.linalg.norm(surface.nearest) == pytest.approx(distances.min(), abs=MILLIMETRE)


@pytest.mark.parametrize('scene', SCENES)
def test_every_point_of_the_cloud_is_on_its_object(scene: tuple[int, str, int]) -> None:
    world = world_of(*scene)
    items = items_of(world.frame)
    masks = [world.frame.instances == item for item in items]
    cloud = points_of(world, segmentation_of(masks)).cloud
    assert cloud is not None
    assert len(cloud) == sum(int(mask.sum()) for mask in masks)
    xyz = stacked(cloud)
    owners = np.array(items)[(cloud['label'] - 1) // 7]
    assert world.are_on(xyz, owners).all()
    assert world.are_on(xyz * 1.004, owners).mean() < 0.01, 'the test sees a few millimetres'
    assert not world.are_on(xyz, owners + 100).any()
    colours = cloud['rgb'].view(np.uint32)
    seen = world.frame.rgb[np.any(masks, axis=0)].astype(np.uint32)
    np.testing.assert_array_equal(colours, seen[:, 0] << 16 | seen[:, 1] << 8 | seen[:, 2])
    np.testing.assert_allclose(cloud['probability'], 1 / (1 + np.exp(-8)), rtol=1e-6)


def test_in_the_frame_of_the_world_things_are_where_the_scene_says() -> None:
    world = world_of(*SCENES[0])
    pose = world.frame.camera_pose
    items = items_of(world.frame)
    masks = [world.frame.instances == item for item in items]
    transform = RigidTransform(pose[:3, :3], pose[:3, 3])
    points = points_of(world, segmentation_of(masks), transform=transform)
    assert points.frame_id == 'base'
    for item, surface in zip(items, points.surfaces, strict=True):
        assert surface is not None
        thing = world.scene.object(item)
        middle = np.add(thing.position, (0, 0, thing.extent[2] / 2))
        half = np.divide(thing.extent, 2) + 2 * MILLIMETRE
        assert (surface.low >= middle - half).all()
        assert (surface.high <= middle + half).all()
    assert points.cloud is not None
    optical = (stacked(points.cloud) - pose[:3, 3]) @ pose[:3, :3]
    assert world.are_on(optical, np.array(items)[(points.cloud['label'] - 1) // 7]).all()


def centroid_errors(scenes: range) -> NDArray[np.float64]:
    """Metres between the measured and the true centroid, with the bundled model's own masks.

    One prompt for each item over 1 % of the picture: the first phrase that means it alone.
    """
    from clipseg_model.registry import create_model

    model = create_model('tabletop', 'cpu', 1)
    errors = []
    for seed in scenes:
        world = World(seed, None, 0)
        wanted, asked = [], set()
        for phrase in describe(world.frame, np.random.default_rng(seed)):
            truth = phrase_mask(phrase, world.frame)
            things = phrase.object_ids
            items = [world.scene.object(thing) for thing in things]
            if len(things) == 1 and not items[0].surface and truth.mean() > 0.01:
                if not asked & things:
                    wanted.append((phrase.text, truth))
                asked |= things
        if not wanted:
            continue
        found = model.segment(world.frame.rgb, [Prompt(text) for text, _ in wanted])
        points = points_of(world, found)
        for (_, truth), surface in zip(wanted, points.surfaces, strict=True):
            middle = world.true_points(truth).mean(axis=0)
            missed = surface is None
            errors.append(np.inf if missed else float(np.linalg.norm(surface.centroid - middle)))
    return np.array(errors)


@pytest.mark.slow
def test_with_the_masks_of_the_bundled_model() -> None:
    errors = centroid_errors(range(40))
    assert len(errors) >= 80
    assert np.median(errors) <= 0.02


if __name__ == '__main__':
    found = centroid_errors(range(int(sys.argv[1])))
    share = [f'{100 * np.mean(found <= limit):.0f} % within {1e2 * limit:g} cm'
             for limit in (0.005, 0.01, 0.02, 0.05)]  # fmt: skip
    print(f'{len(found)} things: median {np.median(found) * 1e2:.2f} cm; {", ".join(share)}; '
          f'{np.isinf(found).sum()} not found')  # fmt: skip
