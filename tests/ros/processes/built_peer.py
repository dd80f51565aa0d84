"""Talks to a built node with its own messages; run in the environment that colcon made.

Prints one JSON object on what came back.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

import clipseg_ros.msg
from clipseg_ros.images.conversion import array_to_image, image_to_rgb
from clipseg_ros.msg import Prompt, PromptArray, SegmentArray
from clipseg_ros.srv import SetPrompts

TIMEOUT = 60.0

rclpy.init(args=[])
node = rclpy.create_node('built_peer')
camera = node.create_publisher(Image, '/image', 1)
masks: list[Image] = []
segments: list[SegmentArray] = []
prompts: list[PromptArray] = []
node.create_subscription(Image, '/clipseg/mask', masks.append, 1)
node.create_subscription(SegmentArray, '/clipseg/segments', segments.append, 1)
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(PromptArray, '/clipseg/prompts', prompts.append, latched)


def wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        rclpy.spin_once(node, timeout_sec=0.05)
        if time.monotonic() > deadline:
            sys.exit(f'no {what} within {TIMEOUT} s')


client = node.create_client(SetPrompts, '/clipseg/set_prompts')
wait(client.service_is_ready, 'service')
request = SetPrompts.Request()
request.prompts = [Prompt(name='cup', phrase='the mug', threshold=0.25), Prompt(phrase='red bowl')]
answer = client.call_async(request)
wait(answer.done, 'answer')
wait(lambda: prompts and len(prompts[-1].prompts) == 2, 'prompts')

picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def send_until_answered() -> bool:
    header = Header(stamp=node.get_clock().now().to_msg(), frame_id='eye')
    camera.publish(array_to_image(picture, 'rgb8', header))
    return bool(masks and segments)


wait(send_until_answered, 'mask')
print(
    json.dumps(
        {
            'messages_from': clipseg_ros.msg.__file__,
            'modules_from': clipseg_ros.images.conversion.__file__,
            'success': answer.result().success,
            'ids': [prompt.id for prompt in answer.result().prompts],
            'names': [prompt.name for prompt in prompts[-1].prompts],
            'thresholds': [prompt.threshold for prompt in prompts[-1].prompts],
            'mask': [*image_to_rgb(masks[0]).shape],
            'frame': masks[0].header.frame_id,
            'segments': [segment.name for segment in segments[0].segments],
            'size': [segments[0].width, segments[0].height],
        }
    )
)
node.destroy_node()
rclpy.shutdown()
