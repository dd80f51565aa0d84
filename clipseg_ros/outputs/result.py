"""What one frame ends in: a value that outputs, depth and services read alike. No ROS in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.outputs.frame_outputs import FrameOutputs, Scratch
from clipseg_model.outputs.overlay import colour_labels, render_overlay
from clipseg_model.outputs.palette import Colours, palette_with
from clipseg_model.segmentation import Segmentation
from clipseg_ros.outputs.things import Thing
from clipseg_ros.prompts.set import ActivePrompt

IMAGE_OUTPUTS: dict[str, str] = {
    'mask': 'mono8',
    'labels': 'mono8',
    'labels/color': 'rgb8',
    'confidence': 'mono8',
    'probability': '32FC1',
    'overlay': 'rgb8',
}
"""Topic (private) → encoding."""

COMPRESSED_OUTPUTS: dict[str, str] = {
    f'{name}/compressed': name for name in ('mask', 'labels', 'overlay')
}
"""Topic (private) → the image output that it is a compressed copy of."""

# Outputs that are made of others, and those that are made of no pixels at all.
INSTANCES = 'instances'
"""An image output too, 16UC1: the things, which only a node has that follows them."""

IN_SPACE = frozenset({'detections_3d', 'markers'})
"""Outputs that have a box in space for each thing."""

_MADE_OF = {
    'overlay': 'labels',
    'overlay/compressed': 'labels',
    'labels/color': 'labels',
    'labels/compressed': 'labels',
    'mask/compressed': 'mask',
    'points': 'confidence',
    INSTANCES: 'labels',
}
_WITHOUT_PIXELS = frozenset({'segments', 'detections'}) | IN_SPACE


@dataclass(frozen=True)
class FrameResult:
    """A segmented frame.

    Attributes:
        header: Of the image.
        rgb: The image, RGB uint8 (H, W, 3).
        prompts: The prompts that are reported, in the order of the results.
        segmentation: What was found for them, smoothed, at the size of the image.
        pixels: The pixels of the wanted outputs, computed together.
        wanted: Outputs that somebody subscribes to.
        segments_wait: Whether ``~/segments`` is left to the depth stage, which adds positions.
        things: The single things, where an output that needs them is wanted.
        colours: Of prompts, in place of the palette's.
    """

    header: Any
    rgb: NDArray[np.uint8]
    prompts: tuple[ActivePrompt, ...]
    segmentation: Segmentation
    pixels: FrameOutputs
    wanted: frozenset[str] = frozenset()
    segments_wait: bool = False
    things: tuple[Thing, ...] = ()
    colours: Colours = ()

    @property
    def palette(self) -> NDArray[np.uint8]:
        """The colour of every label, RGB uint8 (256, 3)."""
        return palette_with(self.colours, self.names)

    @property
    def names(self) -> list[tuple[int, str]]:
        """Label and name of every prompt."""
        return [(entry.id, entry.name) for entry in self.prompts]


@dataclass(frozen=True)
class Look:
    """How the overlay looks: share of the tint (0…1), and whether it has names."""

    alpha: float = 0.5
    legend: bool = True


_DEFAULT_LOOK = Look()


def compute_pixels(
    segmentation: Segmentation,
    prompts: Iterable[ActivePrompt],
    wanted: Iterable[str],
    scratch: Scratch,
) -> FrameOutputs:
    """Compute together the pixels that the wanted outputs are made of, in a thread's scratch."""
    needed = {_MADE_OF.get(name, name) for name in wanted} - _WITHOUT_PIXELS
    return FrameOutputs(segmentation, [entry.id for entry in prompts], needed, scratch)


def write_image(
    name: str, result: FrameResult, out: NDArray[Any], look: Look = _DEFAULT_LOOK
) -> None:
    """Write one of :data:`IMAGE_OUTPUTS` of a frame, which was wanted.

    The probability is written after the confidence, whose memory it takes over. ``out`` is
    contiguous, of the size and type of the output; ``look`` is that of the overlay.
    """
    if name == 'labels/color':
        colour_labels(result.pixels.labels(), result.palette, out)
        return
    if name != 'overlay':
        getattr(result.pixels, name)(out)
        return
    render_overlay(
        result.rgb,
        result.pixels.labels(),
        look.alpha,
        result.names if look.legend else (),
        out=out,
        palette=result.palette,
    )
