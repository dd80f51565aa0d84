"""Live frames: motion, determinism and speed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tabletop_world.render.live import LiveWorld


def test_a_still_world_stays_as_it_is():
    with LiveWorld(seed=1, width=96, height=64) as world:
        first, later = world.frame(0.0), world.frame(3.7)
    np.testing.assert_array_equal(first.rgb, later.rgb)
    assert first.rgb.shape == (64, 96, 3)
    assert first.depth.any()
    assert first.scene.split == 'test'


def test_an_orbiting_camera_moves_smoothly_about_its_target():
    with LiveWorld(seed=1, width=96, height=64, motion='orbit') as world:
        frames = [world.frame(0.1 * k) for k in range(60)]
        rest = world.frame(24.0)
    np.testing.assert_array_equal(frames[0].rgb, rest.rgb)
    assert (frames[0].rgb != frames[-1].rgb).mean() > 0.2
    eyes = np.array([frame.camera.position for frame in frames])
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert 0 < steps.max() < 0.1
    distances = np.linalg.norm(eyes - frames[0].camera.target, axis=1)
    np.testing.assert_allclose(distances, distances[0])
    assert {frame.camera.target for frame in frames} == {frames[0].camera.target}


def test_the_same_time_gives_the_same_frame():
    with LiveWorld(seed=2, width=64, height=64, motion='orbit') as world:
        first = world.frame(5.0)
    with LiveWorld(seed=2, width=64, height=64, motion='orbit') as world:
        world.frame(1.0)
        again = world.frame(5.0)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(first.instances, again.instances)


def test_a_world_is_handed_to_the_renderer_once():
    """By processor time of all threads: a later frame takes a fraction of a new world's first."""

    def spent(work) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    def new_world() -> None:
        with LiveWorld(seed=0, width=160, height=120, motion='orbit') as world:
            world.frame(0.0)

    with LiveWorld(seed=0, width=160, height=120, motion='orbit') as world:
        world.frame(0.0)
        later = min(spent(lambda k=k: world.frame(0.1 * k)) for k in range(5))
    assert later < 0.5 * min(spent(new_world) for _ in range(3))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='wobble'):
        LiveWorld(motion='wobble')
    with pytest.raises(IndexError, match='cameras 0 to 1'):
        LiveWorld(camera=5)
    world = LiveWorld(width=16, height=16)
    world.close()
    with pytest.raises(RuntimeError, match='closed'):
        world.frame(0.0)
