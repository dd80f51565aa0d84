# ruff: noqa: E402 - the process is tuned before torch is imported
"""What a frame costs beyond the model: conversion, masks and publishing, to another process.

    python tests/ros/overhead.py [--size 1280x720] [--prompts 4] [--frames 60]

The model is replaced by one that answers at once. Times are of one frame, in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE',
                      str(Path(__file__).parents[2] / 'config' / 'fastdds.xml'))  # fmt: skip

from clipseg_ros.ros.domain import claimed_domain
from clipseg_ros.ros.tuning import tune_process

tune_process()

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState
from ros_peers import wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_ros.images.conversion import array_to_image, image_to_rgb
from clipseg_ros.outputs.publishers import SegmentOutputs
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.ros.qos import QosWatch, image_output
from clipseg_ros.ros.runner import spin
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import SegmentationPipeline

CASES = (
    ('mask',),
    ('mask', 'labels', 'confidence'),
    ('mask', 'labels', 'confidence', 'probability', 'overlay'),
)


class InstantModel:
    """Answers with logits made beforehand."""

    def __init__(self, prompts: int) -> None:
        generator = np.random.default_rng(0)
        coarse = generator.normal(-1, 3, (prompts, 8, 8)).astype(np.float32)
        self.logits = [cv2.resize(logits, (256, 256)) for logits in coarse]

    def segment(self, image: Any, prompts: list[Prompt], *_: Any) -> Segmentation:
        height, width = image.shape[:2]
        results = [
            PromptResult(prompt, 0.5, 0.9, True, np.asarray(logits), height, width)
            for prompt, logits in zip(prompts, self.logits, strict=True)
        ]
        return Segmentation(height, width, results, 'instant')


def listen(topics: list[str]) -> None:
    """The other process: takes what comes."""
    rclpy.init()
    node = rclpy.create_node('listener')
    for topic in topics:
        node.create_subscription(Image, f'/clipseg/{topic}', lambda message: None, image_output())
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spin(executor)
    rclpy.try_shutdown()


def milliseconds(action: Any, frames: int) -> float:
    times = []
    for _ in range(frames):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
        time.sleep(0.01)
    return 1e3 * median(times)


def measure(width: int, height: int, prompts: int, frames: int) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = array_to_image(rgb, 'rgb8', Header())
    print(f'{width} × {height}, {prompts} prompts, median of {frames} frames, milliseconds')
    print(f'{milliseconds(lambda: image_to_rgb(image), frames):8.2f}  image_to_rgb, rgb8')
    image.encoding = 'bgr8'
    print(f'{milliseconds(lambda: image_to_rgb(image), frames):8.2f}  image_to_rgb, bgr8')

    rclpy.init()
    node = LifecycleNode('clipseg')
    outputs = SegmentOutputs(node, QosWatch(node), None)
    LifecycleNode.on_activate(node, LifecycleState('inactive', 2))
    prompt_set = PromptSet()
    prompt_set.replace([PromptRequest(Prompt(f'thing {n}')) for n in range(prompts)])
    settings = Settings()
    model: Any = InstantModel(prompts)
    pipeline = SegmentationPipeline(model, prompt_set, outputs, lambda: settings, lambda: 0)
    for topics in CASES:
        listener = subprocess.Popen([sys.executable, __file__, '--listen', *topics])
        try:
            wait_until(lambda topics=topics: sorted(outputs.wanted()) == sorted(topics), 30)
            found = pipeline.process(image)
            assert found is not None
            first = milliseconds(lambda found=found: pipeline.publish(found), frames)
            frame = pipeline.publish(found)
            assert frame is not None
            second = milliseconds(lambda frame=frame: pipeline.finish(frame), frames)
        finally:
            listener.terminate()
            listener.wait(10)
        wait_until(lambda: not outputs.wanted(), 20)
        print(f'{first:8.2f}  publishing, {second:.2f}  what can wait: {", ".join(topics)}')
    outputs.destroy()
    node.destroy_node()
    rclpy.try_shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', default='1280x720')
    parser.add_argument('--prompts', type=int, default=4)
    parser.add_argument('--frames', type=int, default=60)
    parser.add_argument('--listen', nargs='+')
    options = parser.parse_args()
    if options.listen:
        listen(options.listen)
        return
    width, height = (int(side) for side in options.size.split('x'))
    with claimed_domain() as domain:
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        measure(width, height, options.prompts, options.frames)


if __name__ == '__main__':
    main()
