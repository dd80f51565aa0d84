"""Bags for tests: recorded with rosbags, segmented with `clipseg bag`, and read back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from click.testing import Result
from rclpy.serialization import serialize_message
from ros_peers import picture
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from typer.testing import CliRunner

from clipseg_ros.bag.reading import open_camera
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
    path: Path,
    messages: list[tuple[str, Any]],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    """Writes messages as ROS serializes them; bytes as they are, as images; of None, the topic."""
    store = get_typestore(Stores.LATEST)
    connections: dict[str, Any] = {}
    writer = Writer(path, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        for number, (topic, message) in enumerate(messages):
            if topic not in connections:
                kind = TYPES.get(type(message), 'sensor_msgs/msg/Image')
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            if message is None:
                continue
            log_time = 1_000_000 + 33_000_000 * number
            data = message if isinstance(message, bytes) else serialize_message(message)
            writer.write(connections[topic], log_time, data)
    return path


def images(count: int = 3) -> list[tuple[str, Any]]:
    return [('/image', stamped(number)) for number in range(count)]


def segment(bag: Path, out: Path, model: Path, *others: object) -> Result:
    """`clipseg bag` for masks alone."""
    return clipseg('bag', bag, '-p', 'mug', '-o', out, '-m', model, '--outputs', 'mask', *others)


def stamps(bag: Path) -> list[int]:
    """Of the masks of a bag that was written, whatever its path is."""
    with open_camera(bag, '/clipseg/mask') as camera:
        return [camera.read(kind, data).header.stamp.sec for _, kind, data in camera.messages()]


def file_of(bag: Path) -> Path:
    (file,) = (path for path in bag.iterdir() if path.name != 'metadata.yaml')
    return file


def change_metadata(bag: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bag / 'metadata.yaml'
    content = yaml.safe_load(path.read_text())
    change(content['rosbag2_bagfile_information'])
    path.write_text(yaml.safe_dump(content))


def mcap_records(path: Path) -> list[tuple[int, bytes]]:
    """Opcode and content of the records of an MCAP file, with chunks as they are."""
    data, position, found = path.read_bytes(), 8, []
    while position < len(data) - 8:
        opcode, size = struct.unpack_from('<BQ', data, position)
        found.append((opcode, data[position + 9 : position + 9 + size]))
        position += 9 + size
    return found


def write_mcap(path: Path, records: list[tuple[int, bytes]]) -> None:
    """Writes records; the footer is told where the summary begins: after DataEnd, if at all."""
    content, summary = b'\x89MCAP0\r\n', 0
    for number, (opcode, record) in enumerate(records):
        if opcode == 0x02:
            record = struct.pack('<QQI', summary, 0, 0)
        content += struct.pack('<BQ', opcode, len(record)) + record
        if opcode == 0x0F and records[number + 1][0] != 0x02:
            summary = len(content)
    path.write_bytes(content + b'\x89MCAP0\r\n')


def text(value: bytes | str) -> bytes:
    """A string in a record of MCAP."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack('<I', len(data)) + data


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
