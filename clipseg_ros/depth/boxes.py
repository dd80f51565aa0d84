"""The box of a single thing in space, from the points of its visible surface.

A camera sees one side of a thing. What is hidden is completed by what is known: a thing stands on
its support, and one that is round about the vertical is as deep as it is wide. Boxes stand on the
plane around the thing where there is one: their z is its normal, and their x lies along that of the
frame. Where there is none, boxes are along the axes of the frame, around what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.instances import Instance
from clipseg_ros.depth.pinhole import Pinhole
from clipseg_ros.depth.transforms import RigidTransform

_RING = 12  # Pixels around a thing in which its support is looked for.
_LEAST_RING = 30  # Points of it that are enough.
_TRIALS, _SAMPLES = 60, 400
_FLAT = 0.006  # Metres at 1 m by which points of a plane may be off it.
_LEAST_SHARE = 0.4  # Of the ring, on the plane.
_CONTACT = 0.03  # Metres by which the lowest point may be off the plane.
_HIDDEN = 0.6  # Share of the height that may be hidden below the lowest point.
_ON_PLANE = 0.004  # Metres above the plane that are the plane's own.
_EDGE = 2  # Pixels along the edge of a mask that may be of something else.
# Step of depth from pixel to pixel, as a share of it, that ends a surface: at the edge, and inside,
# where surfaces that are seen at a flat angle have steps too.
_EDGE_JUMP, _JUMP = 0.02, 0.06
_LEAST_PART = 0.02  # Share of a thing from which on a part behind or before a step belongs to it.
_BINS = 12  # Heights at which roundness is judged.
_ROUND = 0.08  # Greatest residual of a round thing, as a share of its radius.


@dataclass(frozen=True)
class Box3D:
    """A box in space.

    Attributes:
        centre: x, y, z in metres, float64 (3,).
        size: Along the box's own axes, metres, float64 (3,).
        rotation: From the box's axes to those of the frame, float64 (3, 3).
        standing: Whether it stands on a plane that was found.
    """

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    rotation: NDArray[np.float64]
    standing: bool


@dataclass(frozen=True)
class Plane:
    """The points p with normal · p = offset; the normal, of length 1, points to the camera."""

    normal: NDArray[np.float64]
    offset: float


def clean_mask(mask: NDArray[np.bool_], depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the pixels of a thing without flying ones and without what shows behind its edges.

    A surface ends where depth jumps. Of the surfaces that a mask consists of then, the small ones
    are no part of the thing: single pixels between it and the background, and strips of the latter.

    Args:
        mask: (H, W) bool.
        depth: Metres, float32 (H, W); 0 is unknown.

    Returns:
        bool (H, W); empty where no depth is known.
    """
    known = mask & (depth > 0)
    square = np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8)
    edge = known & ~cv2.erode(mask.view(np.uint8), square, borderValue=1).view(bool)
    smooth = known & ~(edge & _jumps(known, depth, _EDGE_JUMP)) & ~_jumps(known, depth, _JUMP)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(
        smooth.view(np.uint8), connectivity=4
    )
    areas = statistics[1:, cv2.CC_STAT_AREA]
    if count < 2:
        return known
    large = np.zeros(count, bool)
    large[1:] = areas >= max(1.0, _LEAST_PART * float(areas.sum()))
    kept = large[parts]
    # The edge itself was taken away: it comes back where it is as deep as what it is the edge of.
    near = kept.astype(np.float32)
    number = cv2.boxFilter(near, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    total = cv2.boxFilter(near * depth, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    beside = known & ~kept & (number > 0)
    mean = total[beside] / number[beside]
    close = np.abs(depth[beside] - mean) <= 1.5 * _EDGE_JUMP * mean
    kept[beside] = close
    return kept


def _jumps(known: NDArray[np.bool_], depth: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Return the pixels beside which depth jumps, within what is known."""
    jumps = np.zeros_like(known)
    for axis in (0, 1):
        first = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        second = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        step = np.abs(depth[first] - depth[second])
        jump = step > share * np.minimum(depth[first], depth[second])
        jump &= known[first] & known[second]
        jumps[first] |= jump
        jumps[second] |= jump
    return jumps


@dataclass(frozen=True)
class DepthWindow:
    """A part of a depth image.

    Attributes:
        depth: Metres, float32 (h, w); 0 is unknown.
        left, top: Where it begins in the whole image, pixels.
        camera: For the whole image.
    """

    depth: NDArray[np.float32]
    left: int
    top: int
    camera: Pinhole

    def points(self, where: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the points of pixels (h, w) whose depth is known, float32 (N, 3)."""
        rows, columns = np.nonzero(where & (self.depth > 0))
        index = (rows + self.top) * self.camera.width + columns + self.left
        points = self.camera.points(index, self.depth[rows, columns])
        return points if self.camera.complete else points[np.isfinite(points[:, 0])]


def thing_box(
    thing: Instance,
    depth: NDArray[np.float32],
    camera: Pinhole,
    depth_max: float = 0.0,
    transform: RigidTransform | None = None,
) -> Box3D | None:
    """Return the box of a thing in the target frame; None where its depth is not known.

    Args:
        thing: Where it is in the image.
        depth: Metres, float32 (H, W); 0 is unknown.
        camera: For images of that size.
        depth_max: Metres beyond which depth is ignored; 0 is no limit.
        transform: From the optical to the target frame; None where that is the same.
    """
    x, y, width, height = thing.box
    top, left = max(0, y - _RING), max(0, x - _RING)
    part = (slice(top, y + height + _RING), slice(left, x + width + _RING))
    near = depth[part]
    if depth_max > 0:
        near = np.where(near <= depth_max, near, np.float32(0))
    mask = np.zeros(near.shape, bool)
    mask[y - top : y - top + height, x - left : x - left + width] = thing.mask
    window = DepthWindow(near, left, top, camera)
    points = window.points(clean_mask(mask, near))
    return measure_box(points, find_support(mask, window), transform)


def find_support(mask: NDArray[np.bool_], window: DepthWindow) -> Plane | None:
    """Return the plane around a thing, in the camera's optical frame; None where there is none.

    ``mask`` is that of the thing, (h, w) bool.
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _RING + 1, 2 * _RING + 1))
    # Not beside the thing: masks end a little early, and depth cameras mix what is beside.
    beside = cv2.dilate(mask.view(np.uint8), np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8))
    points = window.points(cv2.dilate(mask.view(np.uint8), disc) > beside).astype(np.float64)
    if len(points) < _LEAST_RING:
        return None
    # The same samples for the same image.
    random = np.random.default_rng(len(points))
    if len(points) > _SAMPLES:
        points = points[random.choice(len(points), _SAMPLES, replace=False)]
    tolerance = _FLAT * points[:, 2]
    best = np.zeros(len(points), bool)
    for _ in range(_TRIALS):
        plane = _through(points[random.choice(len(points), 3, replace=False)])
        if plane is None:
            continue
        on = np.abs(points @ plane.normal - plane.offset) <= tolerance
        if on.sum() > best.sum():
            best = on
    if best.sum() < _LEAST_SHARE * len(points):
        return None
    middle = points[best].mean(axis=0)
    normal = np.linalg.svd(points[best] - middle, full_matrices=False)[2][2]
    return _facing(normal, float(normal @ middle))


def _through(three: NDArray[np.float64]) -> Plane | None:
    normal = np.cross(three[1] - three[0], three[2] - three[0])
    length = float(np.linalg.norm(normal))
    if length < 1e-9:
        return None
    normal /= length
    return _facing(normal, float(normal @ three[0]))


def _facing(normal: NDArray[np.float64], offset: float) -> Plane:
    """Return a plane whose normal points to the camera, which is at the origin."""
    return Plane(-normal, -offset) if offset > 0 else Plane(normal, offset)


def measure_box(
    points: NDArray[np.float32],
    support: Plane | None = None,
    transform: RigidTransform | None = None,
) -> Box3D | None:
    """Return the box of a thing in the target frame; None where there is no point.

    Args:
        points: Of its visible surface, in the camera's optical frame, metres, float32 (N, 3).
        support: What it stands on, in the optical frame.
        transform: From the optical to the target frame; None where that is the same.
    """
    if not len(points):
        return None
    rotation = np.eye(3) if transform is None else transform.rotation
    shift = np.zeros(3) if transform is None else transform.translation
    moved = points.astype(np.float64) @ rotation.T + shift
    if support is not None:
        normal = rotation @ support.normal
        offset = support.offset + float(normal @ shift)
        axes = _axes(normal)
        box = _standing(moved @ axes, offset)
        if box is not None:
            low, high = box
            return Box3D(axes @ ((low + high) / 2), high - low, axes, True)
    low, high = moved.min(axis=0), moved.max(axis=0)
    return Box3D((low + high) / 2, high - low, np.eye(3), False)


def _axes(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the axes of a box as columns: z is the normal, x as near to the frame's as can be."""
    x = np.eye(3)[0] - normal[0] * normal
    if np.linalg.norm(x) < 0.3:
        x = np.eye(3)[1] - normal[1] * normal
    x /= np.linalg.norm(x)
    return np.stack((x, np.cross(normal, x), normal), axis=1)


def _standing(
    points: NDArray[np.float64], offset: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return low and high corners of a thing on the plane z = offset; None where it is not."""
    heights = points[:, 2] - offset
    above = heights > _ON_PLANE
    if above.mean() > 0.5:
        # What of the mask shows the plane itself.
        points, heights = points[above], heights[above]
    lowest, top = np.quantile(heights, (0.02, 1.0))
    if not -_CONTACT <= lowest <= _HIDDEN * top + _CONTACT / 3 or top <= 0:
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    low[2] = offset
    circle = _find_circle(points[:, :2], heights)
    if circle is not None:
        x, y, radius = circle
        low[:2], high[:2] = (x - radius, y - radius), (x + radius, y + radius)
    return low, high


def _find_circle(
    points: NDArray[np.float64], heights: NDArray[np.float64]
) -> tuple[float, float, float] | None:
    """Return axis and greatest radius of a thing that is round about the vertical, else None.

    At each height its points lie on a circle about the axis (x, y): x² + y² differs from its mean
    at that height by what is linear in them, which two unknowns explain.

    Args:
        points: x and y, float64 (N, 2).
        heights: Of each, float64 (N,).
    """
    span = float(heights.max() - heights.min())
    if len(points) < 5 * _BINS or span <= 0:
        return None
    bins = np.minimum((heights - heights.min()) / span * _BINS, _BINS - 1).astype(np.intp)
    counts = np.maximum(np.bincount(bins, minlength=_BINS), 1)

    def centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values - (np.bincount(bins, values, _BINS) / counts)[bins]

    origin = points.mean(axis=0)
    xy = points - origin
    squares = (xy**2).sum(axis=1)
    columns = 2 * np.stack((centred(xy[:, 0]), centred(xy[:, 1])), axis=1)
    axis, _, rank, _ = np.linalg.lstsq(columns, centred(squares), rcond=None)
    if rank < 2:
        return None
    distances = np.linalg.norm(xy - axis, axis=1)
    radii = np.bincount(bins, distances, _BINS) / counts
    radius = float(radii.max())
    residuals = np.abs(distances - radii[bins])
    # It is seen in its full width: a greater circle is the bend of something else.
    width = max(cv2.minAreaRect(points.astype(np.float32))[1])
    if not 0 < 2 * radius <= 1.15 * width or np.quantile(residuals, 0.8) > _ROUND * radius:
        return None
    return float(origin[0] + axis[0]), float(origin[1] + axis[1]), radius
