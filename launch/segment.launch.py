"""Starts the node `segment`: masks of whatever the prompt names, from a camera.

For example::

    ros2 launch clipseg_ros segment.launch.py image:=/camera/image_raw prompt:='the mug; a chair'
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


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node, with those of the arguments that were given."""
    lines = check(context, SEGMENT_ARGUMENTS)
    value = values_of(context, SEGMENT_ARGUMENTS)
    names = {'name': 'clipseg', 'namespace': value['namespace']}
    return [*lines, make_node('segment', value['params_file'], SEGMENT_PARAMETERS, value, **names)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    return LaunchDescription([*declare(SEGMENT_ARGUMENTS), OpaqueFunction(function=start_node)])
