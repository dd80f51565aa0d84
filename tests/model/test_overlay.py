from __future__ import annotations

import numpy as np

from clipseg_model.overlay import label_colours, render_overlay


def test_colours_differ() -> None:
    colours = label_colours(12).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 999 * np.eye(12, dtype=int)
    assert distances.min() > 40
    assert label_colours(0).shape == (0, 3)


def test_unlabelled_pixels_keep_their_colour_and_others_are_tinted() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    labels = np.zeros((200, 300), np.uint8)
    labels[100:180, 20:100] = 1
    labels[100:180, 200:280] = 2
    overlay = render_overlay(image, labels, ['mug', 'cup'], alpha=0.5)
    assert overlay.shape == image.shape
    assert overlay.dtype == np.uint8
    assert overlay[150, 150].tolist() == [100, 100, 100]
    colours = label_colours(2).astype(float)
    np.testing.assert_allclose(overlay[140, 60], (100 + colours[0]) / 2, atol=1)
    np.testing.assert_allclose(overlay[140, 240], (100 + colours[1]) / 2, atol=1)
    assert (image == 100).all()


def test_outline_and_legend_have_the_label_colour() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    labels = np.zeros((480, 640), np.uint8)
    labels[300:400, 300:400] = 1
    overlay = render_overlay(image, labels, ['mug'])
    colour = label_colours(1)[0]
    assert (overlay[300, 350] == colour).all()
    assert (overlay[:40, :120] == colour).all(axis=2).any()


def test_more_names_than_there_is_room_for() -> None:
    image = np.zeros((10, 12, 3), np.uint8)
    labels = np.zeros((10, 12), np.uint8)
    names = ['a very long name ' * 10, '茶碗'] * 127
    assert render_overlay(image, labels, names).shape == (10, 12, 3)
