"""The parameters of what the node ``segment`` makes of depth."""

from __future__ import annotations

from dataclasses import dataclass

from clipseg_ros.depth.pinhole import DISTORTIONS
from clipseg_ros.ros.parameters import parameter


@dataclass(frozen=True)
class DepthSettings:
    """How depth is used, as its parameters say; ``slop`` is in nanoseconds."""

    enabled: bool = parameter(
        True,
        'Whether `depth` and `camera_info` are used, for ~/points and for 3D in ~/segments.',
        name='depth',
        link='3d.md',
    )
    transport: str = parameter(
        'raw',
        'raw subscribes to `depth` (Image), compressedDepth to `depth/compressedDepth` (PNG or '
        'RVL).',
        name='depth_transport',
        choices=('raw', 'compressedDepth'),
        when='configure',
        link='3d.md#requirements',
    )
    slop: int = parameter(
        0.0,
        'Greatest difference of the stamps of image, depth and camera_info, seconds.',
        name='depth_slop',
        low=0.0,
        high=1.0,
        constraints='0 asks for equal stamps.',
        read=lambda seconds: round(seconds * 1e9),
    )
    wait: float = parameter(
        0.25,
        'Longest time that ~/points and ~/segments wait for the depth of their image, seconds.',
        name='depth_wait',
        low=0.0,
        high=5.0,
    )
    depth_max: float = parameter(
        0.0, 'Metres beyond which depth is not trusted; 0 is no limit.', low=0.0, high=1000.0
    )
    distortion: str = parameter(
        'refuse',
        'What to do where camera_info has distortion: refuse; rectified (images are rectified, '
        'so P holds); undistort (they are not, so K and D hold).',
        choices=DISTORTIONS,
        link='3d.md#distortion',
    )
    target_frame: str = parameter(
        '',
        "Frame of points and positions, by tf2; empty is the camera's optical frame.",
        read=lambda frame: frame.strip().lstrip('/'),
    )
    strict_frame: bool = parameter(
        False,
        'Whether there are no points and positions where target_frame has no transform; else they '
        "stay in the camera's optical frame.",
        link='3d.md#which-frame',
    )
    points_rgb: bool = parameter(True, 'Whether ~/points has colour.')
