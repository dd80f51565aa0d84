"""The renderer: truth against MuJoCo's own renderer, geometry, colours, reuse and threads."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading

import numpy as np
import pytest

from tabletop_world.catalogue.categories import HELD_OUT_PAIRS
from tabletop_world.render.renderer import Renderer, camera_axes
from tabletop_world.scenes.opengl import keep_llvm_apart, mujoco
from tabletop_world.scenes.random_scenes import generate_scene
from tabletop_world.scenes.scene import Camera


@pytest.fixture(scope='module')
def renderer():
    with Renderer(128, 96) as renderer:
        yield renderer


def reference(scene, camera, width, height):
    """Ids, depth and RGB of ``mujoco.Renderer`` for a model with our camera in it."""
    spec = scene.blueprint.spec()
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    axes = camera_axes(camera)
    frame = np.stack([axes[:, 0], -axes[:, 1], -axes[:, 2]], 1)  # MuJoCo's cameras look along -z
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, frame.ravel())
    spec.worldbody.add_camera(name='eye', pos=camera.position, quat=quaternion, fovy=camera.fovy)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, height, width) as own:
        own.update_scene(data, 'eye')
        rgb = own.render().copy()
        own.enable_segmentation_rendering()
        segments = own.render()[..., 0].copy()
        own.disable_segmentation_rendering()
        own.enable_depth_rendering()
        depth = own.render().copy()
    owners = np.array([part.object_id for part in scene.blueprint.parts])
    return rgb, np.where(segments < 0, 0, owners[segments]), depth


@pytest.mark.parametrize(('seed', 'kind'), [(1, 'tabletop'), (2, 'tabletop'), (3, 'floor')])
def test_truth_equals_that_of_mujocos_own_renderer(renderer, seed, kind):
    scene = generate_scene(seed, 'test', kind)
    for camera in scene.cameras:
        frame = renderer.render(scene, camera)
        rgb, ids, depth = reference(scene, camera, 128, 96)
        assert (frame.instances != ids).mean() < 1e-3
        seen = (frame.depth > 0) & (frame.instances == ids)
        assert (np.abs(frame.depth - depth)[seen] > 2e-3).mean() < 5e-3
        assert np.abs(frame.rgb.astype(int) - rgb).mean() < 1.0


DRAW_FIRST = """
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
scene = generate_scene(0, 'test')
Renderer(32, 32).render(scene, scene.cameras[0])
import clipseg_model.registry
import triton
print('alive')
"""


def test_torch_and_triton_can_be_imported_after_something_was_drawn():
    pytest.importorskip('triton')
    drawn = subprocess.run(
        [sys.executable, '-c', DRAW_FIRST], capture_output=True, text=True, timeout=100
    )
    assert (drawn.returncode, drawn.stdout) == (0, 'alive\n'), drawn.stderr[-2000:]


def test_without_triton_nothing_is_loaded(monkeypatch):
    def refuse(name):
        raise AssertionError(name)

    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.setattr('ctypes.CDLL', refuse)
    keep_llvm_apart()


def test_frames_are_complete(renderer):
    for seed in range(8):
        scene = generate_scene(seed)
        for index in range(len(scene.cameras)):
            frame = renderer.render(scene, index)
            assert frame.rgb.shape == (96, 128, 3)
            assert frame.rgb.dtype == np.uint8
            assert frame.instances.dtype == np.uint8
            assert frame.depth.dtype == np.float32
            assert set(np.unique(frame.instances)) <= {0, *(o.id for o in scene.objects)}
            assert (frame.instances == 0).mean() < 0.01
            assert ((frame.depth > 0) == (frame.instances > 0)).all()
            assert frame.rgb.std() > 8


def test_depth_and_pose_put_pixels_back_into_the_objects_boxes(renderer):
    for seed in range(6):
        scene = generate_scene(seed, 'val')
        frame = renderer.render(scene, 0)
        rows, columns = np.nonzero(frame.depth > 0)
        pixels = np.stack([columns, rows, np.ones_like(rows)], 0).astype(float)
        rays = np.linalg.inv(frame.intrinsics) @ pixels
        points = frame.camera_pose[:3, :3] @ (rays * frame.depth[rows, columns])
        points = points.T + frame.camera_pose[:3, 3]
        owner = frame.instances[rows, columns]
        for thing in scene.objects:
            mine = points[owner == thing.id]
            if len(mine) == 0:
                continue
            low = np.array(thing.position) - np.array([*thing.extent[:2], 0]) / 2
            high = low + thing.extent
            assert ((mine > low - 0.01) & (mine < high + 0.01)).all(), thing.category


def test_pose_is_a_rotation_and_looks_at_the_target(renderer):
    scene = generate_scene(4)
    frame = renderer.render(scene, 1)
    rotation = frame.camera_pose[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    target = np.linalg.inv(frame.camera_pose) @ [*frame.camera.target, 1.0]
    u, v, w = frame.intrinsics @ target[:3]
    assert (u / w, v / w) == pytest.approx(((128 - 1) / 2, (96 - 1) / 2))


def test_ids_are_those_seen_in_the_colours():
    """Plain, matt, named things look like their colour's name, by the hue of their pixels."""
    hues = {'red': 0.0, 'orange': 26.0, 'yellow': 50.0, 'green': 126.0, 'blue': 227.0}
    checked = right = 0
    with Renderer(160, 160) as renderer:
        for seed in range(25):
            scene = generate_scene(seed, 'val')
            frame = renderer.render(scene, 0, depth=False)
            for thing in scene.objects:
                mask = frame.instances == thing.id
                if thing.surface or thing.colour not in hues or thing.pattern != 'plain':
                    continue
                if thing.material not in ('plastic', 'ceramic', 'wood') or mask.sum() < 80:
                    continue
                red, green, blue = np.median(frame.rgb[mask].astype(float), axis=0)
                hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
                nearest = min(hues, key=lambda c: abs((hue - hues[c] + 180) % 360 - 180))
                checked += 1
                right += nearest == thing.colour
    assert checked > 15
    assert right / checked > 0.9


def test_held_out_pairs_are_clearly_visible(renderer):
    visible = 0
    for seed in range(40):
        scene = generate_scene(seed, 'unseen_pairs')
        wanted = {o.id for o in scene.objects if (o.colour, o.category) in HELD_OUT_PAIRS}
        for index in range(len(scene.cameras)):
            counts = renderer.render(scene, index, depth=False).pixel_counts()
            visible += max(counts.get(i, 0) for i in wanted) / (128 * 96) > 0.003
    assert visible >= 77


def test_a_scene_can_be_rendered_again_after_another(renderer):
    first, second = generate_scene(10), generate_scene(11)
    before = renderer.render(first, 0)
    renderer.render(second, 0)
    after = renderer.render(first, 0)
    np.testing.assert_array_equal(before.rgb, after.rgb)
    np.testing.assert_array_equal(before.instances, after.instances)
    np.testing.assert_array_equal(before.depth, after.depth)


def test_renderers_do_not_disturb_each_other(renderer):
    scene = generate_scene(12)
    alone = renderer.render(scene, 0)
    with Renderer(48, 64, samples=0) as other:
        small = other.render(generate_scene(13), 1)
        again = renderer.render(scene, 0)
    assert small.rgb.shape == (64, 48, 3)
    np.testing.assert_array_equal(alone.rgb, again.rgb)


def test_any_thread_may_render(renderer):
    scene = generate_scene(14)
    here = renderer.render(scene, 0)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(renderer.render(scene, 0))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for frame in found:
        np.testing.assert_array_equal(frame.rgb, here.rgb)


def test_depth_can_be_left_out(renderer):
    scene = generate_scene(15)
    with_depth, without = renderer.render(scene, 0), renderer.render(scene, 0, depth=False)
    assert not without.depth.any()
    np.testing.assert_array_equal(with_depth.instances, without.instances)


def test_multisampling_leaves_ids_alone():
    scene = generate_scene(16)
    with Renderer(96, 96, samples=0) as plain, Renderer(96, 96, samples=4) as smooth:
        a, b = plain.render(scene, 0), smooth.render(scene, 0)
    assert (a.instances != b.instances).mean() < 0.002
    assert (a.rgb != b.rgb).any()


def test_a_camera_of_ones_own(renderer):
    scene = generate_scene(17, kind='tabletop')
    above = Camera((0.0, 0.0, 2.2), (0.0, 0.0, 0.74), 50.0)
    frame = renderer.render(scene, above)
    assert frame.camera == above
    top = next(o for o in scene.objects if o.category == 'tabletop')
    assert frame.pixel_counts()[top.id] > 0.3 * 128 * 96


def test_model_xml_holds_the_geometry():
    scene = generate_scene(18)
    model, ours = mujoco.MjModel.from_xml_string(scene.model_xml), scene.blueprint.compile()
    assert model.nmesh == len(scene.blueprint.parts)
    np.testing.assert_array_equal(model.mesh_vertnum, ours.mesh_vertnum)
    np.testing.assert_allclose(model.geom_pos, ours.geom_pos, atol=1e-3)
    plain = [i for i, part in enumerate(scene.blueprint.parts) if part.finish.image is None]
    rgba = model.mat_rgba[model.geom_matid[plain]]
    wanted = [
        (*scene.blueprint.parts[i].finish.rgb, scene.blueprint.parts[i].finish.alpha) for i in plain
    ]
    np.testing.assert_allclose(rgba, wanted, atol=1e-3)


def test_mistakes_are_named(renderer):
    scene = generate_scene(19)
    with pytest.raises(IndexError, match='cameras 0 to 1'):
        renderer.render(scene, 2)
    with pytest.raises(ValueError, match='blueprint'):
        renderer.render(dataclasses.replace(scene, blueprint=None))
    with pytest.raises(ValueError, match='position and target'):
        renderer.render(scene, Camera((0, 0, 1), (0, 0, 1)))
    with pytest.raises(ValueError, match='0 × 10'):
        Renderer(0, 10)
    closed = Renderer(16, 16)
    closed.close()
    with pytest.raises(RuntimeError, match='closed'):
        closed.render(scene)
