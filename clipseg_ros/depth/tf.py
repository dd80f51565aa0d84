"""Transforms between frames, from tf2 where a ROS installation has it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from rclpy.duration import Duration
from rclpy.time import Time

from clipseg_ros.depth.rigid_transform import RigidTransform
from clipseg_ros.errors import DepthError

MISSING = (
    'target_frame is set, but tf2_ros is not installed here (pip has none): points stay in the '
    "camera's optical frame. Remedy: `apt install ros-$ROS_DISTRO-tf2-ros-py` and start again"
)

_PATIENCE = 0.1


class FrameLookup:
    """Listens to /tf and /tf_static while it is open.

    Args:
        node: Its executor runs the subscriptions; :meth:`find` is called from another thread.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._buffer: Any = None
        self._listener: Any = None
        self.installed = importlib.util.find_spec('tf2_ros') is not None

    def open(self) -> None:
        """Starts to listen; nothing happens without tf2, or where it is open."""
        if self.installed and self._listener is None:
            tf2_ros = importlib.import_module('tf2_ros')
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def close(self) -> None:
        """Stops to listen."""
        if self._listener is not None:
            self._listener.unregister()
        self._buffer = self._listener = None

    def find(self, target: str, source: str, stamp: Any) -> RigidTransform:
        """Returns the transform from a frame to another one at a time.

        Waits a tenth of a second for one that is on its way. Not to be called by the executor's
        own thread.

        Args:
            target: Frame of the answer.
            source: Frame of the points.
            stamp: A ``builtin_interfaces/Time``.

        Raises:
            DepthError: tf2 is not installed, or cannot supply it.
        """
        buffer = self._buffer
        if buffer is None:
            raise DepthError('transform', MISSING)
        tf2_ros = importlib.import_module('tf2_ros')
        try:
            found = buffer.lookup_transform(
                target, source, Time.from_msg(stamp), Duration(seconds=_PATIENCE)
            )
        except tf2_ros.TransformException as error:
            raise DepthError(
                'transform',
                f'no transform from {source} to {target}, so points stay in {source}: {error}',
            ) from error
        return RigidTransform.of_message(found.transform)
