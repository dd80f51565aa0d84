"""Starts a node `segment` for each of several cameras, all in one process on one model.

For example::

    ros2 launch clipseg_ros cameras.launch.py cameras:='front rear' image:=image_raw prompt:=person

runs ``/front/clipseg`` on ``/front/image_raw`` and ``/rear/clipseg`` on ``/rear/image_raw``. The
nodes are composed: the weights are in memory once, and each camera gets its turn.
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from clipseg_ros.segment_cameras_node import find_problem

# Beside this file both in a checkout and where it is installed.
CONFIG = Path(__file__).parents[1] / 'config'

ARGUMENTS = {
    'cameras': ('front rear', 'Namespaces of the cameras, with blanks in between.'),
    'namespace': ('', 'Namespace that they are in.'),
    'params_file': (str(CONFIG / 'segment.yaml'), 'Parameters of every node, a YAML file.'),
    'use_sim_time': ('false', 'Whether time comes from /clock: true in a simulation.'),
    'autostart': ('true', 'Whether the nodes configure and activate themselves.'),
    'log_level': ('info', 'Least severe messages to log: debug, info, warn, error or fatal.'),
    'image': ('image', "A camera's image topic, within its namespace."),
    'depth': ('depth', 'Its depth topic, registered to the image: for ~/points and positions.'),
    'camera_info': ('camera_info', 'Its calibration topic: for the same.'),
    'target_frame': ('', 'Frame of points and positions, by tf2. Empty: as in params_file.'),
    'prompt': ('', 'What to segment; `;` separates several. Empty: as in params_file.'),
    'model': ('', 'Name of a model, or path of a checkpoint. Empty: as in params_file.'),
    'device': ('', 'auto, cpu, cuda or cuda:N. Empty: as in params_file.'),
}


def start_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Returns the process, with those of the arguments that were given.

    Raises:
        ValueError: The names of the cameras are wrong.
    """
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    outer = value['namespace'].strip('/')
    cameras = [f'/{outer}/{name}' if outer else name for name in value['cameras'].split()]
    problem = find_problem(cameras)
    if problem:
        raise ValueError(f'cameras: {problem}')
    # As text: YAML would read a prompt `no` as false, and a model `7` as a number.
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=str)
        for name in ('prompt', 'model', 'device', 'target_frame')
        if value[name]
    }
    switches = {
        name: ParameterValue(LaunchConfiguration(name), value_type=bool)
        for name in ('use_sim_time', 'autostart')
    }
    return [
        Node(
            package='clipseg_ros',
            executable='segment_cameras',
            parameters=[value['params_file'], {**switches, **given}],
            remappings=[(topic, value[topic]) for topic in ('image', 'depth', 'camera_info')],
            arguments=[*cameras, '--ros-args', '--log-level', value['log_level']],
            output='screen',
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Returns the arguments and the process."""
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
    return LaunchDescription([*entities, OpaqueFunction(function=start_nodes)])
