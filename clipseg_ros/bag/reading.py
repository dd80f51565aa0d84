"""Opening ROS 2 bags, and reading the images of one of their topics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg_ros.bag.messages import message_store
from clipseg_ros.errors import BagError
from clipseg_ros.images.conversion import compressed_to_rgb, image_to_rgb

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

CONVERTERS: dict[str, Callable[[Any], NDArray[np.uint8]]] = {
    'sensor_msgs/msg/Image': image_to_rgb,
    'sensor_msgs/msg/CompressedImage': compressed_to_rgb,
}
"""Type of message → conversion to RGB uint8 (H, W, 3)."""


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """Open a bag: a folder with metadata.yaml, or an .mcap or .db3 file.

    Raises:
        BagError: It is not there, is no ROS 2 bag, is damaged, or `rosbags` or a message of
            clipseg_ros is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
    except ImportError as error:
        raise BagError(
            'bags are read with the library rosbags, which is not installed: pip install '
            "'clipseg_ros[bag]'"
        ) from error
    if not path.exists():
        raise BagError(f'{path}: there is no such bag')
    if path.suffix == '.bag':
        raise BagError(
            f'{path} is a bag of ROS 1: convert it first, `rosbags-convert --src {path}`'
        )
    try:
        with AnyReader([path], default_typestore=message_store()) as reader:
            yield reader
    except (AnyReaderError, FileNotFoundError) as error:
        raise BagError(
            f'{path} cannot be read as a ROS 2 bag (a folder with metadata.yaml, or an .mcap or '
            f'.db3 file): {error}'
        ) from error


def find_camera(reader: AnyReader, topic: str | None) -> list[Connection]:
    """Return the connections of an image topic of a bag; of the only one where ``topic`` is None.

    Raises:
        BagError: There is none, or none of that name, or more than one to choose from.
    """
    cameras: dict[str, list[Connection]] = {}
    for connection in reader.connections:
        if connection.msgtype in CONVERTERS:
            cameras.setdefault(connection.topic, []).append(connection)
    listed = ', '.join(sorted(cameras)) or 'none'
    if topic is None:
        if len(cameras) == 1:
            return next(iter(cameras.values()))
        hint = 'name one with --topic' if cameras else 'record one'
        raise BagError(f'the image topics of the bag are: {listed}; {hint}')
    if topic not in cameras:
        raise BagError(f'{topic} is not an image topic of the bag; these are: {listed}')
    return cameras[topic]
