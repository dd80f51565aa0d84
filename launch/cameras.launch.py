"""Starts a node `segment` for each of several cameras, all in one process on one model.

For example::

    ros2 launch clipseg_ros cameras.launch.py cameras:='front rear' image:=image_raw prompt:=person

runs ``/front/clipseg`` on ``/front/image_raw`` and ``/rear/clipseg`` on ``/rear/image_raw``. The
nodes are composed: the weights are in memory once, and each camera gets its turn.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction

from clipseg_ros.ros.launch_support import (
    SEGMENT_ARGUMENTS,
    SEGMENT_PARAMETERS,
    check,
    declare,
    make_node,
    values_of,
)
from clipseg_ros.segment_cameras_node import find_problem

ARGUMENTS = {
    'cameras': ('front rear', 'Namespaces of the cameras, with blanks in between.'),
    **SEGMENT_ARGUMENTS,
    'namespace': ('', 'Namespace that they are in.'),
    'image': ('image', "A camera's image topic, within its namespace."),
}


def start_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the process, with those of the arguments that were given.

    Raises:
        ValueError: The names of the cameras are wrong.
    """
    lines = check(context, ARGUMENTS)
    value = values_of(context, ARGUMENTS)
    outer = value['namespace'].strip('/')
    cameras = [f'/{outer}/{name}' if outer else name for name in value['cameras'].split()]
    problem = find_problem(cameras)
    if problem:
        raise ValueError(f'cameras: {problem}')
    file = value['params_file']
    return [
        *lines,
        make_node('segment_cameras', file, SEGMENT_PARAMETERS, value, arguments=cameras),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the process."""
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_nodes)])
