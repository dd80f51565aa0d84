"""The parameters of the node ``camera``."""

from __future__ import annotations

from dataclasses import dataclass

from clipseg_ros.camera.sources import MOTIONS, TABLETOP
from clipseg_ros.errors import ParameterError
from clipseg_ros.ros.parameters import declarations_of, parameter


def _read_frame(value: str) -> str:
    if not value.strip():
        raise ParameterError('it is empty; give the name of an optical frame')
    return value


@dataclass(frozen=True)
class CameraSettings:
    """What the parameters say, as one object that never changes."""

    source: str = parameter(
        TABLETOP,
        'tabletop, a folder of pictures, a picture, a video, /dev/videoN or N.',
        when='start',
    )
    width: int = parameter(
        0, "Pixels; 0 is the source's own (tabletop: 640).", low=0, high=8192, when='start'
    )
    height: int = parameter(
        0,
        "Pixels; 0 is the source's own (tabletop: 480). With only one side given, pictures keep "
        'their proportions.',
        low=0,
        high=8192,
        when='start',
    )
    frame_id: str = parameter(
        'camera_optical_frame',
        'Frame of all messages: x right, y down, z forward (REP 103).',
        when='start',
        read=_read_frame,
    )
    loop: bool = parameter(True, 'Whether files start again after the last.', when='start')
    rate: float = parameter(10.0, 'Frames a second.', low=0.01, high=240.0)
    seed: int = parameter(0, 'Scene of the tabletop world.', low=0, high=2**31 - 1)
    motion: str = parameter(
        'still', "Of the tabletop world's camera: still or orbit.", choices=MOTIONS
    )


DECLARATIONS = declarations_of(CameraSettings)
