"""The scores of the last minute, and thresholds suggested by what people marked. No ROS in here."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from clipseg_ros.console.shots import Found

SECONDS = 60.0
"""How far back scores are kept."""

PERIOD = 0.25
"""Least time between two scores of a prompt that are kept, seconds."""

MOST_MARKS = 200
"""Marks of a prompt that are kept, the newest."""


@dataclass
class Track:
    """The scores of one prompt, (seconds, score), and its marks, (score, whether it is there)."""

    scores: deque[tuple[float, float]] = field(default_factory=deque)
    marks: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=MOST_MARKS))


class History:
    """Scores and marks of all prompts, by name.

    Attributes:
        tracks: Replaced as a whole where prompts come or go, so any thread may read it.
        origin: Which model they are from, and of which camera.
    """

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.origin = ''
        self._renamed = ''
        # Marks and names come from the threads of commands.
        self._lock = threading.Lock()

    def add(self, found: Iterable[Found], now: float, origin: str = '') -> None:
        """Take note of what was found at a time, seconds; of another origin, forget what was."""
        with self._lock:
            if origin != self.origin:
                self.tracks, self.origin = {}, origin
            for one in found:
                track = self._track(one.name)
                if not track.scores or now - track.scores[-1][0] >= PERIOD:
                    track.scores.append((now, one.score))
                while track.scores and now - track.scores[0][0] > SECONDS:
                    track.scores.popleft()

    def keep(self, names: Callable[[], Iterable[str]]) -> None:
        """Forget all prompts but those that are active now, whose names are asked for."""
        with self._lock:
            # Asked here, or a prompt might get its new name between the question and this.
            kept = {*names(), self._renamed}
            self.tracks = {name: track for name, track in self.tracks.items() if name in kept}

    @contextmanager
    def renaming(self, before: str, name: str) -> Iterator[None]:
        """Keep the scores of a prompt that gets another name meanwhile, unless that fails."""
        self._renamed = before
        try:
            yield
        except BaseException:
            self._renamed = ''
            raise
        with self._lock:
            self._renamed = ''
            if before in self.tracks:
                kept = {old: track for old, track in self.tracks.items() if old != before}
                self.tracks = {**kept, name: self.tracks[before]}

    def mark(self, shown: Found, right: bool) -> str:
        """Take note that what is shown of a prompt is right or wrong; return that in words."""
        there = shown.presence == right
        with self._lock:
            self._track(shown.name).marks.append((shown.score, there))
        what = 'there' if there else 'not there'
        return f'{shown.name!r} is {what}, at a score of {shown.score:.2f}'

    def _track(self, name: str) -> Track:
        if name not in self.tracks:
            self.tracks = {**self.tracks, name: Track()}
        return self.tracks[name]

    def clear_marks(self, name: str) -> None:
        """Forget the marks of a prompt."""
        with self._lock:
            if name in self.tracks:
                self.tracks[name].marks.clear()

    def suggestion(self, name: str) -> float | None:
        """Return the presence threshold that :func:`suggest` reads off the marks of a prompt."""
        with self._lock:
            track = self.tracks.get(name)
            marks = () if track is None else tuple(track.marks)
        return suggest(marks)


def suggest(marks: Sequence[tuple[float, bool]]) -> float | None:
    """Return the threshold with the fewest errors, in the middle of the widest such gap.

    Args:
        marks: (score in 0…1, whether the thing is there).

    Returns:
        None unless there are marks of both kinds.
    """
    there = sorted(score for score, is_there in marks if is_there)
    absent = sorted(score for score, is_there in marks if not is_there)
    if not there or not absent:
        return None
    edges = sorted({0.0, 1.0, *there, *absent})
    best: tuple[int, float, float] | None = None
    for low, high in itertools.pairwise(edges):
        cut = (low + high) / 2
        errors = sum(score < cut for score in there) + sum(score >= cut for score in absent)
        # Fewest errors, then the widest gap, then the lower one.
        rated = (errors, low - high, cut)
        best = rated if best is None or rated < best else best
    assert best is not None, 'there are two scores at least'
    # A threshold of 0 would say that nobody chose one.
    return max(0.01, round(best[2], 3))
