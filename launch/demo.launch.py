"""Starts a camera that looks at the simulated household, and the node `segment` on its image.

For example::

    ros2 launch clipseg_ros demo.launch.py prompt:='the mug; something to cut with' rviz:=true
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Beside this file both in a checkout and where it is installed.
LAUNCH = Path(__file__).parent
CONFIG = LAUNCH.parent / 'config'

ARGUMENTS = {
    'namespace': ('', 'Namespace of the nodes.'),
    'params_file': (str(CONFIG / 'segment.yaml'), 'Parameters of the node, a YAML file.'),
    'camera_params_file': (str(CONFIG / 'camera.yaml'), 'Parameters of the camera, likewise.'),
    'use_sim_time': ('false', 'Whether time comes from /clock: true in a simulation.'),
    'autostart': ('true', 'Whether the nodes configure and activate themselves.'),
    'log_level': ('info', 'Least severe messages to log: debug, info, warn, error or fatal.'),
    'image': ('image', 'Topic that the camera publishes and the node segments.'),
    'depth': ('depth', 'Topic of its depth.'),
    'camera_info': ('camera_info', 'Topic of its calibration.'),
    'target_frame': ('', 'Frame of points and positions, by tf2. Empty: as in params_file.'),
    'prompt': ('the mug; something to sit on', 'What to segment; `;` separates several.'),
    'model': ('', 'Name of a model, or path of a checkpoint. Empty: as in params_file.'),
    'device': ('', 'auto, cpu, cuda or cuda:N. Empty: as in params_file.'),
    'rviz': ('false', 'Whether to start RViz, which comes with a ROS 2 installation.'),
}


def start_camera(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Returns the camera."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    return [
        Node(
            package='clipseg_ros',
            executable='camera',
            name='camera',
            namespace=value['namespace'],
            parameters=[
                value['camera_params_file'],
                {
                    'use_sim_time': ParameterValue(
                        LaunchConfiguration('use_sim_time'), value_type=bool
                    )
                },
            ],
            remappings=[(topic, value[topic]) for topic in ('image', 'depth', 'camera_info')],
            arguments=['--ros-args', '--log-level', value['log_level']],
            output='screen',
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Returns the arguments, the camera, the node, and RViz where it is asked for."""
    entities: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    if 'FASTDDS_DEFAULT_PROFILES_FILE' not in os.environ:
        # Fast DDS takes too little shared memory for images; see docs/troubleshooting.md.
        profile = SetEnvironmentVariable(
            'FASTDDS_DEFAULT_PROFILES_FILE', str(CONFIG / 'fastdds.xml')
        )
        entities.append(profile)
    segment = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH / 'segment.launch.py')),
        launch_arguments={
            name: LaunchConfiguration(name)
            for name in ARGUMENTS
            if name not in ('camera_params_file', 'rviz')
        }.items(),
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        namespace=LaunchConfiguration('namespace'),
        arguments=['-d', str(CONFIG / 'clipseg.rviz')],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*entities, OpaqueFunction(function=start_camera), segment, rviz])
