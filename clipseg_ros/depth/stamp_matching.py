"""Find the depth of each segmented frame by its stamp.

A frame may take longer than a few periods of the camera, and its depth may come before it, with it
or after its result. So the stamp of a frame is announced when work on it begins: from then on its
partners are kept, however long the model takes, and of everything else only the newest few. No ROS
in here, and no lock: whoever uses it from several threads holds one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

FrameT = TypeVar('FrameT')

_RECENT = 8
_PENDING = 8
_SAME_TIME = 1_000_000_000  # Nanoseconds.


@dataclass(frozen=True)
class Match(Generic[FrameT]):
    """A frame with its partners.

    Attributes:
        frame: As it was put.
        partners: Stream → its item.
        missing: Streams that have none → nanoseconds from the frame's stamp to the nearest one
            that came (negative is earlier), or None where none came at all.
    """

    frame: FrameT
    partners: dict[str, Any]
    missing: dict[str, int | None]


# Compared by identity: frames hold arrays.
@dataclass(eq=False)
class _Pending(Generic[FrameT]):
    """An announced stamp, and later its frame."""

    stamp: int
    partners: dict[str, tuple[int, Any]] = field(default_factory=dict)
    frame: FrameT | None = None
    put_at: float = 0.0
    given_up: bool = False


class StampMatcher(Generic[FrameT]):
    """Finds for each frame one item of every stream, of the same stamp or the nearest.

    Stamps are nanoseconds. Of several frames that are ready, the newest leaves and the older ones
    are dropped.

    Args:
        streams: Names of the streams.
        slop: Greatest difference of stamps, nanoseconds; 0 matches equal stamps alone.
        wait: Seconds that a frame waits for its partners.
        clock: Returns monotonic seconds.

    Attributes:
        counts: How many frames were ``matched`` (with all partners), ``unmatched`` (left or were
            dropped without one) and ``skipped`` (had all, and were dropped for a newer frame).
    """

    def __init__(
        self,
        streams: Sequence[str],
        slop: int = 0,
        wait: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slop, self.wait = slop, wait
        self._clock = clock
        self._recent: dict[str, deque[tuple[int, Any]]] = {
            stream: deque(maxlen=_RECENT) for stream in streams
        }
        self._pending: list[_Pending[FrameT]] = []
        self._standing: dict[str, tuple[int, Any]] = {}
        self.counts = {'matched': 0, 'unmatched': 0, 'skipped': 0}

    def expect(self, stamp: int) -> None:
        """Announce a frame whose partners are kept from now on."""
        if any(entry.stamp == stamp and entry.frame is None for entry in self._pending):
            return
        entry: _Pending[FrameT] = _Pending(stamp)
        for stream, items in self._recent.items():
            for item in items:
                self._offer(entry, stream, item)
        # Frames that failed never come, so the oldest announcement goes; waiting frames stay.
        announced = [other for other in self._pending if other.frame is None]
        if len(announced) >= _PENDING:
            self._pending.remove(announced[0])
        self._pending.append(entry)

    def add(self, stream: str, stamp: int, item: Any) -> None:
        """Take an item of a stream."""
        self._recent[stream].append((stamp, item))
        for entry in self._pending:
            self._offer(entry, stream, (stamp, item))

    def hold(self, stream: str, stamp: int, item: Any) -> None:
        """Take an item that serves all frames for which the stream has none of their own.

        Such as a calibration that is published once. A frame of another time does not wait for one
        of its own; one of about the same time does, since the stream may go on after all.
        """
        self._standing[stream] = (stamp, item)

    def forget(self) -> None:
        """Forget the items that have come: those of before a pause say nothing of what is near."""
        self._standing.clear()
        for items in self._recent.values():
            items.clear()

    def has(self, stream: str) -> bool:
        """Return whether an item is held that serves all frames."""
        return stream in self._standing

    def find(self, stamp: int) -> dict[str, Any]:
        """Return what there is now for a stamp, by stream, whether or not it was announced."""
        entry: _Pending[FrameT] = _Pending(stamp)
        for stream, items in self._recent.items():
            for item in items:
                self._offer(entry, stream, item)
        return self._partners(entry)

    def put(self, stamp: int, frame: FrameT) -> None:
        """Take a frame, announced or not; it waits for its partners."""
        self.expect(stamp)
        entry = next(e for e in self._pending if e.stamp == stamp and e.frame is None)
        # From here on in the order of arrival.
        self._pending.remove(entry)
        self._pending.append(entry)
        entry.frame, entry.put_at = frame, self._clock()
        waiting = [other for other in self._pending if other.frame is not None]
        for other in waiting[:-_PENDING]:
            other.given_up = True
        # Frames that should have been taken long ago: the thread that takes them is too slow.
        for other in waiting[: -2 * _PENDING]:
            self._drop(other)

    def take(self) -> Match[FrameT] | None:
        """Return the newest frame that need not wait any longer; None where all must."""
        now = self._clock()
        waiting = [entry for entry in self._pending if entry.frame is not None]
        complete = [entry for entry in waiting if not self._missing(entry)]
        chosen = complete or [entry for entry in waiting if self._is_over(entry, now)]
        if not chosen:
            return None
        entry = chosen[-1]
        partners = self._partners(entry)
        missing = [stream for stream in self._recent if stream not in partners]
        for other in waiting[: waiting.index(entry)]:
            self._drop(other)
        self._pending.remove(entry)
        self.counts['unmatched' if missing else 'matched'] += 1
        assert entry.frame is not None
        return Match(
            entry.frame,
            partners,
            {stream: self._nearest(stream, entry.stamp) for stream in missing},
        )

    def seconds_left(self) -> float | None:
        """Return after how long the next frame has waited enough; None where none waits."""
        ends = [entry.put_at + self.wait for entry in self._pending if entry.frame is not None]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def _offer(self, entry: _Pending[FrameT], stream: str, item: tuple[int, Any]) -> None:
        """Keep an item where it is the nearest so far; of equals the later one."""
        distance = abs(item[0] - entry.stamp)
        held = entry.partners.get(stream)
        if distance <= self.slop and (held is None or distance <= abs(held[0] - entry.stamp)):
            entry.partners[stream] = item

    def _drop(self, entry: _Pending[FrameT]) -> None:
        self._pending.remove(entry)
        self.counts['unmatched' if self._missing(entry) else 'skipped'] += 1

    def _missing(self, entry: _Pending[FrameT]) -> list[str]:
        """Return the streams that an entry waits for."""
        return [
            stream
            for stream in self._recent
            if stream not in entry.partners and not self._stands(stream, entry.stamp)
        ]

    def _stands(self, stream: str, stamp: int) -> bool:
        held = self._standing.get(stream)
        return held is not None and abs(stamp - held[0]) > _SAME_TIME

    def _partners(self, entry: _Pending[FrameT]) -> dict[str, Any]:
        found = {**self._standing, **entry.partners}
        return {stream: item for stream, (_, item) in found.items()}

    def _is_over(self, entry: _Pending[FrameT], now: float) -> bool:
        """Return whether to wait no longer: time is up, or a stream has passed its stamp."""
        if entry.given_up or now - entry.put_at >= self.wait:
            return True
        return any(
            bool(self._recent[stream]) and self._recent[stream][-1][0] > entry.stamp
            for stream in self._missing(entry)
        )

    def _nearest(self, stream: str, stamp: int) -> int | None:
        offsets = [item[0] - stamp for item in self._recent[stream]]
        return min(offsets, key=abs) if offsets else None
