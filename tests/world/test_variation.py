import numpy as np
import pytest

from tabletop_world.language.phrases import describe
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from tabletop_world.scenes.variation import sensor, texture_blueprint, vary_blueprint

SEEDS = range(12)


@pytest.fixture(scope='module')
def varied():
    return [generate_scene(seed, 'varied') for seed in SEEDS]


def test_lenses_lie_outside_of_those_of_training(varied):
    lenses = [camera.fovy for scene in varied for camera in scene.cameras]

    assert all(lens < 35 or lens > 60 for lens in lenses)
    assert min(lenses) < 35 < 60 < max(lenses)


def test_lights_lie_outside_of_those_of_training(varied):
    keys = np.array([scene.blueprint.lights[0].strength for scene in varied])
    counts = {len(scene.blueprint.lights) for scene in varied}

    assert keys.max() > 0.48
    assert counts > {2}


def test_items_keep_their_hue_and_surfaces_lose_their_name_of_a_colour():
    plain = generate_scene(3, 'test')
    surfaces = {o.id for o in plain.objects if o.surface}
    changed = vary_blueprint(np.random.default_rng(0), plain.blueprint, surfaces)
    assert surfaces
    for old, new in zip(plain.blueprint.parts, changed.parts, strict=True):
        assert (old.object_id, old.mesh) == (new.object_id, new.mesh)
        if old.object_id in surfaces:
            assert new.finish.image is not None
            assert new.finish.image.std() > 2
            continue
        before, after = np.array(old.finish.rgb), np.array(new.finish.rgb)
        shades = (after / np.maximum(before, 1e-9))[(before > 0.02) & (after < 1)]
        assert np.ptp(shades) < 1e-6 if len(shades) else True
        assert new.finish.alpha == old.finish.alpha


def test_no_phrase_names_a_colour_of_a_surface(varied):
    with Renderer(96, 96) as renderer:
        for scene in varied[:4]:
            surfaces = {o.id for o in scene.objects if o.surface}
            assert all(o.colour == '' for o in scene.objects if o.surface)
            phrases = describe(renderer.render(scene), np.random.default_rng(1))
            of_surfaces = [p for p in phrases if p.object_ids and p.object_ids <= surfaces]
            assert all(p.kind != 'colour' for p in of_surfaces), of_surfaces


def test_cameras_stay_in_the_room_and_see_items(varied):
    with Renderer(96, 96) as renderer:
        seen = []
        for scene in varied:
            items = {o.id for o in scene.objects if not o.surface}
            for index in range(len(scene.cameras)):
                ids = renderer.render(scene, index, depth=False).instances
                assert (ids > 0).mean() > 0.98, (scene.seed, index)
                seen.append(bool(items & set(np.unique(ids))))
    assert np.mean(seen) > 0.9


def test_a_sensor_degrades_a_picture_and_leaves_it_recognisable():
    picture = np.zeros((64, 80, 3), np.uint8)
    picture[16:48, 20:60] = 180
    taken = [sensor(np.random.default_rng(seed), picture) for seed in range(8)]
    again = sensor(np.random.default_rng(0), picture)

    assert np.array_equal(taken[0], again)
    for one in taken:
        assert one.shape == picture.shape
        assert one.dtype == np.uint8
        assert not np.array_equal(one, picture)
        bright = one.mean(-1)
        assert np.corrcoef(bright.ravel(), picture[..., 0].ravel())[0, 1] > 0.9


def test_textured_scenes_change_finishes_and_stay_within_the_lenses_and_lights_of_training():
    scenes = [generate_scene(seed, 'textured') for seed in SEEDS]

    assert all(35 <= camera.fovy <= 60 for scene in scenes for camera in scene.cameras)
    assert all(max(s.blueprint.lights[0].strength) < 0.48 * 1.06 for s in scenes)
    assert {len(scene.blueprint.lights) for scene in scenes} == {2}
    for scene in scenes:
        surfaces = {o.id for o in scene.objects if o.surface}
        for part in scene.blueprint.parts:
            assert part.finish.image is not None
            if part.object_id in surfaces:
                assert part.finish.rgb == (1.0, 1.0, 1.0)
        assert all(o.colour == '' for o in scene.objects if o.surface)


def test_textured_items_keep_their_hue():
    plain = generate_scene(3, 'test')
    changed = texture_blueprint(np.random.default_rng(0), plain.blueprint, [])

    for old, new in zip(plain.blueprint.parts, changed.parts, strict=True):
        before, after = np.array(old.finish.rgb), np.array(new.finish.rgb)
        shades = (after / np.maximum(before, 1e-9))[(before > 0.02) & (after < 1)]
        assert len(shades) == 0 or (np.ptp(shades) < 1e-6 and 0.85 < shades[0] < 1.15)
