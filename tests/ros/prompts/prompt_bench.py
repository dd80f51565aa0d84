"""What the tests of prompts between processes share: a camera, a prompter and listeners."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from ros_peers import (
    NodeProcess,
    Peer,
    picture,
    stamp_of,
    told_of_prompts,
    until_answered,
    wait_until,
)
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import String

from clipseg_model.registry import create_model
from clipseg_ros.ros.qos import command_input, image_output

BOTH = 'the mug; red bowl'
RGB = picture(120, 160, seed=5)


class Bench:
    """A camera, a prompter and listeners around a node."""

    def __init__(self, node: NodeProcess, peer: Peer) -> None:
        self.node, self.peer = node, peer
        self.received = {
            name: peer.collect(Image, f'/live/clipseg/{name}', image_output())
            for name in ('labels', 'mask', 'probability')
        }
        self.images = peer.publisher(Image, '/live/image', image_output())
        commands = (
            ('prompt', String),
            ('prompt_image', Image),
            ('prompt_mask', Image),
            ('pick_point', Point),
            ('pick_box', RegionOfInterest),
        )
        self.commands = {
            name: peer.publisher(kind, f'/live/clipseg/{name}', command_input())
            for name, kind in commands
        }
        until_answered(self.images, peer.stamped(RGB), *self.received.values())

    def send(self, name: str, message: Any, expected: str) -> str:
        """Publishes on a topic of prompts; returns the line of the log that answers."""
        since = len(self.node.lines)
        self.commands[name].publish(message)
        return self.node.wait_for(expected, since=since)

    def prompt(self, text: str, expected: str = 'active') -> str:
        since = len(self.node.lines)
        self.commands['prompt'].publish(String(data=text))
        return told_of_prompts(self.node, self.peer, '/live/clipseg', text, expected, since)

    def show(self, rgb: NDArray[np.uint8] = RGB, at: float | None = None) -> dict[str, Any]:
        """Publishes one image once; returns the pixels of what answers it.

        Args:
            rgb: The image.
            at: Its stamp, seconds; now where None.
        """
        image = self.peer.stamped(rgb)
        if at is not None:
            image.header.stamp.sec = int(at)
            image.header.stamp.nanosec = round((at - int(at)) * 1e9)
        for messages in self.received.values():
            messages.clear()
        self.images.publish(image)

        def answers() -> dict[str, Image]:
            return {
                name: message
                for name, messages in self.received.items()
                for message in list(messages)
                if stamp_of(message) == stamp_of(image)
            }

        wait_until(lambda: len(answers()) == len(self.received), what='answers')
        return {
            name: np.frombuffer(
                message.data, np.float32 if message.encoding == '32FC1' else np.uint8
            ).reshape(message.height, message.width)
            for name, message in answers().items()
        }

    def set(self, **parameters: Any) -> None:
        for name, value in parameters.items():
            result = self.peer.set_parameter('/live/clipseg', name, value)
            assert result.successful, result.reason


def probability_of(model: Path, prompts: list[Any], **options: Any) -> NDArray[np.float32]:
    segmenter = create_model(model, 'cpu')
    for name, value in options.items():
        setattr(segmenter, name, value)
    return segmenter.segment(RGB, prompts).probability()


def support(peer: Peer, stamp: int = 0) -> tuple[Image, Image, NDArray[np.uint8], NDArray[Any]]:
    """A support image and its mask, as messages of one stamp and as arrays."""
    rgb, mask = picture(60, 80, seed=9), np.zeros((60, 80), np.uint8)
    mask[15:30, 20:40] = 1
    image, marked = peer.stamped(rgb), peer.stamped(mask, 'mono8')
    image.header.stamp.sec = marked.header.stamp.sec = stamp
    image.header.stamp.nanosec = marked.header.stamp.nanosec = 0
    return image, marked, rgb, mask


def close(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.allclose(one, other, atol=1e-4))


def flood(bench: Bench, topic: str, messages: Iterable[Any]) -> set[tuple[int, int]]:
    """Publish messages at 1,000 a second, and an image with every hundredth.

    Returns:
        The stamps of the images.
    """
    stamps, started = set(), time.monotonic()
    for number, message in enumerate(messages):
        bench.commands[topic].publish(message)
        if number % 100 == 50:
            image = bench.peer.stamped(RGB)
            stamps.add(stamp_of(image))
            bench.images.publish(image)
        time.sleep(max(0.0, started + (number + 1) / 1000 - time.monotonic()))
    return stamps
