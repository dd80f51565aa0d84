"""Moving points from one frame to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_ros.errors import DepthError

# Quaternions travel in messages as they were written; rounding to six digits is harmless.
_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RigidTransform:
    """A rotation, then a translation.

    Attributes:
        rotation: float64 (3, 3).
        translation: Metres, float64 (3,).
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    @classmethod
    def of_message(cls, transform: Any) -> RigidTransform:
        """Reads a ``geometry_msgs/Transform``.

        Raises:
            DepthError: A value is not finite, or the quaternion is not of length 1.
        """
        t, q = transform.translation, transform.rotation
        translation = np.array([t.x, t.y, t.z], np.float64)
        x, y, z, w = quaternion = np.array([q.x, q.y, q.z, q.w], np.float64)
        norm = float(np.linalg.norm(quaternion))
        # Not a number fails every comparison.
        if not (np.isfinite(translation).all() and abs(norm - 1.0) <= _NORM_TOLERANCE):
            raise DepthError(
                'transform',
                f'the transform has translation {translation.tolist()} and a quaternion of length '
                f'{norm:g}, which has to be 1: look for who publishes it on /tf or /tf_static',
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
        """Returns points float32 (N, 3) in the other frame."""
        moved = points.astype(np.float64) @ self.rotation.T + self.translation
        return moved.astype(np.float32)
