"""Transforms between TF frames: what they are, and tf2 where a ROS installation has it."""

from __future__ import annotations

import importlib
import importlib.util
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.time import Time

from clipseg_ros.errors import DepthError

TF2_MISSING = (
    'target_frame is set, but tf2_ros is not installed here (pip has none). Remedy: '
    '`apt install ros-$ROS_DISTRO-tf2-ros-py` and start again'
)

CLOSED = 'closed'
"""Kind of the error where nobody needs transforms any more, or not yet: no fault of theirs."""

_PATIENCE = 0.1  # Seconds that a transform may be late.
# Quaternions travel in messages as they were written; rounding to six digits is harmless.
_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RigidTransform:
    """A rotation, (3, 3), followed by a translation, (3,) in metres."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    @classmethod
    def of_message(cls, transform: Any) -> RigidTransform:
        """Read a ``geometry_msgs/Transform``.

        Raises:
            DepthError: A value is not finite, or the quaternion is not of length 1.
        """
        t, q = transform.translation, transform.rotation
        translation = np.array([t.x, t.y, t.z], np.float64)
        x, y, z, w = quaternion = np.array([q.x, q.y, q.z, q.w], np.float64)
        norm = float(np.linalg.norm(quaternion))
        # NaN fails every comparison.
        if not (np.isfinite(translation).all() and abs(norm - 1.0) <= _NORM_TOLERANCE):
            raise DepthError(
                'transform',
                f'the transform has translation {translation.tolist()} and a quaternion of length '
                f'{norm:g}, which has to be 1: mend whatever publishes it on /tf or /tf_static',
            )
        x, y, z, w = quaternion / norm
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        return cls(rotation, translation)

    def apply(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return points, float32 (N, 3), in the target frame."""
        moved = points.astype(np.float64) @ self.rotation.T + self.translation
        return moved.astype(np.float32)


class TransformLookup:
    """Subscribes to /tf and /tf_static while it is open, where tf2_ros is ``installed``.

    Attributes:
        opened: When it was last opened, seconds of the monotonic clock.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._buffer: Any = None
        self._listener: Any = None
        self.opened = 0.0
        self.installed = importlib.util.find_spec('tf2_ros') is not None

    def open(self) -> None:
        """Subscribe, unless tf2 is missing or it is open already."""
        if self.installed and self._listener is None:
            tf2_ros = importlib.import_module('tf2_ros')
            self.opened = time.monotonic()
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def close(self) -> None:
        """Unsubscribe."""
        if self._listener is not None:
            self._listener.unregister()
        self._buffer = self._listener = None

    def find(
        self, target: str, source: str, stamp: Any, patience: float = _PATIENCE
    ) -> RigidTransform:
        """Return the transform between two TF frames at a ``builtin_interfaces/Time``.

        Waits ``patience`` seconds for one that is late. Do not call it in the executor's thread,
        which receives the transforms.

        Raises:
            DepthError: tf2 is not installed, or has no such transform; of the kind :data:`CLOSED`
                where the lookup is not open.
        """
        buffer = self._buffer
        if not self.installed:
            raise DepthError('transform', TF2_MISSING)
        if buffer is None:
            raise DepthError(CLOSED, 'transforms are not listened to, as nobody needs them')
        tf2_ros = importlib.import_module('tf2_ros')
        try:
            found = buffer.lookup_transform(
                target, source, Time.from_msg(stamp), Duration(seconds=patience)
            )
        except tf2_ros.TransformException as error:
            raise DepthError(
                'transform',
                f'no transform from {source} to {target}: {error}',
            ) from error
        return RigidTransform.of_message(found.transform)
