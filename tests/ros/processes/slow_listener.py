"""Takes its time over every mask; prints how old each was when it came, seconds.

python slow_listener.py TOPIC SECONDS
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image


def main() -> int:
    topic, seconds = sys.argv[1], float(sys.argv[2])
    rclpy.init(args=[])
    node = rclpy.create_node('slow_listener')

    def take(message: Any) -> None:
        stamp = message.header.stamp
        print(f'age {time.time() - stamp.sec - stamp.nanosec * 1e-9:.3f}', flush=True)
        time.sleep(seconds)

    node.create_subscription(Image, topic, take, QoSProfile(depth=1))
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
