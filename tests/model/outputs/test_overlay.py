from __future__ import annotations

import numpy as np
import pytest

from clipseg_model.outputs.overlay import render_overlay
from clipseg_model.outputs.palette import PALETTE, colour_of, palette_with, read_colours


@pytest.mark.parametrize('alpha', [0.0, 0.3, 1.0])
def test_tint(alpha: float) -> None:
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    labels = generator.integers(0, 255, (30, 40), dtype=np.uint8)
    labels[:5] = 0
    overlay = render_overlay(rgb, labels, alpha)
    expected = np.where(labels[..., None] > 0, (1 - alpha) * rgb + alpha * PALETTE[labels], rgb)
    np.testing.assert_allclose(overlay, expected, atol=1)
    np.testing.assert_array_equal(overlay[:5], rgb[:5])
    assert overlay.dtype == np.uint8


def test_strided_images_are_taken() -> None:
    padded = np.random.default_rng(0).integers(0, 256, (20, 130), dtype=np.uint8)
    rgb = padded[:, :120].reshape(20, 40, 3)
    labels = np.full((20, 40), 3, np.uint8)
    np.testing.assert_array_equal(
        render_overlay(rgb, labels, 0.5), render_overlay(rgb.copy(), labels, 0.5)
    )


def test_outlines_have_the_full_colour_and_stay_on_their_shape() -> None:
    rgb = np.zeros((480, 640, 3), np.uint8)
    labels = np.zeros((480, 640), np.uint8)
    labels[300:400, 300:400] = 3
    overlay = render_overlay(rgb, labels, 0.5, outlines=True)
    assert tuple(overlay[300, 350].tolist()) == colour_of(3)
    assert not overlay[labels == 0].any()
    assert tuple(overlay[350, 350].tolist()) != colour_of(3)


def test_legend_stays_in_its_corner_and_changes_no_input() -> None:
    rgb = np.full((480, 640, 3), 90, np.uint8)
    labels = np.zeros((480, 640), np.uint8)
    overlay = render_overlay(rgb, labels, 0.5, [(1, 'the red mug'), (7, 'größere Tasse')])
    changed = np.argwhere((overlay != rgb).any(axis=2))
    assert len(changed) > 100
    assert changed[:, 0].max() < 60
    assert tuple(overlay[12, 9].tolist()) == colour_of(1)
    assert (rgb == 90).all()


def test_tint_outline_and_legend_have_the_colours_of_the_palette_that_is_given() -> None:
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    labels = np.zeros((480, 640), np.uint8)
    labels[200:300, 100:200], labels[300:400, 300:400] = 1, 7
    legend = [(1, 'the red mug'), (7, 'cup')]
    palette = palette_with(read_colours('The Red Mug=#123456'), legend)
    overlay = render_overlay(rgb, labels, 1.0, legend, palette=palette)
    assert (overlay[labels == 1] == (0x12, 0x34, 0x56)).all()
    assert (overlay[labels == 7] == colour_of(7)).all()
    np.testing.assert_array_equal(overlay[100:][labels[100:] == 0], rgb[100:][labels[100:] == 0])
    squares = {tuple(overlay[row, 9].tolist()) for row in range(60)}
    assert {(0x12, 0x34, 0x56), colour_of(7)} <= squares
    assert colour_of(1) not in squares
    outlined = render_overlay(rgb, labels, 0.0, outlines=True, palette=palette)
    assert tuple(outlined[200, 150].tolist()) == (0x12, 0x34, 0x56)


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (200, 3), (17, 23)])
def test_legends_on_tiny_images(size: tuple[int, int]) -> None:
    rgb, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    legend = [(n, f'thing {n}') for n in range(1, 200)]
    assert render_overlay(rgb, labels, 0.5, legend).shape == (*size, 3)
