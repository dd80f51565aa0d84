"""The overlay: an image tinted by its labels, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.outputs.palette import PALETTE, colour_of


def colour_labels(
    labels: NDArray[np.uint8], palette: NDArray[np.uint8], out: NDArray[np.uint8]
) -> None:
    """Write the colour of every label to RGB uint8 (H, W, 3).

    ``labels`` are uint8 (H, W), ``palette`` is RGB uint8 (256, 3); ``out`` is contiguous.
    """
    cv2.applyColorMap(labels, palette.reshape(256, 1, 3), dst=out)


def render_overlay(
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    alpha: float,
    legend: Sequence[tuple[int, str]] = (),
    outlines: bool = False,
    out: NDArray[np.uint8] | None = None,
    palette: NDArray[np.uint8] = PALETTE,
) -> NDArray[np.uint8]:
    """Tint an image by its labels.

    Args:
        rgb: RGB uint8 (H, W, 3).
        labels: uint8 (H, W); 0 stays as it is.
        alpha: Share of the tint, 0…1.
        legend: (label, text) of the lines of a legend in the upper left corner.
        outlines: Whether shapes get an outline in their full colour, which costs more.
        out: Contiguous array of the image's shape to write to and return; a new one where None.
        palette: RGB uint8 (256, 3), the colour of every label.
    """
    tint = cv2.applyColorMap(labels, palette.reshape(256, 1, 3))
    overlay = np.empty(rgb.shape, np.uint8) if out is None else out
    cv2.addWeighted(rgb, 1.0 - alpha, tint, alpha, 0.0, dst=overlay)
    untouched = cv2.inRange(labels, np.zeros(1), np.zeros(1))
    cv2.copyTo(rgb, untouched, overlay)
    if outlines:
        line = max(1, round(min(labels.shape) / 480))
        for label in np.unique(labels[labels > 0]).tolist():
            shape = (labels == label).view(np.uint8)
            contours, _ = cv2.findContours(shape, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(overlay, contours, -1, colour_of(label, palette), line)
    if legend:
        _draw_legend(overlay, legend, palette)
    return overlay


def _draw_legend(
    image: NDArray[np.uint8], legend: Sequence[tuple[int, str]], palette: NDArray[np.uint8]
) -> None:
    """Draw as many lines as fit, in a size that goes with the image's."""
    height, width = image.shape[:2]
    scale = max(0.3, min(height, width) / 900.0)
    line = max(10, round(30 * scale))
    for row, (label, text) in enumerate(legend[: max(0, height // line - 1)]):
        top = row * line + line // 3
        corner = (line // 3, top), (line // 3 + line * 2 // 3, top + line * 2 // 3)
        cv2.rectangle(image, *corner, colour_of(label, palette), cv2.FILLED)
        origin = (corner[1][0] + line // 4, corner[1][1])
        # OpenCV ends the process where a text cannot be UTF-8.
        shown = text[:40].encode(errors='replace').decode()
        # A shadow of the same weight, since a heavier one has wider letters.
        shift = max(1, round(scale * 2))
        for colour, offset in (((0, 0, 0), shift), ((255, 255, 255), 0)):
            cv2.putText(
                image,
                shown,
                (origin[0] + offset, origin[1] + offset),
                cv2.FONT_HERSHEY_SIMPLEX,
                scale,
                colour,
                max(1, round(scale)),
                cv2.LINE_AA,
            )
