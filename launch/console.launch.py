"""Starts the page of running nodes `segment`: see docs/console.md.

For example, for two cameras, to be opened from other machines::

    ros2 launch clipseg_ros console.launch.py nodes:='/front/clipseg /back/clipseg' host:=0.0.0.0
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from clipseg_ros.ros.launch_support import declare, values_of

ARGUMENTS = {
    'namespace': ('', 'Namespace of nodes that are given without one.'),
    'nodes': ('clipseg', 'Names of the nodes, separated by blanks; the first is shown first.'),
    'host': ('127.0.0.1', 'Address to listen on. Beyond this machine, a token is demanded.'),
    'port': ('8088', 'Port of the page; 0 takes one that is free.'),
    'view': ('false', 'Whether browsers may look only.'),
    'allow_host': ('', 'A name of this machine that browsers may use.'),
}


def start_console(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the process.

    Raises:
        ValueError: `view` is neither true nor false.
    """
    value = values_of(context, ARGUMENTS)
    words = [f'--host={value["host"]}', f'--port={value["port"]}']
    words += [f'--namespace={value["namespace"]}']
    for name in value['nodes'].split():
        words += ['--node', name]
    if value['allow_host']:
        words.append(f'--allow-host={value["allow_host"]}')
    view = value['view'].strip().lower()
    if view not in ('true', 'false'):
        raise ValueError(f'view:={value["view"]}: give true or false')
    if view == 'true':
        words.append('--view')
    process = Node(
        package='clipseg_ros', executable='console', arguments=words, output='screen',
        emulate_tty=True,
    )  # fmt: skip
    return [process]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the process."""
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_console)])
