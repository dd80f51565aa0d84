"""A subscriber that asks for more than a topic of the node offers, until it is interrupted.

python demanding_peer.py TOPIC PACKAGE/msg/NAME durability|deadline

For types that the process of the tests cannot import.
"""

from __future__ import annotations

import importlib
import sys

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSDurabilityPolicy, QoSProfile


def main() -> None:
    topic, kind, policy = sys.argv[1:]
    package, _, name = kind.split('/')
    message = getattr(importlib.import_module(f'{package}.msg'), name)
    demanding = {
        'durability': QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL),
        'deadline': QoSProfile(depth=1, deadline=Duration(seconds=0.5)),
    }
    rclpy.init()
    node = rclpy.create_node('peer')
    node.create_subscription(message, topic, lambda _: None, demanding[policy])
    print('listening', flush=True)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        node.destroy_node()


if __name__ == '__main__':
    main()
