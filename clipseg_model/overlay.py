"""A picture for people: the image tinted by its labels, with outlines and a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ['label_colours', 'render_overlay']

_GOLDEN_RATIO = 0.618034


def label_colours(count: int) -> NDArray[np.uint8]:
    """Colours (count, 3) uint8 RGB; the golden ratio keeps the hues of neighbours far apart."""
    hues = (0.97 + _GOLDEN_RATIO * np.arange(count)) % 1.0
    colours = [colorsys.hsv_to_rgb(hue, 0.85, 1.0) for hue in hues]
    return np.round(255 * np.array(colours).reshape(count, 3)).astype(np.uint8)


def render_overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str], alpha: float = 0.5
) -> NDArray[np.uint8]:
    """Tint an image by its labels.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, 0 for none, else the number of a name, from 1.
        names: What the legend says of each number.
        alpha: Share of the tint, 0…1.

    Returns:
        A new (H, W, 3) uint8 RGB.
    """
    colours = label_colours(len(names))
    table = np.zeros((256, 1, 3), np.uint8)
    table[1 : 1 + len(names), 0] = colours
    tint = cv2.applyColorMap(labels, table)
    overlay: NDArray[Any] = cv2.addWeighted(image, 1 - alpha, tint, alpha, 0)
    cv2.copyTo(image, (labels == 0).view(np.uint8), overlay)
    scale = max(min(image.shape[:2]) / 480, 0.4)
    line = max(1, round(scale))
    for number, colour in enumerate(colours, start=1):
        shape = (labels == number).view(np.uint8)
        outlines, _ = cv2.findContours(shape, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(overlay, outlines, -1, colour.tolist(), line)
    _draw_legend(overlay, names, colours, scale)
    return overlay


def _draw_legend(
    picture: NDArray[np.uint8], names: Sequence[str], colours: NDArray[np.uint8], scale: float
) -> None:
    height = round(22 * scale)
    for row, (name, colour) in enumerate(zip(names, colours, strict=True)):
        bottom = (row + 1) * height
        if bottom > picture.shape[0]:
            return
        text = name if len(name) <= 48 else name[:47] + '…'
        at = (round(6 * scale), bottom - round(6 * scale))
        # A dark rim keeps the colour legible on any background.
        for tint, thickness in (((0, 0, 0), 3), (colour.tolist(), 1)):
            cv2.putText(
                picture,
                text,
                at,
                cv2.FONT_HERSHEY_SIMPLEX,
                0.5 * scale,
                tint,
                max(1, round(thickness * scale)),
                cv2.LINE_AA,
            )
