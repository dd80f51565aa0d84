"""Starts a camera that looks at the simulated household, and the node `segment` on its image.

For example::

    ros2 launch clipseg_ros demo.launch.py prompt:='the mug; something to cut with' rviz:=true
"""

from __future__ import annotations

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from clipseg_ros.ros.launch_support import (
    CAMERA_ARGUMENTS,
    CAMERA_PARAMETERS,
    SEGMENT_ARGUMENTS,
    check,
    declare,
    include_segment,
    make_node,
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
    """Return lines on the arguments; fail before anything runs that nobody would end.

    Raises:
        FileNotFoundError: A file of parameters is not there, or RViz is asked for and missing.
    """
    lines = check(context, ARGUMENTS)
    if values_of(context, ['rviz'])['rviz'].lower() in ('true', '1'):
        try:
            get_package_prefix('rviz2')
        except PackageNotFoundError as error:
            raise FileNotFoundError(
                'rviz:=true needs RViz, which is not installed: apt install ros-$ROS_DISTRO-rviz2, '
                'or leave rviz out'
            ) from error
    return lines


def start_camera(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the camera."""
    value = values_of(context, ARGUMENTS)
    names = {'name': 'camera', 'namespace': value['namespace']}
    return [make_node('camera', value['camera_params_file'], CAMERA_PARAMETERS, value, **names)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the camera, the node, and RViz where it is asked for."""
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        namespace=LaunchConfiguration('namespace'),
        arguments=['-d', str(share_path('config', 'clipseg.rviz'))],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription(
        [
            *declare(ARGUMENTS),
            OpaqueFunction(function=check_first),
            OpaqueFunction(function=start_camera),
            include_segment({name: LaunchConfiguration(name) for name in SHARED_ARGUMENTS}),
            rviz,
        ]
    )
