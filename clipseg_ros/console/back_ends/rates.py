"""How fast pictures come, and how old they are. No ROS in here."""

from __future__ import annotations

import time
from collections import deque

_SECONDS = 3.0


class Rates:
    """Frame rate, latency and age over the last seconds."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, float, float]] = deque(maxlen=400)

    def add(self, latency: float, age: float) -> None:
        """Take note of a picture: seconds that it took, and seconds since it was taken."""
        self._frames.append((time.monotonic(), latency, age))

    def texts(self) -> dict[str, str]:
        """Return ``fps``, ``latency_ms`` and ``age_ms`` as texts; none while no pictures come."""
        now = time.monotonic()
        recent = [frame for frame in tuple(self._frames) if now - frame[0] < _SECONDS]
        if not recent:
            return {}
        span = max(now - recent[0][0], 1e-3) if len(recent) > 1 else _SECONDS
        return {
            'fps': f'{len(recent) / span:.1f}',
            'latency_ms': f'{1e3 * sum(frame[1] for frame in recent) / len(recent):.0f}',
            'age_ms': f'{1e3 * recent[-1][2]:.0f}',
        }
