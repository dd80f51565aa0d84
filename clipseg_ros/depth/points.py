"""From a segmented image with its depth and calibration to its cloud and its surfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_ros.depth.clouds import pack_points
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.pinhole import Pinhole, pinhole_of
from clipseg_ros.depth.rigid_transform import RigidTransform
from clipseg_ros.depth.surface import Surface, check_registered, measure, visible_points
from clipseg_ros.images.conversion import depth_to_metres
from clipseg_ros.segment.pipeline import SegmentedFrame

FindTransform = Callable[[str, str, Any], RigidTransform | None]


@dataclass(frozen=True)
class FramePoints:
    """What an image shows in space.

    Attributes:
        frame: Frame of all coordinates.
        cloud: Points of all prompts, of :func:`clipseg_ros.depth.clouds.cloud_dtype`; None where
        it was
            not asked for.
        surfaces: For each prompt, in their order, the visible surface under its own mask, None
            where it has no point; empty where they were not asked for.
    """

    frame: str
    cloud: NDArray[Any] | None
    surfaces: tuple[Surface | None, ...]


class PointMaker:
    """Makes points of frames; remembers the rays of the last calibration.

    Args:
        find_transform: From target frame, source frame and stamp to the transform, or None where
            points have to stay in the source frame.
    """

    def __init__(self, find_transform: FindTransform) -> None:
        self._find_transform = find_transform
        self._key: tuple[Any, ...] = ()
        self._camera: Pinhole | None = None

    def make(
        self,
        frame: SegmentedFrame,
        depth: Any,
        info: Any,
        settings: DepthSettings,
        cloud: bool,
        surfaces: bool,
    ) -> FramePoints:
        """Makes what is asked for.

        Args:
            frame: The segmented image.
            depth: Its ``sensor_msgs/Image`` of depth, registered to it.
            info: Its ``sensor_msgs/CameraInfo``.
            settings: The parameters.
            cloud: Whether to make the cloud.
            surfaces: Whether to measure the prompts' surfaces.

        Raises:
            ImageConversionError: The depth image cannot be read.
            DepthError: It is not registered, or the calibration does not serve.
        """
        height, width = frame.rgb.shape[:2]
        metres = depth_to_metres(depth)
        source = frame.header.frame_id
        check_registered(metres, depth.header.frame_id, width, height, source)
        camera = self._camera_of(info, width, height, settings.distortion)
        transform = None
        if settings.target_frame not in ('', source):
            transform = self._find_transform(settings.target_frame, source, frame.header.stamp)
        points = None
        if cloud:
            index, xyz = visible_points(frame.pixels.labels(), metres, camera, settings.depth_max)
            points = pack_points(
                xyz if transform is None else transform.apply(xyz),
                frame.pixels.labels().ravel()[index],
                frame.pixels.probability_at(index),
                frame.rgb.reshape(-1, 3)[index] if settings.points_rgb else None,
            )
        measured: list[Surface | None] = []
        if surfaces:
            for result in frame.segmentation.results:
                _, xyz = visible_points(result.mask, metres, camera, settings.depth_max)
                measured.append(measure(xyz, transform))
        reached = source if transform is None else settings.target_frame
        return FramePoints(reached, points, tuple(measured))

    def _camera_of(self, info: Any, width: int, height: int, distortion: str) -> Pinhole:
        """Reads the calibration where it is another one: undistorting rays takes long."""
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
