"""The parameters of what the node ``segment`` makes of depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clipseg_ros.depth.pinhole import DISTORTIONS
from clipseg_ros.ros.parameters import Declaration, one_of

DEPTH_DECLARATIONS: dict[str, Declaration] = {
    declaration.name: declaration
    for declaration in (
        Declaration(
            'depth',
            True,
            'Whether `depth` and `camera_info` are used, for ~/points and for 3D in ~/segments.',
        ),
        Declaration(
            'depth_slop',
            0.0,
            'Greatest difference of the stamps of image, depth and camera_info, seconds.',
            low=0.0,
            high=1.0,
            constraints='0 asks for equal stamps.',
        ),
        Declaration(
            'depth_wait',
            0.25,
            'Longest time that ~/points and ~/segments wait for the depth of their image, seconds.',
            low=0.0,
            high=5.0,
        ),
        Declaration(
            'depth_max',
            0.0,
            'Metres beyond which depth is not trusted; 0 is no limit.',
            low=0.0,
            high=1000.0,
        ),
        Declaration(
            'distortion',
            'refuse',
            'What to do where camera_info has distortion: refuse; rectified (images are rectified, '
            'so P holds); undistort (they are not, so K and D hold).',
            constraints='refuse, rectified or undistort.',
            check=one_of(*DISTORTIONS),
        ),
        Declaration(
            'target_frame',
            '',
            "Frame of points and positions, by tf2; empty is the camera's optical frame.",
        ),
        Declaration('points_rgb', True, 'Whether ~/points has colour.'),
    )
}


@dataclass(frozen=True)
class DepthSettings:
    """These parameters, as one object that never changes.

    Attributes:
        depth: Whether depth is used.
        slop: Nanoseconds.
        wait: Seconds.
        depth_max: Metres; 0 is no limit.
        distortion: One of :data:`clipseg_ros.depth.pinhole.DISTORTIONS`.
        target_frame: Name of a frame, or empty.
        points_rgb: Whether the cloud has colour.
    """

    depth: bool
    slop: int
    wait: float
    depth_max: float
    distortion: str
    target_frame: str
    points_rgb: bool

    @classmethod
    def of(cls, node: Any) -> DepthSettings:
        """Reads the settings of a node."""
        value = {name: node.get_parameter(name).value for name in DEPTH_DECLARATIONS}
        return cls(
            depth=bool(value['depth']),
            slop=round(float(value['depth_slop']) * 1e9),
            wait=float(value['depth_wait']),
            depth_max=float(value['depth_max']),
            distortion=str(value['distortion']),
            target_frame=str(value['target_frame']).strip().lstrip('/'),
            points_rgb=bool(value['points_rgb']),
        )
