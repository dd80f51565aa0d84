"""Single things in a frame: the connected parts of each prompt's mask, with ids that stay.

A thing keeps its id from frame to frame while its mask overlaps what it was before. No ROS in here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipseg_model.instances import Instance
from clipseg_model.segmentation import Segmentation
from clipseg_ros.prompts.set import ActivePrompt

LAST_ID = 65_535
"""Ids are 1 … this, as they fit into an image of 16 bits."""

_LEAST_OVERLAP = 0.1  # Intersection over union from which on it may be the same thing.
_PATIENCE = 10  # Frames for which a thing that is not seen is remembered.
# Seconds between two frames after which what was seen is forgotten: of any camera, and of one that
# takes so many times less from frame to frame.
_GAP, _LONGEST_GAP, _SLOWER = 1.0, 10.0, 3.0


@dataclass(frozen=True)
class Thing:
    """One thing in a frame.

    Attributes:
        id: 1 … :data:`LAST_ID`; stays with the thing.
        prompt: What it was found by.
        instance: Where it is.
    """

    id: int
    prompt: ActivePrompt
    instance: Instance


@dataclass
class _Track:
    thing: Thing
    missed: int = 0


class ThingTracker:
    """Gives the things of one camera, frame by frame, their ids.

    Of a thing that falls into two parts the more similar one keeps the id, and of two that merge
    the more similar one. An id is not given to another thing before all others have been.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._last = 0
        self._stamp: float | None = None
        self._step = 0.0
        self._view: tuple[int, int, Hashable] | None = None

    def update(
        self,
        found: Segmentation,
        prompts: Sequence[ActivePrompt],
        min_area: int,
        stamp: float = 0.0,
        region: Hashable = None,
    ) -> tuple[Thing, ...]:
        """Return the things of the next frame, by prompts, the largest of each first.

        What was seen before is forgotten if that was long ago by the stamps, or if the image has
        another size or region. Long is more than 1 s, or, of a slow camera, three times as long as
        the frame before took, up to 10 s; in either direction.

        Args:
            found: What was found in it.
            prompts: Those of its results.
            min_area: Least area of a thing, pixels.
            stamp: Of the frame, seconds.
            region: The part of the image that was looked at.

        Raises:
            RegionError: ``min_area`` is less than 1.
        """
        self._follow(stamp, (found.height, found.width, region))
        parts = [
            (entry, instance)
            for entry, result in zip(prompts, found.results, strict=True)
            for instance in (result.instances(min_area) if result.presence else ())
        ]
        known = self._match(parts)
        things = []
        for number, (entry, instance) in enumerate(parts):
            track = known.get(number)
            identity = track.thing.id if track is not None else self._new_id()
            things.append(Thing(identity, entry, instance))
        seen = {id(track) for track in known.values()}
        lost = [track for track in self._tracks if id(track) not in seen]
        for track in lost:
            track.missed += 1
        self._tracks = [track for track in lost if track.missed <= _PATIENCE]
        self._tracks += [_Track(thing) for thing in things]
        return tuple(things)

    def forget(self) -> None:
        """Forget what was seen; ids are not given again."""
        self._tracks.clear()

    def _follow(self, stamp: float, view: tuple[int, int, Hashable]) -> None:
        """Forget what was seen unless this frame follows on the last one."""
        step = 0.0 if self._stamp is None else stamp - self._stamp
        if abs(step) > min(max(_GAP, _SLOWER * self._step), _LONGEST_GAP) or view != self._view:
            self.forget()
        self._stamp, self._step, self._view = stamp, step if step > 0 else self._step, view

    def _match(self, parts: Sequence[tuple[ActivePrompt, Instance]]) -> dict[int, _Track]:
        """Return the track of each part that has one, the most similar pairs first."""
        pairs = []
        for number, (entry, instance) in enumerate(parts):
            for track in self._tracks:
                if track.thing.prompt.id == entry.id:
                    share = overlap(instance, track.thing.instance)
                    if share >= _LEAST_OVERLAP:
                        # What was seen last goes before what has been gone for a while.
                        pairs.append((-share, track.missed, number, track))
        known: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, _, number, track in sorted(pairs, key=lambda pair: pair[:3]):
            if number not in known and id(track) not in taken:
                known[number] = track
                taken.add(id(track))
        return known

    def _new_id(self) -> int:
        used = {track.thing.id for track in self._tracks}
        while True:
            self._last = self._last % LAST_ID + 1
            if self._last not in used:
                return self._last


def overlap(one: Instance, other: Instance) -> float:
    """Return the intersection over union of two masks of images of the same size."""
    left, top = max(one.box[0], other.box[0]), max(one.box[1], other.box[1])
    right = min(one.box[0] + one.box[2], other.box[0] + other.box[2])
    bottom = min(one.box[1] + one.box[3], other.box[1] + other.box[3])
    if right <= left or bottom <= top:
        return 0.0
    parts = [
        each.mask[
            top - each.box[1] : bottom - each.box[1], left - each.box[0] : right - each.box[0]
        ]
        for each in (one, other)
    ]
    both = int(np.count_nonzero(parts[0] & parts[1]))
    return both / (one.area + other.area - both)


def write_instances(
    things: Sequence[Thing], labels: NDArray[np.uint8], out: NDArray[np.uint16]
) -> None:
    """Write the id of the thing at each pixel into uint16 (H, W), 0 where there is none.

    Where masks overlap, a pixel is of the prompt that it has on ``labels``, uint8 (H, W).
    """
    out.fill(0)
    for thing in things:
        x, y, width, height = thing.instance.box
        part = (slice(y, y + height), slice(x, x + width))
        out[part][thing.instance.mask & (labels[part] == thing.prompt.id)] = thing.id
