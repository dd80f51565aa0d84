"""Stands in for tf2_ros, which pip does not have: as much of it as the node uses.

It listens to geometry_msgs/TransformStamped on /tf_stand_in, and knows a transform only in the
direction in which it was published, at any time.
"""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import TransformStamped


class TransformException(Exception):
    pass


class Buffer:
    def __init__(self) -> None:
        self.known: dict[tuple[str, str], TransformStamped] = {}

    def lookup_transform(self, target: str, source: str, time_point: Any, timeout: Any) -> Any:
        deadline = time.monotonic() + timeout.nanoseconds * 1e-9
        while time.monotonic() < deadline:
            if (target, source) in self.known:
                return self.known[target, source]
            time.sleep(0.01)
        raise TransformException(f'"{target}" passed to lookupTransform does not exist')


class TransformListener:
    def __init__(self, buffer: Buffer, node: Any) -> None:
        def take(message: TransformStamped) -> None:
            # The header names the frame that points are moved to.
            buffer.known[message.header.frame_id, message.child_frame_id] = message

        self._node = node
        self._subscription = node.create_subscription(TransformStamped, '/tf_stand_in', take, 10)

    def unregister(self) -> None:
        self._node.destroy_subscription(self._subscription)
