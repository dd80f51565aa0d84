"""Bringing together what comes of one image on several topics. No ROS in here."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipseg_ros.console.shots import Found, Shot

_KEPT = 24
"""Images that wait for their layers; of 1.2 s at 20 Hz."""

_PATIENCE = 3.0
"""Seconds without layers, though some should come, after which pictures are shown without any."""


@dataclass
class _Parts:
    picture: Any = None
    layers: dict[str, Any] = field(default_factory=dict)


class Joiner:
    """Joins pictures and layers by their stamps, and shows the newest that is complete.

    Args:
        show: Gets each shot.
        make: Makes one of a stamp (ns), a picture's message, its layers' messages, what was found,
            and whether it was segmented.
    """

    def __init__(
        self,
        show: Callable[[Shot], None],
        make: Callable[[int, Any, dict[str, Any], Sequence[Found], bool], Shot | None],
    ) -> None:
        self._show, self._make = show, make
        self._lock = threading.Lock()
        self._parts: OrderedDict[int, _Parts] = OrderedDict()
        self._found: Sequence[Found] = ()
        self._wanted: frozenset[str] = frozenset()
        self._expected = True
        self._layered = 0.0
        self._last = self._last_segmented = 0
        self.picture_at = self.layer_at = 0.0
        """When a picture, and a layer, arrived last: of a monotonic clock, seconds."""

    def want(self, layers: frozenset[str]) -> None:
        """Say which layers a shot has to have."""
        with self._lock:
            self._wanted = layers

    def expect(self, wish: bool) -> None:
        """Say whether layers should come: whether there is something to look for."""
        self._expected = wish

    def forget(self) -> None:
        """Begin anew, with another camera."""
        with self._lock:
            self._parts.clear()
            self._found, self._last, self._last_segmented = (), 0, 0
            self.picture_at = self.layer_at = self._layered = 0.0

    def add_found(self, found: Sequence[Found]) -> None:
        """Take what was found in the newest image."""
        self._found = found

    def add_picture(self, stamp: int, message: Any) -> None:
        """Take a picture; it is shown at once where layers stay away."""
        now = self.picture_at = time.monotonic()
        with self._lock:
            self._of(stamp).picture = message
            alone = not self._expected or now - self._layered > _PATIENCE
        if not self._try(stamp) and alone:
            self._give(stamp, segmented=False)

    def add_layer(self, stamp: int, name: str, message: Any) -> None:
        """Take a layer."""
        self.layer_at = time.monotonic()
        with self._lock:
            self._of(stamp).layers[name] = message
        self._try(stamp)

    def _of(self, stamp: int) -> _Parts:
        if stamp not in self._parts:
            self._parts[stamp] = _Parts()
            while len(self._parts) > _KEPT:
                self._parts.popitem(last=False)
        return self._parts[stamp]

    def _try(self, stamp: int) -> bool:
        """Show what is complete; return whether it is."""
        with self._lock:
            parts = self._parts.get(stamp)
            if parts is None or not self._wanted:
                return False
            whole = self._wanted <= set(parts.layers)
            # The node's own drawing is shown without the picture where that does not arrive.
            alone = self._wanted == {'overlay'} and time.monotonic() - self.picture_at > _PATIENCE
            whole = whole and (parts.picture is not None or alone)
        if whole:
            self._give(stamp, segmented=True)
        return whole

    def _give(self, stamp: int, segmented: bool) -> None:
        with self._lock:
            # A camera's clock may be set back: then its pictures are the newest all the same. The
            # first segmented picture may be older than the last plain one.
            last = self._last_segmented if segmented else self._last
            if stamp < last and last - stamp < 2_000_000_000:
                return
            parts = self._parts[stamp]
            self._last = stamp
            if segmented:
                self._last_segmented, self._layered = stamp, time.monotonic()
                for old in [other for other in self._parts if other <= stamp]:
                    del self._parts[old]
            found = self._found
        shot = self._make(stamp, parts.picture, parts.layers, found, segmented)
        if shot is not None:
            self._show(shot)
