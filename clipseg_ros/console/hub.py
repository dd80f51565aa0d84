"""What all browsers share: the newest shot, the state, the scores, and who looks.

Everything here belongs to the event loop's thread; the back end's threads come in by
``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from clipseg_ros.console.back_ends.base import BackEnd
from clipseg_ros.console.cards import colour
from clipseg_ros.console.history import History
from clipseg_ros.console.shots import Shot
from clipseg_ros.console.terminal import Terminal
from clipseg_ros.console.words import without_folders

_KEPT_SHOTS = 12
"""Shots that a browser may still name, to freeze one or to pick something in it."""

_KEPT_STILLS = 3
"""Frozen shots of a browser that are kept: clicks freeze, too. They may be large."""

_KEPT_GONE = 4
"""Browsers that are gone, maybe for a moment, whose frozen shots are kept."""

TICK = 0.25
"""Seconds between two messages of state, at least."""


class Viewer:
    """A browser that gets shots.

    Attributes:
        layers: What it shows beside the picture.
        sent: Numbers and shots that it got last: a slow one may still show them.
        browser: What it calls itself, the same in all its connections.
    """

    def __init__(self) -> None:
        self.browser = ''
        self.layers: frozenset[str] = frozenset()
        self.sent: deque[tuple[int, Shot]] = deque(maxlen=2)


class Hub:
    """See the top of this module.

    Args:
        back_end: Where shots come from.
        view: Whether no browser may change anything.
        say: Prints a line in the terminal.
    """

    def __init__(
        self, back_end: BackEnd, view: bool = False, say: Callable[[str], Any] = lambda _: None
    ) -> None:
        self.back_end, self.view = back_end, view
        self.terminal = Terminal(say)
        self.history = History()
        self.shots: OrderedDict[int, Shot] = OrderedDict()
        # Of each browser, the one that froze last at the end.
        self.stills: OrderedDict[str, OrderedDict[int, Shot]] = OrderedDict()
        self.viewers: set[Viewer] = set()
        self.ending = False
        # Of this process: a browser that comes back after a restart must not wait for a number.
        self._numbers = itertools.count(1)
        self.newest = 0
        self._looking = asyncio.Lock()
        self._shot_came = asyncio.Event()
        self._state_changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queued: Shot | None = None
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the back end."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.back_end.start, self._show, self.change_soon)
        self._telling = asyncio.create_task(self._tell_troubles())

    def end(self) -> None:
        """Let all connections end."""
        self.ending = True
        self.change()
        self._shot_came.set()

    async def close(self) -> None:
        """End the back end."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await asyncio.to_thread(self.back_end.close)

    async def _tell_troubles(self) -> None:
        """Say in the terminal what is wrong, whether a browser looks or not."""
        while not self.ending:
            self.terminal.troubles(self.back_end.status().troubles)
            await asyncio.sleep(TICK)
            await self.next_change(1.0)

    def _show(self, shot: Shot) -> None:
        """Take a shot from a thread of the back end; newer ones replace one that waits."""
        waits, self._queued = self._queued is not None, shot
        if not waits and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        shot, self._queued = self._queued, None
        if shot is None:
            return
        self.newest = next(self._numbers)
        self.shots[self.newest] = shot
        while len(self.shots) > _KEPT_SHOTS:
            self.shots.popitem(last=False)
        if shot.segmented:
            self.history.add(shot.found, time.time(), shot.origin)
        came, self._shot_came = self._shot_came, asyncio.Event()
        came.set()

    def change(self) -> None:
        """Say that the state has changed."""
        changed, self._state_changed = self._state_changed, asyncio.Event()
        changed.set()

    def change_soon(self) -> None:
        """Say so from another thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.change)

    async def next_shot(self, after: int, timeout: float) -> tuple[int, Shot] | None:
        """Return the newest shot once there is one of another number than ``after``."""
        if self.newest in (0, after):
            try:
                await asyncio.wait_for(self._shot_came.wait(), timeout)
            except TimeoutError:
                return None
            except asyncio.TimeoutError:
                # Of its own before Python 3.11.
                return None
        if self.newest in (0, after):
            # The console ends, or pictures of the past have just gone.
            return None
        return self.newest, self.shots[self.newest]

    async def next_change(self, timeout: float) -> None:
        """Wait until the state changes, or for so many seconds."""
        try:
            await asyncio.wait_for(self._state_changed.wait(), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            return

    async def look(self, viewer: Viewer, layers: frozenset[str] | None) -> None:
        """Take note of what a browser shows; None where it has gone."""
        # One after the other: the back end must hear last what holds last.
        async with self._looking:
            if layers is None:
                self.viewers.discard(viewer)
            else:
                viewer.layers = layers
                self.viewers.add(viewer)
            wanted = None
            if self.viewers:
                wanted = frozenset().union(*(one.layers for one in self.viewers))
            await asyncio.to_thread(self.back_end.watch, wanted)
            if wanted is None:
                # Pictures of the past are no pictures for who comes next.
                self.shots.clear()
                self.newest = 0
        self.change()

    def find(self, number: int) -> Shot | None:
        """Return the shot of a number that a browser may show or has frozen."""
        sent = {key: shot for viewer in tuple(self.viewers) for key, shot in tuple(viewer.sent)}
        still = next((own[number] for own in tuple(self.stills.values()) if number in own), None)
        return still or self.shots.get(number) or sent.get(number)

    def freeze(self, number: int, browser: str = '') -> Shot | None:
        """Keep a shot that a browser shows; None where it is too old."""
        shot = self.find(number)
        if shot is None:
            return None
        own = self.stills.setdefault(browser, OrderedDict())
        own[number] = shot
        own.move_to_end(number)
        while len(own) > _KEPT_STILLS:
            own.popitem(last=False)
        self.stills.move_to_end(browser)
        # Names that nobody goes by drop nothing of who looks.
        looking = {viewer.browser for viewer in self.viewers}
        gone = [name for name in self.stills if name not in looking]
        for name in gone[:-_KEPT_GONE]:
            del self.stills[name]
        return shot

    def replace_still(self, number: int, shot: Shot) -> None:
        """Show a frozen shot as it has been segmented since."""
        for own in self.stills.values():
            if number in own:
                own[number] = shot

    def state(self, may_change: bool) -> dict[str, Any]:
        """Return everything that the page shows but shots."""
        back_end = self.back_end
        status, cards = back_end.status(), back_end.cards
        self.history.keep(lambda: [card.name for card in back_end.cards])
        prompts = []
        for card in cards:
            track = self.history.tracks.get(card.name)
            example = card.example
            prompts.append(
                {
                    'name': card.name,
                    'phrase': card.phrase,
                    'id': card.id,
                    'threshold': card.threshold,
                    'presence': card.presence,
                    'enabled': card.enabled,
                    'negative': card.negative,
                    'weight': card.weight,
                    'pictured': card.pictured,
                    'example': None if example is None else f'{id(example):x}',
                    'colour': colour(card, status.colours),
                    'marks': 0 if track is None else len(track.marks),
                    'suggested': self.history.suggestion(card.name),
                }
            )
        told = asdict(status)
        del told['colours']
        for trouble in told['troubles']:
            trouble['text'] = without_folders(trouble['text'])
        told['values'] = {key: without_folders(text) for key, text in told['values'].items()}
        return {
            **told,
            'kind': back_end.kind,
            'scored': self.history.origin,
            'prompts': prompts,
            'may_change': may_change,
            'viewers': len(self.viewers),
            'now': time.time(),
        }

    def scores(self, since: dict[str, float]) -> dict[str, list[list[float]]]:
        """Return the scores of all prompts that a browser does not have yet, (seconds, score).

        ``since`` says for each prompt until when it has them, and is brought up to date: one that
        has just got another name brings all its scores with it.
        """
        tracks, news = self.history.tracks, {}
        for name, track in tracks.items():
            told = since.get(name, 0.0)
            new = [(at, score) for at, score in tuple(track.scores) if at > told]
            news[name] = [[round(at, 2), round(score, 4)] for at, score in new]
            since[name] = new[-1][0] if new else told
        for name in set(since) - set(tracks):
            del since[name]
        return news
