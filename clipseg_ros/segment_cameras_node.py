"""Executable ``segment_cameras``: a node for each of several cameras, in one process on one model.

    ros2 run clipseg_ros segment_cameras front rear --ros-args -r image:=image_raw -p prompt:=person

runs ``/front/clipseg`` on ``/front/image_raw`` and ``/rear/clipseg`` on ``/rear/image_raw``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from clipseg_ros.process.start import end_at_once_if_asked, take_signals_as_usual
from clipseg_ros.process.tuning import tune_process

_NAME = re.compile(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', re.ASCII)


def find_problem(cameras: Sequence[str]) -> str:
    """Return what is wrong with the names of cameras, or an empty string."""
    if not cameras:
        return 'name the cameras, such as: segment_cameras front rear --ros-args …'
    for camera in cameras:
        if not _NAME.fullmatch(camera):
            return (
                f'{camera!r} cannot be a namespace: letters, digits and _ (no digit first), with / '
                'in between'
            )
    names = [camera.lstrip('/') for camera in cameras]
    twice = sorted({name for name in names if names.count(name) > 1})
    return f'{twice[0]!r} is named twice: each camera has a namespace of its own' if twice else ''


def main(args: list[str] | None = None) -> int:
    """Run the nodes; return 0 after a signal, 1 where one failed, 2 for wrong names."""
    end_at_once_if_asked()
    command_line = sys.argv if args is None else args
    tune_process()
    # Imported here: torch reads its settings only once, and a signal may come meanwhile.
    from rclpy.utilities import remove_ros_args

    cameras = remove_ros_args(command_line)[1:]
    problem = find_problem(cameras)
    if problem:
        print(f'cannot start: {problem}', file=sys.stderr)
        take_signals_as_usual()
        return 2
    from clipseg_ros.process.runner import run_nodes
    from clipseg_ros.segment.lifecycle import SegmentNode
    from clipseg_ros.segment.shared_model import SharedModels

    def make_nodes() -> list[Any]:
        models = SharedModels()
        return [SegmentNode(namespace=camera, load=models.load) for camera in cameras]

    return run_nodes(make_nodes, command_line)


if __name__ == '__main__':
    raise SystemExit(main())
