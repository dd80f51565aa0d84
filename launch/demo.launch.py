"""Starts a camera that looks at the simulated household, and the node `segment` on its image.

For example::

    ros2 launch clipseg_ros demo.launch.py prompt:='the mug; something to cut with' rviz:=true
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration

from clipseg_ros.ros.launch_support import (
    CAMERA_ARGUMENTS,
    CAMERA_PARAMETERS,
    SEGMENT_ARGUMENTS,
    check,
    declare,
    include_segment,
    make_node,
    rviz_node,
    values_of,
)
from clipseg_ros.ros.share import share_path

SHARED_ARGUMENTS = {
    **SEGMENT_ARGUMENTS,
    'image': ('image', 'Topic that the camera publishes and the node segments.'),
    'model': ('tabletop', 'Name of a model, or path of one; tabletop knows rendered scenes.'),
    'prompt': ('the mug; something to sit on', 'What to segment; `;` separates several.'),
}
ARGUMENTS = {
    **SHARED_ARGUMENTS,
    'camera_params_file': (
        str(share_path('config', 'camera.yaml')),
        'Parameters of the camera, a YAML file.',
    ),
    **CAMERA_ARGUMENTS,
    'rviz': ('false', 'Whether to start RViz, which comes with a ROS 2 installation.'),
}


def check_first(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return lines on the arguments, and RViz where it is asked for.

    This comes first: what fails here leaves nothing running that nobody would end.

    Raises:
        FileNotFoundError: A file of parameters is not there, or RViz is asked for and missing.
    """
    lines = check(context, ARGUMENTS)
    value = values_of(context, ARGUMENTS)
    if value['rviz'].lower() not in ('true', '1'):
        return lines
    frame = value['target_frame'] or value['frame_id']
    return [*lines, rviz_node(value['namespace'], value['image'], frame)]


def start_camera(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the camera."""
    value = values_of(context, ARGUMENTS)
    names = {'name': 'camera', 'namespace': value['namespace']}
    return [make_node('camera', value['camera_params_file'], CAMERA_PARAMETERS, value, **names)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, RViz where it is asked for, the camera and the node."""
    return LaunchDescription(
        [
            *declare(ARGUMENTS),
            OpaqueFunction(function=check_first),
            OpaqueFunction(function=start_camera),
            include_segment({name: LaunchConfiguration(name) for name in SHARED_ARGUMENTS}),
        ]
    )
