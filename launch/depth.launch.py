"""Starts the node `segment` on a camera with depth: masks, points and positions.

The topics are those that most drivers have below the camera's name; give others as arguments.
For example, with a RealSense camera whose driver aligns depth to colour::

    ros2 launch clipseg_ros depth.launch.py camera:=/camera/camera prompt:='the mug'

and with one that is named otherwise::

    ros2 launch clipseg_ros depth.launch.py image:=/rgb/image depth:=/depth_to_rgb/image \
        camera_info:=/rgb/camera_info prompt:='the mug' target_frame:=base_link
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

# Beside this file both in a checkout and where it is installed.
LAUNCH = Path(__file__).parent
CONFIG = LAUNCH.parent / 'config'

TOPICS = {
    'image': 'color/image_raw',
    'depth': 'aligned_depth_to_color/image_raw',
    'camera_info': 'color/camera_info',
}
ARGUMENTS = {
    'camera': ('/camera/camera', 'Namespace of the camera, before the topics that are not given.'),
    'image': ('', f'Its image topic. Empty: {TOPICS["image"]} below camera.'),
    'depth': ('', f'Its depth topic, registered to the image. Empty: {TOPICS["depth"]} likewise.'),
    'camera_info': ('', f'Its calibration topic. Empty: {TOPICS["camera_info"]} likewise.'),
    'namespace': ('', 'Namespace of the node.'),
    'params_file': (str(CONFIG / 'segment.yaml'), 'Parameters of the node, a YAML file.'),
    'use_sim_time': ('false', 'Whether time comes from /clock: true in a simulation.'),
    'autostart': ('true', 'Whether the node configures and activates itself.'),
    'log_level': ('info', 'Least severe messages to log: debug, info, warn, error or fatal.'),
    'prompt': ('', 'What to segment; `;` separates several. Empty: as in params_file.'),
    'model': ('', 'Name of a model, or path of a checkpoint. Empty: as in params_file.'),
    'device': ('', 'auto, cpu, cuda or cuda:N. Empty: as in params_file.'),
    'target_frame': ('', 'Frame of points and positions, by tf2. Empty: as in params_file.'),
}


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Returns the node, on the camera's topics."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    camera = value.pop('camera').rstrip('/')
    topics = {name: value[name] or f'{camera}/{topic}' for name, topic in TOPICS.items()}
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(LAUNCH / 'segment.launch.py')),
            launch_arguments={**value, **topics}.items(),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Returns the arguments and the node."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=start_node),
        ]
    )
