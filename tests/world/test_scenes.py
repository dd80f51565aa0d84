"""Scenes: determinism, held-out pairs, supports and the exactness of their records."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from tabletop_world.catalogue.categories import CATEGORIES, HELD_OUT_PAIRS
from tabletop_world.scenes.placement import collide
from tabletop_world.scenes.random_scenes import KINDS, SPLITS, generate_scene

_HASH = """
import hashlib
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
digest = hashlib.sha256()
with Renderer(64, 64) as renderer:
    for seed in range(3):
        frame = renderer.render(generate_scene(seed, 'val'))
        digest.update(frame.rgb.tobytes() + frame.instances.tobytes() + frame.depth.tobytes())
        for thing in frame.scene.objects:
            digest.update(repr((thing.id, thing.category, sorted(thing.states))).encode())
print(digest.hexdigest())
"""


@pytest.fixture(scope='module')
def scenes():
    return [generate_scene(seed, split) for split in SPLITS for seed in range(40)]


def items(scene):
    return [thing for thing in scene.objects if not thing.surface]


def test_the_same_seed_makes_the_same_pictures_in_every_process():
    digests = set()
    for salt in ('1', '2'):
        done = subprocess.run(
            [sys.executable, '-c', _HASH],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, 'PYTHONHASHSEED': salt},
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_seeds_and_splits_make_different_scenes():
    layouts = {
        tuple((o.category, o.colour, o.position) for o in generate_scene(seed, split).objects)
        for seed in range(5)
        for split in SPLITS
    }
    assert len(layouts) == 5 * len(SPLITS)


def test_held_out_pairs_appear_in_their_split_alone(scenes):
    for scene in scenes:
        pairs = {(o.colour, o.category) for o in items(scene)} & HELD_OUT_PAIRS
        assert bool(pairs) == (scene.split == 'unseen_pairs'), (scene.split, scene.seed)


@pytest.mark.slow
def test_all_held_out_pairs_get_their_turn():
    seen = set()
    for seed in range(300):
        seen |= {(o.colour, o.category) for o in items(generate_scene(seed, 'unseen_pairs'))}
    assert seen >= HELD_OUT_PAIRS


def test_ids_are_unique_and_fit_a_byte(scenes):
    for scene in scenes:
        ids = [o.id for o in scene.objects]
        assert len(set(ids)) == len(ids)
        assert min(ids) >= 1
        assert max(ids) <= 254


def test_records_match_the_geometry(scenes):
    for scene in scenes:
        for thing in items(scene):
            points = np.concatenate(
                [p.mesh.vertices for p in scene.blueprint.parts if p.object_id == thing.id]
            )
            low, high = points.min(axis=0), points.max(axis=0)
            np.testing.assert_allclose(high - low, thing.extent, atol=1e-9)
            middle = (low + high) / 2
            np.testing.assert_allclose(thing.position, (middle[0], middle[1], low[2]), atol=1e-9)
            assert -np.pi <= thing.yaw <= np.pi


def test_things_rest_on_what_they_are_said_to_rest_on(scenes):
    relations = Counter()
    for scene in scenes:
        for thing in items(scene):
            below = scene.object(thing.support)
            x, y, base = thing.position
            relations[thing.relation if not below.surface else 'surface'] += 1
            inside = (
                abs(x - below.position[0]) <= below.extent[0] / 2,
                abs(y - below.position[1]) <= below.extent[1] / 2,
            )
            assert all(inside), (scene.split, scene.seed, thing.category, below.category)
            top = below.position[2] + below.extent[2]
            if below.surface:
                assert base == pytest.approx(top, abs=1e-6)
            elif thing.relation == 'in':
                assert CATEGORIES[below.category].container
                assert below.position[2] - 1e-6 <= base < top
                assert 'empty' not in below.states
            else:
                assert CATEGORIES[below.category].support
                assert below.position[2] < base <= top + 1e-6
    assert relations['on'] > 60
    assert relations['in'] > 15


def test_things_on_the_same_surface_do_not_overlap(scenes):
    """Bounding boxes of things that stand flat; long ones at an angle are checked by corners."""
    for scene in scenes:
        first = scene.split == 'unseen_pairs'
        resting = [o for o in items(scene) if scene.object(o.support).surface]
        assert resting
        rectangles = [_rectangle(scene, thing) for thing in resting]
        for a, b in itertools.combinations(range(len(resting)), 2):
            assert not collide(rectangles[a], rectangles[b], 0.0), (
                scene.split, scene.seed, first, resting[a].category, resting[b].category,
            )  # fmt: skip


def _rectangle(scene, thing):
    points = np.concatenate(
        [p.mesh.vertices for p in scene.blueprint.parts if p.object_id == thing.id]
    )[:, :2]
    c, s = np.cos(thing.yaw), np.sin(thing.yaw)
    turn = np.array([[c, -s], [s, c]])
    own = points @ turn
    (x0, y0), (x1, y1) = own.min(axis=0), own.max(axis=0)
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) @ turn.T


def test_look_alikes_are_common():
    same_name = same_colour = 0
    for seed in range(120):
        things = items(generate_scene(seed))
        names = Counter(o.category for o in things)
        same_name += any(
            len({o.colour for o in things if o.category == name}) > 1
            for name, count in names.items()
            if count > 1
        )
        colours = Counter(o.colour for o in things if o.colour)
        same_colour += max(colours.values(), default=0) > 1
    assert same_name / 120 > 0.4
    assert same_colour / 120 > 0.5


def test_kinds_have_their_things(scenes):
    kinds = Counter(scene.kind for scene in scenes)
    assert 0.6 < kinds['tabletop'] / len(scenes) < 0.9
    for scene in scenes:
        surfaces = {o.category for o in scene.objects if o.surface}
        expected = {'floor', 'wall'} | ({'tabletop'} if scene.kind == 'tabletop' else set())
        assert surfaces == expected
        for thing in items(scene):
            if scene.object(thing.support).surface:
                assert scene.kind in CATEGORIES[thing.category].places
    for kind in KINDS:
        assert generate_scene(3, 'train', kind).kind == kind


@pytest.mark.slow
def test_every_category_appears():
    seen = {o.category for seed in range(250) for o in items(generate_scene(seed))}
    assert seen == set(CATEGORIES)


@pytest.mark.parametrize(
    ('arguments', 'word'),
    [
        ({'seed': 0, 'split': 'holdout'}, 'holdout'),
        ({'seed': 0, 'kind': 'garden'}, 'garden'),
        ({'seed': -1}, '-1'),
    ],
)
def test_wrong_arguments_are_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        generate_scene(**arguments)
