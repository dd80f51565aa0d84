"""The demo's launch file with launch itself: both nodes come up, masks flow, all end cleanly."""

from __future__ import annotations

import time
import unittest
from pathlib import Path
from typing import Any

import pytest

REASON = 'launch_testing comes with a ROS 2 installation, not with the pip wheels'
pytest.importorskip('launch_testing', reason=REASON)
pytest.importorskip('launch_ros', reason=REASON)

import launch_testing
import launch_testing.asserts
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_testing.actions import ReadyToTest
from sensor_msgs.msg import Image

LAUNCH_FILE = Path(__file__).parents[3] / 'launch' / 'demo.launch.py'


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    """Returns the demo in a namespace, with one prompt."""
    arguments = {'namespace': 'robot1', 'prompt': 'the mug', 'device': 'cpu'}
    demo = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=arguments.items()
    )
    return LaunchDescription([demo, ReadyToTest()])


class TestWhileItRuns(unittest.TestCase):
    def setUp(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node('listener')

    def tearDown(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()

    def receive(self, topic: str, timeout: float = 90.0) -> Any:
        received: list[Image] = []
        self.node.create_subscription(Image, topic, received.append, 1)
        deadline = time.monotonic() + timeout
        while not received and time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.1)
        assert received, f'nothing on {topic} within {timeout} s'
        return received[0]

    def test_masks_come(self) -> None:
        image = self.receive('/robot1/image')
        mask = self.receive('/robot1/clipseg/mask')
        assert mask.encoding == 'mono8'
        assert (mask.width, mask.height) == (image.width, image.height)
        assert mask.header.frame_id == image.header.frame_id


@launch_testing.post_shutdown_test()
class TestAfterwards(unittest.TestCase):
    def test_all_ended_cleanly(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
