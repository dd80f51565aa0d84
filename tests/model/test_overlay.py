from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from clipseg_model.overlay import PALETTE, colour_of, render_overlay


def test_colours_differ_and_zero_is_black() -> None:
    assert PALETTE.shape == (256, 3)
    assert colour_of(0) == (0, 0, 0)
    assert len({tuple(colour) for colour in PALETTE[:255].tolist()}) == 255
    # The first dozen has to be told apart by eye.
    first = PALETTE[1:13].astype(int)
    distances = np.abs(first[:, None] - first[None]).sum(axis=2) + 999 * np.eye(12, dtype=int)
    assert distances.min() > 60
    assert (PALETTE[1:].max(axis=1) > 150).all()


def test_colours_are_the_same_in_another_process() -> None:
    code = 'from clipseg_model.overlay import PALETTE; print(PALETTE.tobytes().hex())'
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == PALETTE.tobytes().hex()


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


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (200, 3), (17, 23)])
def test_legends_on_tiny_images(size: tuple[int, int]) -> None:
    rgb, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    legend = [(n, f'thing {n}') for n in range(1, 200)]
    assert render_overlay(rgb, labels, 0.5, legend).shape == (*size, 3)
