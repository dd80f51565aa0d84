"""Polygons to masks against the even-odd rule written out, on made and on real polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.draw import polygon2mask
from test_phrasecut import crossing_number_mask

from training.datasets.polygons import polygon_fault, polygon_mask
from training.evaluation.pictures import yolo_pictures

COCO128 = Path(__file__).resolve().parents[4] / 'shared' / 'data' / 'coco128-seg'


def star(rng: np.random.Generator, corners: int, size: float) -> np.ndarray:
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.1, 0.7, corners) * size
    return size / 2 + np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None]


def on_an_edge(points: np.ndarray, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(float)
    found = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        on_line = (x1 - x0) * (y - y0) == (y1 - y0) * (x - x0)
        beside = (x >= min(x0, x1)) & (x <= max(x0, x1)) & (y >= min(y0, y1)) & (y <= max(y0, y1))
        found |= on_line & beside
    return found


@pytest.mark.parametrize('seed', range(20))
def test_stars_that_stick_out_of_the_picture(seed):
    rng = np.random.default_rng(seed)
    points = star(rng, int(rng.integers(3, 40)), 60.0)
    np.testing.assert_array_equal(
        polygon_mask([points], 50, 70), crossing_number_mask(points.tolist(), 50, 70)
    )


@pytest.mark.parametrize('seed', range(60))
def test_whole_numbers_agree_with_scikit_image_on_edges_too(seed):
    """CLIPSeg's code fills by polygon2mask, which has points on edges and corners in."""
    rng = np.random.default_rng(seed)
    points = rng.integers(-4, 24, (int(rng.integers(1, 9)), 2)).astype(float)
    if seed % 3 == 0:
        points[:, 1] = points[:, 1] // 4 * 4
    if seed % 4 == 0:
        points += rng.choice([0.0, 0.5], points.shape)
    if seed % 5 < 2:
        # Sorted around their middle, so that edges do not cross.
        around = points - points.mean(0)
        points = points[np.argsort(np.arctan2(around[:, 1], around[:, 0]))]
    counts = np.ones((18, 22), bool)
    if polygon_fault(points) is not None:
        # Where edges lie on each other, theirs is of two minds about the points on them.
        counts = ~on_an_edge(points, 18, 22)
    expected = polygon2mask((18, 22), points[:, ::-1])
    np.testing.assert_array_equal(polygon_mask([points], 18, 22)[counts], expected[counts])


def test_polygons_that_cross_themselves_are_filled_by_the_even_odd_rule():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 40, (9, 2))
    mask = polygon_mask([points], 40, 40)
    np.testing.assert_array_equal(mask, crossing_number_mask(points.tolist(), 40, 40))
    assert mask.any()


def test_union_of_polygons_that_overlap():
    first = np.array([[1.5, 1.5], [8.5, 1.5], [8.5, 8.5], [1.5, 8.5]])
    both = polygon_mask([first, first + 4, first[:1], np.zeros((0, 2))], 20, 20)
    assert both.sum() == 49 + 49 - 9
    assert both[6, 6]


def test_pillow_has_the_outline_and_whole_pixel_corners():
    square = np.array([[2.9, 2.9], [6.9, 2.9], [6.9, 6.9], [2.9, 6.9]])
    expected = np.zeros((10, 10), bool)
    expected[2:7, 2:7] = True
    np.testing.assert_array_equal(polygon_mask([square], 10, 10, 'pillow'), expected)
    assert polygon_mask([square], 10, 10).sum() == 16


@pytest.mark.parametrize(
    ('points', 'fault'),
    [
        ([[0, 0], [4, 0], [4, 4]], None),
        ([[0, 0], [4, 0], [4, 4], [0, 0]], None),
        ([[0, 0], [4, 4], [4, 0], [0, 4]], 'crosses itself'),
        ([[0, 0], [4, 4]], '2 different corners'),
        ([[0, 0], [0, 0], [4, 4]], '2 different corners'),
        ([[0, 0], [2, 2], [4, 4]], 'no area'),
        ([[0, 0], [2, np.nan], [4, 4]], 'no numbers'),
    ],
)
def test_faults(points, fault):
    found = polygon_fault(np.array(points, float))
    assert found is None if fault is None else fault in found


@pytest.mark.skipif(not COCO128.is_dir(), reason='the photographs of coco128-seg are not here')
def test_polygons_of_real_photographs():
    lines = [
        line.split()
        for path in sorted((COCO128 / 'labels').rglob('*.txt'))
        for line in path.read_text().splitlines()
    ]
    assert (len(lines), len({line[0] for line in lines})) == (941, 71)
    # Every eighth, since the rule written out is slow.
    for line in lines[::8]:
        # Moved a little, so that no pixel's point lies on an edge, where either is right.
        points = np.array(line[1:], float).reshape(-1, 2) * (640, 480) + (0.0137, 0.0071)
        left, top = np.floor(points.min(0)).astype(int)
        right, bottom = np.ceil(points.max(0)).astype(int)
        mask = polygon_mask([points], bottom + 1, right + 1)
        inside = crossing_number_mask(
            (points - (left, top)).tolist(), bottom + 1 - top, right + 1 - left
        )
        np.testing.assert_array_equal(mask[top:, left:], inside)
        assert not mask[:top].any()
        assert not mask[:, :left].any()


@pytest.mark.skipif(not COCO128.is_dir(), reason='the photographs of coco128-seg are not here')
def test_real_photographs_as_pictures():
    pictures = list(yolo_pictures(COCO128, np.random.default_rng(0)))
    assert sum(len(picture.names) for picture in pictures) == 929
    assert len({name for picture in pictures for name in picture.names}) == 71
    assert all(mask.shape == p.image.shape[:2] for p in pictures for mask in p.masks)
