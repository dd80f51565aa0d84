"""Bags for tests: recorded with rosbags, segmented with `clipseg bag`, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from click.testing import Result
from rclpy.serialization import serialize_message
from ros_peers import picture
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from typer.testing import CliRunner

from clipseg_ros.cli import app
from clipseg_ros.images.conversion import array_to_image

PROMPTS = ['the mug', 'red bowl']
TYPES = {Image: 'sensor_msgs/msg/Image', CompressedImage: 'sensor_msgs/msg/CompressedImage',
         String: 'std_msgs/msg/String'}  # fmt: skip


def clipseg(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    # Users see messages, not tracebacks.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def stamped(number: int, encoding: str = 'rgb8') -> Image:
    """One of the images of a camera: another picture, stamp and log time each."""
    header = Header(frame_id='lens')
    header.stamp.sec, header.stamp.nanosec = 100 + number, 5_000_000 * number
    image = array_to_image(picture(90, 120, seed=number), 'rgb8', header)
    if encoding == 'bgr8':
        image.encoding = 'bgr8'
        image.data = np.ascontiguousarray(picture(90, 120, seed=number)[..., ::-1]).tobytes()
    return image


def compressed(image: Image) -> CompressedImage:
    rgb = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
    _, png = cv2.imencode('.png', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return CompressedImage(header=image.header, format='rgb8; png', data=png.tobytes())


def record(
    path: Path, messages: list[tuple[str, Any]], storage: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    """Writes messages as ROS serializes them; the log time is 1 ms after the stamp."""
    store = get_typestore(Stores.LATEST)
    connections: dict[str, Any] = {}
    with Writer(path, version=8, storage_plugin=storage) as writer:
        for number, (topic, message) in enumerate(messages):
            if topic not in connections:
                kind = TYPES[type(message)]
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            log_time = 1_000_000 + 33_000_000 * number
            writer.write(connections[topic], log_time, serialize_message(message))
    return path


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Log times and messages of every topic."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([path]) as reader:
        for connection, log_time, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((log_time, message))
    return found


def pixels(message: Any) -> np.ndarray[Any, Any]:
    dtype, channels = {'mono8': ('u1', 1), '32FC1': ('<f4', 1), 'rgb8': ('u1', 3)}[message.encoding]
    assert message.step == message.width * channels * np.dtype(dtype).itemsize
    return message.data.view(dtype).reshape(message.height, message.width, channels).squeeze()
