"""The camera of the node's benchmark: pictures of a size, at a rate, for a while, and a report.

    python -m training.benchmarks.node_peers.camera --width 1280 --height 720 --rate 30 --seconds 10

The pictures are always the same and serialised beforehand, so that they cost about as much as in a
driver written in C++. Each is stamped right before it is published. The last line of output is
JSON: the stamps of all pictures (nanoseconds) and how many were left out because the machine was
too slow.
"""

from __future__ import annotations

import argparse
import json
import struct
import time

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.process.tuning import keep_large_buffers
from clipseg_ros.ros.qos import image_output

_MATCH_TIMEOUT = 30.0


def smooth_noise(height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture with structure of all sizes, uint8 (height, width, 3); always the same."""
    generator = np.random.default_rng(0)
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64):
        grid = generator.normal(0.0, 30.0, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + 128.0, 0, 255).astype(np.uint8)


def publish(width: int, height: int, rate: float, seconds: float) -> tuple[list[int], int]:
    """Publish pictures on ``image``, once there is a subscriber.

    Args:
        width: Pixels.
        height: Pixels.
        rate: Pictures a second.
        seconds: How long.

    Returns:
        The stamps, nanoseconds, and how many pictures were left out.

    Raises:
        TimeoutError: If there is no subscriber in time.
    """
    node = rclpy.create_node('bench_camera')
    publisher = node.create_publisher(Image, 'image', image_output())
    picture = array_to_image(smooth_noise(height, width), 'rgb8', Header(frame_id='camera'))
    message = bytearray(serialize_message(picture))
    # The stamp is the first field, after four bytes of which the second has the byte order.
    seconds_and_nanoseconds = struct.Struct('<iI' if message[1] & 1 else '>iI')
    deadline = time.monotonic() + _MATCH_TIMEOUT
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            raise TimeoutError(f'nobody subscribed to image within {_MATCH_TIMEOUT:g} s')
        time.sleep(0.02)
    print('publishing', flush=True)
    stamps: list[int] = []
    left_out, number, started = 0, 0, time.monotonic()
    while number < rate * seconds:
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        stamp = time.time_ns()
        seconds_and_nanoseconds.pack_into(message, 4, *divmod(stamp, 1_000_000_000))
        publisher.publish(bytes(message))
        stamps.append(stamp)
        due = max(number + 1, int((time.monotonic() - started) * rate))
        left_out += due - number - 1
        number = due
    # Subscribers have to fetch the last picture before the publisher's memory is gone.
    time.sleep(0.5)
    node.destroy_node()
    return stamps, left_out


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument('--width', type=int, required=True, help='pixels')
    parser.add_argument('--height', type=int, required=True, help='pixels')
    parser.add_argument('--rate', type=float, required=True, help='pictures a second')
    parser.add_argument('--seconds', type=float, required=True, help='how long')
    options = parser.parse_args(arguments)
    keep_large_buffers()
    rclpy.init(args=[])
    try:
        stamps, left_out = publish(options.width, options.height, options.rate, options.seconds)
    finally:
        rclpy.try_shutdown()
    print(json.dumps({'stamps': stamps, 'left_out': left_out}), flush=True)


if __name__ == '__main__':
    main()
