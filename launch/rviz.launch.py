"""Starts RViz with the outputs of a node `segment` that is running, and its camera's image.

For example::

    ros2 launch clipseg_ros rviz.launch.py namespace:=robot1 image:=/camera/image frame:=map
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction

from clipseg_ros.ros.launch_support import declare, rviz_node, values_of

ARGUMENTS = {
    'namespace': ('', 'Namespace of the node.'),
    'image': ('image', "The camera's image topic."),
    'frame': ('camera_optical_frame', 'Fixed frame: of the camera, or one that tf2 leads to.'),
}


def start_rviz(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return RViz."""
    value = values_of(context, ARGUMENTS)
    return [rviz_node(value['namespace'], value['image'], value['frame'])]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and RViz."""
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_rviz)])
