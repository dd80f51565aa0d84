"""What the launch files share: arguments, remappings, parameters and the Fast DDS profile.

`launch` comes with a ROS 2 installation and not with pip: launch files alone import this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from launch import LaunchContext, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from clipseg_ros.ros.share import share_path

TOPICS = ('image', 'depth', 'camera_info')

SEGMENT_ARGUMENTS = {
    'namespace': ('', 'Namespace of the nodes.'),
    'params_file': (
        str(share_path('config', 'segment.yaml')),
        'Parameters of every node `segment`, a YAML file.',
    ),
    'use_sim_time': ('false', 'Whether time comes from /clock: true in a simulation.'),
    'autostart': ('true', 'Whether every node `segment` configures and activates itself.'),
    'log_level': ('info', 'Least severe messages to log: debug, info, warn, error or fatal.'),
    'image': ('image', "The camera's image topic."),
    'depth': ('depth', 'Its depth topic, registered to the image: for ~/points and positions.'),
    'camera_info': ('camera_info', 'Its calibration topic: for the same.'),
    'target_frame': ('', 'Frame of points and positions, by tf2. Empty: as in params_file.'),
    'prompt': ('', 'What to segment; `;` separates several. Empty: as in params_file.'),
    'model': ('', 'Name of a model, or path of a checkpoint. Empty: as in params_file.'),
    'device': ('', 'auto, cpu, cuda or cuda:N. Empty: as in params_file.'),
}
"""Argument of `segment.launch.py` → default, description; the other launch files add to them."""

COMMON_PARAMETERS = {'use_sim_time': bool}
"""Argument that is a parameter of every node → its type."""

SEGMENT_PARAMETERS = {
    **COMMON_PARAMETERS,
    'autostart': bool,
    **dict.fromkeys(('prompt', 'model', 'device', 'target_frame'), str),
}
"""Argument that is a parameter of the node `segment` → its type."""


def declare(arguments: Mapping[str, tuple[str, str]]) -> list[LaunchDescriptionEntity]:
    """Return the declarations of arguments, and the Fast DDS profile unless the user has one."""
    entities: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in arguments.items()
    ]
    variable = 'FASTDDS_DEFAULT_PROFILES_FILE'
    if variable not in os.environ:
        # Fast DDS takes too little shared memory for images; see docs/troubleshooting.md.
        profile = str(share_path('config', 'fastdds.xml'))
        entities.append(SetEnvironmentVariable(variable, profile))
    return entities


def values_of(context: LaunchContext, names: Iterable[str]) -> dict[str, str]:
    """Return the values of arguments, given or default."""
    return {name: LaunchConfiguration(name).perform(context) for name in names}


def make_node(
    executable: str,
    params_file: str,
    parameters: Mapping[str, type],
    value: Mapping[str, str],
    **options: Any,
) -> Node:
    """Return a node of this package, with the values of arguments.

    Args:
        executable: Its name.
        params_file: Parameters, a YAML file.
        parameters: Arguments that come before the file, unless they are empty → their types.
        value: Argument → its value.
        options: Those of ``launch_ros.actions.Node``.
    """
    # By type: YAML would read a prompt `no` as false, and a model `7` as a number.
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in parameters.items()
        if value[name]
    }
    words = options.pop('arguments', ())
    return Node(
        package='clipseg_ros',
        executable=executable,
        parameters=[params_file, given],
        remappings=[(topic, value[topic]) for topic in TOPICS],
        arguments=[*words, '--ros-args', '--log-level', value['log_level']],
        output='screen',
        emulate_tty=True,
        **options,
    )


def include_segment(arguments: Mapping[str, Any]) -> IncludeLaunchDescription:
    """Return `segment.launch.py`, with values for its arguments."""
    path = share_path('launch', 'segment.launch.py')
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(path)), launch_arguments=arguments.items()
    )
