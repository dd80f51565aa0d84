"""Stands in for the node `segment` in the tests of the demo: it knows the truth of the scenes.

Its answers are right, or as wrong as the parameter `answer` says: `right`, `everything`
(the whole picture), `end` (it ends when it is asked), or `end of overlays` (when it should draw).
"""

from __future__ import annotations

import sys

import numpy as np
import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from clipseg_ros.demo.scenes import make_scene
from clipseg_ros.images.conversion import array_to_image, image_to_rgb


class Oracle(Node):
    def __init__(self, answer: str, seeds: list[int], width: int, height: int) -> None:
        super().__init__('clipseg')
        self.answer = answer
        scenes = [make_scene(seed, width, height) for seed in seeds]
        self.truths = {q.text: q.truth for scene in scenes for q in scene.questions}
        self.declare_parameter('prompt', '', ParameterDescriptor(dynamic_typing=True))
        self.mask = self.create_publisher(Image, '~/mask', 1)
        self.overlay = self.create_publisher(Image, '~/overlay', 1)
        self.add_on_set_parameters_callback(self.on_prompt)
        self.create_subscription(Image, 'image', self.on_image, 1)
        self.create_service(GetState, '~/get_state', self.on_get_state)
        print('oracle ready', flush=True)

    def on_get_state(self, request: GetState.Request, response: GetState.Response) -> object:
        response.current_state = State(id=State.PRIMARY_STATE_ACTIVE, label='active')
        return response

    def on_prompt(self, _: list[Parameter]) -> SetParametersResult:
        if self.answer == 'end':
            raise SystemExit('the oracle has had enough')
        return SetParametersResult(successful=True)

    def on_image(self, message: Image) -> None:
        value = self.get_parameter('prompt').value
        prompts = [value] if isinstance(value, str) else list(value)
        rgb = image_to_rgb(message)
        mask = np.zeros(rgb.shape[:2], dtype=bool)
        for prompt in filter(None, prompts):
            mask |= self.truths[prompt]
        if self.answer == 'everything':
            mask[:] = True
        self.mask.publish(array_to_image(np.uint8(255) * mask, 'mono8', message.header))
        if self.answer == 'end of overlays' and self.overlay.get_subscription_count():
            raise SystemExit('the oracle has had enough')
        self.overlay.publish(array_to_image(rgb, 'rgb8', message.header))


if __name__ == '__main__':
    wish, width, height, *seeds = sys.argv[1:]
    rclpy.init(args=[])
    oracle = Oracle(wish, [int(seed) for seed in seeds], int(width), int(height))
    try:
        rclpy.spin(oracle)
    except ExternalShutdownException:
        pass
    finally:
        oracle.destroy_node()
        rclpy.try_shutdown()
