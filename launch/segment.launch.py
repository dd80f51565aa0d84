"""Starts the node `segment`: masks of whatever the prompt names, from a camera.

For example::

    ros2 launch clipseg_ros segment.launch.py image:=/camera/image_raw prompt:='the mug; a chair'
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Beside this file both in a checkout and where it is installed.
CONFIG = Path(__file__).parents[1] / 'config'

ARGUMENTS = {
    'namespace': ('', 'Namespace of the node.'),
    'params_file': (str(CONFIG / 'segment.yaml'), 'Parameters of the node, a YAML file.'),
    'use_sim_time': ('false', 'Whether time comes from /clock: true in a simulation.'),
    'autostart': ('true', 'Whether the node configures and activates itself.'),
    'log_level': ('info', 'Least severe messages to log: debug, info, warn, error or fatal.'),
    'image': ('image', "The camera's image topic."),
    'depth': ('depth', 'Its depth topic, registered to the image: for ~/points and positions.'),
    'camera_info': ('camera_info', 'Its calibration topic: for the same.'),
    'target_frame': ('', 'Frame of points and positions, by tf2. Empty: as in params_file.'),
    'prompt': ('', 'What to segment; `;` separates several. Empty: as in params_file.'),
    'model': ('', 'Name of a model, or path of a checkpoint. Empty: as in params_file.'),
    'device': ('', 'auto, cpu, cuda or cuda:N. Empty: as in params_file.'),
}


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Returns the node, with those of the arguments that were given."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
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
            executable='segment',
            name='clipseg',
            namespace=value['namespace'],
            parameters=[value['params_file'], {**switches, **given}],
            remappings=[(topic, value[topic]) for topic in ('image', 'depth', 'camera_info')],
            arguments=['--ros-args', '--log-level', value['log_level']],
            output='screen',
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Returns the arguments and the node."""
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
    return LaunchDescription([*entities, OpaqueFunction(function=start_node)])
