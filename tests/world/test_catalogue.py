"""The catalogue: completeness, truthful colours, sane sizes and closed records."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest

from tabletop_world.catalogue.categories import CATEGORIES, COLOURS, HELD_OUT_PAIRS, PATTERNS, SIZES
from tabletop_world.catalogue.specimens import build, draw_rgb

NAMES = (
    *('mug', 'glass', 'wine_glass', 'bowl', 'plate', 'bottle', 'can', 'vase', 'pot', 'pan'),
    *('kettle', 'jug', 'spoon', 'fork', 'knife', 'spatula', 'ball', 'apple', 'orange'),
    *('lemon', 'banana', 'carrot', 'book', 'box', 'block', 'laptop', 'keyboard', 'phone'),
    *('remote', 'scissors', 'hammer', 'screwdriver', 'pen', 'lamp', 'plant', 'candle'),
    *('tape', 'clock', 'bucket', 'basket', 'chair', 'stool', 'table', 'shelf', 'cabinet'),
    'bin',
)


def specimen(name: str, seed: int = 0, scale: float = 1.0):
    category = CATEGORIES[name]
    rng = np.random.default_rng(seed)
    return build(
        name,
        rng,
        colour=category.colours[seed % len(category.colours)],
        look=category.patterns[seed % len(category.patterns)],
        material=category.materials[0],
        scale=scale,
    )


def test_the_household_is_complete():
    assert sorted(CATEGORIES) == sorted(NAMES)
    assert len(COLOURS) == 11
    assert PATTERNS == ('plain', 'striped', 'dotted', 'checked')


def test_categories_name_only_what_exists():
    for name, category in CATEGORIES.items():
        assert category.name == name
        assert set(category.colours) <= {*COLOURS, ''}
        assert set(category.patterns) <= set(PATTERNS)
        assert category.places <= {'tabletop', 'floor', 'furniture'}
        assert category.places


def test_held_out_pairs_could_be_drawn_and_leave_other_colours():
    assert 20 <= len(HELD_OUT_PAIRS) <= 30
    for colour, name in HELD_OUT_PAIRS:
        assert colour in CATEGORIES[name].colours
        rest = set(CATEGORIES[name].colours) - {colour}
        assert rest - {c for c, n in HELD_OUT_PAIRS if n == name}


@pytest.mark.parametrize('name', NAMES)
def test_a_specimen_stands_on_its_base_with_sound_meshes(name):
    for seed in range(3):
        built = specimen(name, seed)
        points = np.concatenate([mesh.vertices for mesh, _ in built.parts])
        assert points[:, 2].min() == pytest.approx(0.0, abs=1e-9)
        np.testing.assert_allclose(points.min(axis=0), built.low, atol=1e-9)
        np.testing.assert_allclose(points.max(axis=0), built.high, atol=1e-9)
        assert len(points) < 3000
        for mesh, _ in built.parts:
            assert len(mesh.vertices) == len(mesh.normals) == len(mesh.uv)
            assert mesh.faces.min() >= 0
            assert mesh.faces.max() < len(mesh.vertices)
            np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-6)
            corners = mesh.vertices[mesh.faces]
            across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            facing = np.einsum('ij,ij->i', across, mesh.normals[mesh.faces].sum(axis=1))
            assert (facing > -1e-12).all(), 'triangles must face the way of their normals'


def test_scale_scales_everything():
    one, two = specimen('mug', 3), specimen('mug', 3, scale=2.0)
    np.testing.assert_allclose(np.array(two.high), 2 * np.array(one.high))
    if one.opening is not None:
        assert two.opening.rim == pytest.approx(2 * one.opening.rim)


def test_containers_and_supports_offer_room():
    for name, category in CATEGORIES.items():
        built = [specimen(name, seed) for seed in range(12)]
        assert any(b.opening is not None for b in built) == category.container, name
        assert any(b.shelves for b in built) == category.support, name
        for b in built:
            if b.opening is not None:
                assert 0 <= b.opening.floor < b.opening.rim <= b.high[2] + 1e-9
            for shelf in b.shelves:
                assert 0 < shelf.height <= b.high[2] + 1e-9


def test_sizes_do_not_touch_each_other():
    ordered = [SIZES['small'], SIZES['medium'], SIZES['large']]
    for (_, high), (low, _) in itertools.pairwise(ordered):
        assert high < low


def test_shades_go_by_their_names():
    hues = {'red': 0, 'orange': 26, 'yellow': 50, 'green': 126, 'blue': 227, 'purple': 279}
    rng = np.random.default_rng(0)
    for _ in range(200):
        for colour, typical in hues.items():
            hue, _, saturation = colorsys.rgb_to_hls(*draw_rgb(colour, rng))
            away = abs((hue * 360 - typical + 180) % 360 - 180)
            assert away < 16, (colour, hue * 360)
            assert saturation > 0.5
        white, grey, black = (np.array(draw_rgb(c, rng)) for c in ('white', 'grey', 'black'))
        assert white.min() > 0.8 > 0.62 > grey.max()
        assert grey.min() > 0.33 > 0.12 > black.max()


@pytest.mark.parametrize('name', [n for n, c in CATEGORIES.items() if c.patterns[-1] != 'plain'])
def test_patterned_things_have_a_patterned_finish(name):
    category = CATEGORIES[name]
    built = build(
        name,
        np.random.default_rng(0),
        colour='red',
        look='striped',
        material=category.materials[0],
        scale=1.0,
    )
    images = [f.image for _, f in built.parts if f.image is not None]
    assert images
    red = (images[0][..., 0] > 130) & (images[0][..., 1] < 100)
    assert 0.5 < red.mean() < 0.9, 'the main colour covers more than the accent'


def test_unknown_names_are_refused():
    with pytest.raises(KeyError):
        draw_rgb('mauve', np.random.default_rng(0))
    with pytest.raises(KeyError):
        specimen('teacup')
