"""The newest frame segmented on request, though nobody subscribes to an output.

A request waits for the frame without holding up the executor's thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.task import Future

from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.set import ActivePrompt
from clipseg_ros.ros.timing import create_steady_timer

LONGEST_WAIT = 60.0
"""Most seconds that a request may ask to be waited for: one that waits takes a place meanwhile."""

_PERIOD = 0.05

# A client holds ten answers of a service until it takes them, those to other clients among them,
# and drops the oldest for a further one: all that wait, answered at once, would lose some.
_AT_ONCE = 4


@dataclass(frozen=True)
class FrameSource:
    """What a request needs to know of the node at a moment.

    Attributes:
        rest: Why no image is segmented now; empty where images are.
        fault: Why the newest images are not segmented, or that none come any more; empty if
            neither.
        prompts: The active prompts that are reported.
        header: Of the newest image; None where none has arrived.
        result: The newest result, smoothed; None where the newest image was not segmented.
    """

    rest: str
    fault: str
    prompts: tuple[ActivePrompt, ...]
    header: Any
    result: FrameResult | None

    @property
    def answer(self) -> FrameResult | None:
        """The newest result, if it is of the prompts that are active now."""
        result = self.result
        current = result is not None and not self.rest and result.prompts == self.prompts
        return result if current else None

    def explain(self, wait: float) -> str:
        """Return why there is no result after ``wait`` seconds."""
        if self.rest:
            return self.rest
        if self.header is None:
            return f'no image arrived within {wait:g} s: /diagnostics says why'
        return f'no image was segmented within {wait:g} s: {self.fault or "the model is busy"}'


@dataclass
class _Waiting:
    """Somebody who waits for a result, or for an ``image`` alone."""

    done: Future[FrameResult | None]
    until: float
    image: bool = False


def find_wait_problem(wait: float, default: float) -> str:
    """Return what is wrong with the seconds that a request is to wait, or an empty string."""
    if 0.0 <= wait <= LONGEST_WAIT:
        return ''
    return f'wait is {wait:g} s: give 0 to {LONGEST_WAIT:g}, where 0 stands for {default:g}'


def find_crowd(waiting: int, most: int) -> str:
    """Return why no further request is taken, or an empty string."""
    if waiting < most:
        return ''
    return (
        f'{waiting} requests wait already, and no more are taken: ask again when one is answered, '
        'or ask for several prompts at once'
    )


class FramesOnDemand:
    """Has frames segmented for who asks.

    Those who wait need a callback group of their own: a node's is closed to all other callbacks, to
    images too, while one of its callbacks waits.

    Args:
        node: The node.
        look: Returns the state of the node now.
        again: Has the newest image segmented by the prompts of now, unless it was.
    """

    def __init__(
        self, node: Any, look: Callable[[], FrameSource], again: Callable[[], None]
    ) -> None:
        self.look, self._again = look, again
        self._waiting: list[_Waiting] = []
        # Whose wait is over, what they get, and when the next of them may have it.
        self._due: deque[tuple[Future[FrameResult | None], FrameResult | None]] = deque()
        self._next_turn = 0.0
        self._ready = node.create_guard_condition(self._answer)
        self._timer = create_steady_timer(node, _PERIOD, self._answer)
        self._timer.cancel()

    @property
    def asked(self) -> bool:
        """Whether somebody waits for a segmented frame, or reads the newest one soon."""
        return bool(self._due) or any(not waiting.image for waiting in self._waiting)

    @property
    def needs_images(self) -> bool:
        """Whether somebody waits for a frame, segmented or not."""
        return bool(self._waiting or self._due)

    def notice(self) -> None:
        """Take note of a new result; called from the thread that publishes."""
        if self._waiting:
            self._ready.trigger()

    async def newest(self, wait: float) -> FrameResult | None:
        """Return the result of the newest image, or one that comes within ``wait`` seconds.

        None where there is none by then, or no image is segmented now.
        """
        source = self.look()
        if source.rest:
            return None
        frame = source.answer
        if frame is not None and frame.header is source.header:
            return frame
        return await self._wait(_Waiting(Future(), time.monotonic() + wait))

    async def image(self, wait: float) -> None:
        """Wait up to ``wait`` seconds for an image where none has come; nothing is segmented."""
        if self.look().header is None:
            await self._wait(_Waiting(Future(), time.monotonic() + wait, image=True))

    async def _wait(self, waiting: _Waiting) -> FrameResult | None:
        self._waiting.append(waiting)
        self._again()
        if self._timer.is_canceled():
            self._timer.reset()
        return await waiting.done

    def _answer(self) -> None:
        """Answer those whose frame is there or whose time is over, a few at a time."""
        if self._waiting:
            self._find_due()
        now = time.monotonic()
        if self._due and now >= self._next_turn:
            for _ in range(min(len(self._due), _AT_ONCE)):
                done, frame = self._due.popleft()
                done.set_result(frame)
            if self._due:
                self._next_turn = now + _PERIOD
                self._timer.reset()
        if not self.needs_images:
            self._timer.cancel()

    def _find_due(self) -> None:
        source, now = self.look(), time.monotonic()
        frame = source.answer
        for waiting in list(self._waiting):
            if waiting.image:
                over = source.header is not None
            else:
                over = frame is not None or bool(source.rest)
            if over or now > waiting.until:
                self._waiting.remove(waiting)
                self._due.append((waiting.done, frame))
        if self._waiting:
            self._again()
