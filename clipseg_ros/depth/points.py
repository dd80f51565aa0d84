"""From a segmented image with its depth and calibration to its cloud and its surfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage

from clipseg_ros.depth.boxes import Box3D, thing_box
from clipseg_ros.depth.clouds import pack_points
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.pinhole import Pinhole, pinhole_of
from clipseg_ros.depth.surface import Surface, check_registered, measure_surface, visible_points
from clipseg_ros.depth.transforms import RigidTransform
from clipseg_ros.images.compressed_depth import compressed_depth_to_metres
from clipseg_ros.images.conversion import depth_to_metres
from clipseg_ros.outputs.result import FrameResult


@dataclass(frozen=True)
class PointsInSpace:
    """Where the things in an image are.

    Attributes:
        frame_id: TF frame of all coordinates.
        cloud: Points of all prompts, of :func:`clipseg_ros.depth.clouds.cloud_dtype`; None where
            not wanted.
        surfaces: The visible surface under each prompt's own mask, None where that has no point;
            empty where not wanted.
        boxes: That of each thing, None where no depth of it is known; empty where not wanted.
    """

    frame_id: str
    cloud: NDArray[Any] | None
    surfaces: tuple[Surface | None, ...]
    boxes: tuple[Box3D | None, ...] = ()


class PointMaker:
    """Makes points of frames, and keeps the rays of the last calibration.

    Args:
        find_transform: Returns the transform for a target ``frame_id``, a source ``frame_id`` and a
            stamp; None where points have to stay in the source frame.
    """

    def __init__(self, find_transform: Callable[[str, str, Any], RigidTransform | None]) -> None:
        self._find_transform = find_transform
        self._key: tuple[Any, ...] = ()
        self._camera: Pinhole | None = None

    def make(
        self,
        result: FrameResult,
        depth: Any,
        info: Any,
        settings: DepthSettings,
        cloud: bool,
        surfaces: bool,
        boxes: bool = False,
    ) -> PointsInSpace:
        """Make cloud, surfaces and boxes of a frame with its registered depth image.

        Each if it is wanted.


        Raises:
            ImageConversionError: The depth image cannot be read.
            DepthError: It is not registered, or the calibration does not serve.
        """
        height, width = result.rgb.shape[:2]
        compressed = isinstance(depth, CompressedImage)
        metres = compressed_depth_to_metres(depth) if compressed else depth_to_metres(depth)
        source = result.header.frame_id
        check_registered(metres, depth.header.frame_id, width, height, source)
        camera = self._camera_of(info, width, height, settings.distortion)
        transform = None
        if settings.target_frame not in ('', source):
            transform = self._find_transform(settings.target_frame, source, result.header.stamp)
        points = None
        if cloud:
            index, xyz = visible_points(result.pixels.labels(), metres, camera, settings.depth_max)
            points = pack_points(
                xyz if transform is None else transform.apply(xyz),
                result.pixels.labels().ravel()[index],
                result.pixels.probability_at(index),
                result.rgb.reshape(-1, 3)[index] if settings.points_rgb else None,
            )
        measured: list[Surface | None] = []
        if surfaces:
            for found in result.segmentation.results:
                _, xyz = visible_points(found.mask, metres, camera, settings.depth_max)
                measured.append(measure_surface(xyz, transform))
        reached = source if transform is None else settings.target_frame
        found_boxes = [
            thing_box(thing.instance, metres, camera, settings.depth_max, transform)
            for thing in (result.things if boxes else ())
        ]
        return PointsInSpace(reached, points, tuple(measured), tuple(found_boxes))

    def _camera_of(self, info: Any, width: int, height: int, distortion: str) -> Pinhole:
        """Read the calibration, unless it is the last one: undistorting rays takes long."""
        roi = info.roi
        key = (
            (width, height, info.width, info.height, info.binning_x, info.binning_y),
            (roi.x_offset, roi.y_offset, roi.width, roi.height),
            (distortion, info.distortion_model),
            *(np.asarray(values).tobytes() for values in (info.k, info.p, info.d)),
        )
        if self._camera is None or key != self._key:
            self._camera = pinhole_of(info, width, height, distortion)
            self._key = key
        return self._camera


def add_positions(message: Any, points: PointsInSpace) -> None:
    """Write the positions of surfaces into a ``clipseg_ros/SegmentArray`` of the same prompts."""
    message.points_frame = points.frame_id
    for segment, surface in zip(message.segments, points.surfaces, strict=True):
        if surface is not None:
            segment.points = surface.points
            segment.position = _point(surface.centroid)
            segment.position_min, segment.position_max = _point(surface.low), _point(surface.high)
            segment.nearest = _point(surface.nearest)


def _point(xyz: NDArray[np.float64]) -> Point:
    x, y, z = xyz.tolist()
    return Point(x=x, y=y, z=z)
