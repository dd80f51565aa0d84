"""Starts the node `segment` on a camera with depth: masks, points and positions.

The topics are those that most drivers have below the camera's name; give others as arguments.
For example, with a RealSense camera whose driver aligns depth to colour::

    ros2 launch clipseg_ros depth.launch.py camera:=/camera/camera prompt:='the mug'

and with one that is named otherwise::

    ros2 launch clipseg_ros depth.launch.py image:=/rgb/image depth:=/depth_to_rgb/image \
        camera_info:=/rgb/camera_info prompt:='the mug' target_frame:=base_link
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction

from clipseg_ros.ros.launch_support import (
    SEGMENT_ARGUMENTS,
    check,
    declare,
    include_segment,
    values_of,
)

TOPICS = {
    'image': 'color/image_raw',
    'depth': 'aligned_depth_to_color/image_raw',
    'camera_info': 'color/camera_info',
}
ARGUMENTS = {
    'camera': ('/camera/camera', 'Namespace of the camera, before the topics that are not given.'),
    **SEGMENT_ARGUMENTS,
    'image': ('', f'Its image topic. Empty: {TOPICS["image"]} below camera.'),
    'depth': ('', f'Its depth topic, registered to the image. Empty: {TOPICS["depth"]} likewise.'),
    'camera_info': ('', f'Its calibration topic. Empty: {TOPICS["camera_info"]} likewise.'),
}


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node, on the camera's topics."""
    lines = check(context, ARGUMENTS)
    value = values_of(context, ARGUMENTS)
    camera = value.pop('camera').rstrip('/')
    topics = {name: value[name] or f'{camera}/{topic}' for name, topic in TOPICS.items()}
    return [*lines, include_segment({**value, **topics})]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_node)])
