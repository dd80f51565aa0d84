"""What the launch files share: arguments, remappings, parameters and the Fast DDS profile.

`launch` comes with a ROS 2 installation and not with pip: launch files alone import this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from clipseg_ros.ros.share import profile_variables, share_path
from clipseg_ros.ros.viewers import layout

_RESPAWN_DELAY = 2.0  # Seconds.

_EXIT = 'exit_on_failure'

TOPICS = ('image', 'depth', 'camera_info')

_PARAMETER_OF = {'use_depth': 'depth'}
"""Argument that is a parameter of another name: `depth` is a topic."""


def _defaults(file: str) -> dict[str, Any]:
    """Return the parameters of a node, with their defaults, from its file in `config/`."""
    text = share_path('config', file).read_text(encoding='utf-8')
    [section] = yaml.safe_load(text).values()
    names = {parameter: argument for argument, parameter in _PARAMETER_OF.items()}
    return {names.get(name, name): value for name, value in section['ros__parameters'].items()}


def _kinds(defaults: Mapping[str, Any]) -> dict[str, type | None]:
    # The node takes whole numbers for numbers: None leaves the type to YAML.
    return {n: type(v) if isinstance(v, (bool, str)) else None for n, v in defaults.items()}


def _arguments(defaults: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        name: ('', f'The parameter {_PARAMETER_OF.get(name, name)}. Empty: as in params_file.')
        for name in defaults
    }


_SEGMENT, _CAMERA = _defaults('segment.yaml'), _defaults('camera.yaml')

SEGMENT_ARGUMENTS = {
    'namespace': ('', 'Namespace of the nodes.'),
    'params_file': (
        str(share_path('config', 'segment.yaml')),
        'Parameters of every node `segment`, a YAML file.',
    ),
    'use_sim_time': ('false', 'Whether time comes from /clock: true in a simulation.'),
    'log_level': ('info', 'Least severe messages to log: debug, info, warn, error or fatal.'),
    'respawn': ('true', 'Whether a node that ends is started again, after 2 s.'),
    'image': ('image', "The camera's image topic."),
    'depth': ('depth', 'Its depth topic, registered to the image: for ~/points and positions.'),
    'camera_info': ('camera_info', 'Its calibration topic: for the same.'),
    **_arguments(_SEGMENT),
    'autostart': ('true', 'Whether every node `segment` configures and activates itself.'),
    'target_frame': ('', 'Frame of points and positions, by tf2. Empty: as in params_file.'),
    'prompt': ('', 'What to segment; `;` separates several. Empty: as in params_file.'),
    'model': ('', 'Name of a model, or path of a checkpoint. Empty: as in params_file.'),
    'device': ('', 'auto, cpu, cuda or cuda:N. Empty: as in params_file.'),
    _EXIT: ('', 'The parameter. Empty: true with respawn, and else as in params_file.'),
}
"""Argument of `segment.launch.py` → default, description; the other launch files add to them."""

COMMON_PARAMETERS: dict[str, type | None] = {'use_sim_time': bool}
"""Argument that is a parameter of every node → its type."""

SEGMENT_PARAMETERS = {**COMMON_PARAMETERS, **_kinds(_SEGMENT)}
"""Argument that is a parameter of the node `segment` → its type."""

CAMERA_ARGUMENTS = {
    name: (default, text.replace('params_file', 'camera_params_file'))
    for name, (default, text) in _arguments(_CAMERA).items()
}
"""Argument for the node `camera` → default, description."""

CAMERA_PARAMETERS = {**COMMON_PARAMETERS, **_kinds(_CAMERA)}
"""Argument that is a parameter of the node `camera` → its type."""


def check(context: LaunchContext, arguments: Iterable[str]) -> list[LaunchDescriptionEntity]:
    """Look through the arguments before anything is started.

    Raises:
        FileNotFoundError: A file of parameters is not there.
        ValueError: `respawn` is neither true nor false.

    Returns:
        A line of the log for every argument given that may be one of these, misspelt. Those of a
        launch file that includes this one are seen here too, so none is refused.
    """
    names, lines = list(arguments), []
    for name in names:
        value = LaunchConfiguration(name).perform(context)
        if name.endswith('params_file') and not Path(value).is_file():
            raise FileNotFoundError(f'{name}:={value}: there is no such file')
    _is_true('respawn', LaunchConfiguration('respawn').perform(context))
    for name in sorted(set(context.launch_configurations) - set(names)):
        near = get_close_matches(name.lower(), names, n=1, cutoff=0.8)
        if near:
            text = f'no argument is called {name}, it is ignored: did you mean {near[0]}?'
            lines.append(LogInfo(msg=f'WARNING: {text}'))
    return lines


def declare(arguments: Mapping[str, tuple[str, str]]) -> list[LaunchDescriptionEntity]:
    """Return the declarations of arguments, and the Fast DDS profile unless the user has one."""
    entities: list[LaunchDescriptionEntity] = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in arguments.items()
    ]
    # Fast DDS takes too little shared memory for images; see docs/troubleshooting.md.
    variables = profile_variables(os.environ)
    return [*entities, *(SetEnvironmentVariable(*variable) for variable in variables.items())]


def values_of(context: LaunchContext, names: Iterable[str]) -> dict[str, str]:
    """Return the values of arguments, given or default."""
    return {name: LaunchConfiguration(name).perform(context) for name in names}


def make_node(
    executable: str,
    params_file: str,
    parameters: Mapping[str, type | None],
    value: Mapping[str, str],
    **options: Any,
) -> Node:
    """Return a node of this package, with the values of arguments.

    Args:
        executable: Its name.
        params_file: Parameters, a YAML file.
        parameters: Arguments that come before the file, unless they are empty → their types;
            None for what YAML makes of them.
        value: Argument → its value.
        options: Those of ``launch_ros.actions.Node``.
    """
    # By type: YAML would read a prompt `no` as false, and a model `7` as a number.
    given: dict[str, Any] = {
        _PARAMETER_OF.get(name, name): ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in parameters.items()
        if value[name]
    }
    respawn = _is_true('respawn', value['respawn'])
    if respawn and _EXIT in parameters:
        # A node that cannot help itself is of no use to whoever would start it again.
        given.setdefault(_EXIT, True)
    words = options.pop('arguments', ())
    return Node(
        package='clipseg_ros',
        executable=executable,
        parameters=[params_file, given],
        remappings=[(topic, value[topic]) for topic in TOPICS],
        arguments=[*words, '--ros-args', '--log-level', value['log_level']],
        output='screen',
        emulate_tty=True,
        respawn=respawn,
        respawn_delay=_RESPAWN_DELAY,
        **options,
    )


def rviz_node(namespace: str, image: str, frame: str) -> Node:
    """Return RViz, with the layout of `config/` for a node and a camera; see `viewers.layout`.

    Raises:
        FileNotFoundError: RViz is not installed.
    """
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            'RViz is not installed: apt install ros-$ROS_DISTRO-rviz2, or leave rviz:=true out'
        ) from error
    with NamedTemporaryFile('w', prefix='clipseg_', suffix='.rviz', delete=False) as file:
        file.write(layout('clipseg.rviz', namespace, image, frame))
    return Node(package='rviz2', executable='rviz2', arguments=['-d', file.name])


def _is_true(name: str, value: str) -> bool:
    wish = value.strip().lower()
    if wish not in ('true', 'false'):
        raise ValueError(f'{name}:={value}: give true or false')
    return wish == 'true'


def include_segment(arguments: Mapping[str, Any]) -> IncludeLaunchDescription:
    """Return `segment.launch.py`, with values for its arguments."""
    path = share_path('launch', 'segment.launch.py')
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(path)), launch_arguments=arguments.items()
    )
