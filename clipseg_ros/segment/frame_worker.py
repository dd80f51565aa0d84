"""Newest frame wins: the threads of a node that never queues.

A camera at 30 Hz in front of a model at 12 Hz would fill any queue with old frames. So the camera's
callback overwrites one slot, and a thread runs the model on the newest frame. A second publishes
the result meanwhile, and a third makes the outputs that can wait. No ROS in here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar('ItemT')
FrameT = TypeVar('FrameT')
FoundT = TypeVar('FoundT')
ResultT = TypeVar('ResultT')
AnswerT = TypeVar('AnswerT')

_WINDOW = 50
_RATE_SECONDS = 5.0


class NewestSlot(Generic[ItemT]):
    """Holds the newest item until a thread takes it; closing it wakes the threads that wait."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._items: deque[ItemT] = deque(maxlen=1)
        self._queued: deque[ItemT] = deque()
        self._takers = 0
        self._closed = False

    def put(self, item: ItemT) -> bool:
        """Overwrite the slot; return whether an item was lost that nobody had taken."""
        with self._condition:
            lost = bool(self._items)
            self._items.append(item)
            self._condition.notify_all()
        return lost

    def queue(self, item: ItemT) -> None:
        """Add an item that no other overwrites, and that is taken before the newest."""
        with self._condition:
            self._queued.append(item)
            self._condition.notify_all()

    def take(self, due: float = 0.0) -> ItemT | None:
        """Wait for an item; return None once the slot is closed.

        The newest is not taken before ``due``, a time of ``time.monotonic``; queued ones are.
        """
        with self._condition:
            self._takers += 1
            while not (self._closed or self._queued):
                left = due - time.monotonic()
                if self._items and left <= 0:
                    break
                self._condition.wait(left if self._items else None)
            self._takers -= 1
            if self._closed:
                return None
            item = self._queued.popleft() if self._queued else self._items.pop()
            self._condition.notify_all()
            return item

    def hand_over(self, item: ItemT) -> None:
        """Put an item without overwriting another, and wait until a thread takes it.

        A thread that waits in :meth:`take` is enough: its wake-up is not waited for.
        """
        with self._condition:
            self._condition.wait_for(lambda: not self._items or self._closed)
            self._items.append(item)
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._items or self._takers or self._closed)

    def close(self) -> None:
        """Let every :meth:`take` return None."""
        with self._condition:
            self._closed = True
            self._items.clear()
            self._queued.clear()
            self._condition.notify_all()


@dataclass(frozen=True)
class WorkerStatistics:
    """What has happened so far.

    Attributes:
        received: Frames put.
        processed: Frames that were published.
        dropped: Frames overwritten before they were taken.
        failed: Frames whose processing or publishing raised.
        rate: Frames published per second over the last seconds.
        latency: Mean seconds from put to published over the last frames; 0 before the first.
        latency_max: Largest of those.
        busy: Seconds that the oldest frame in work has been there; 0 where there is none.
        idle: Seconds since the last frame was put, or has been expected.
    """

    received: int
    processed: int
    dropped: int
    failed: int
    rate: float
    latency: float
    latency_max: float
    busy: float
    idle: float


@dataclass(frozen=True)
class _Errand:
    """Something that is done between two frames."""

    act: Callable[[], None]

    def run(self) -> None:
        self.act()


class FrameWorker(Generic[FrameT, FoundT, ResultT]):
    """Runs ``process`` on the newest frame, then ``publish``, then ``finish``: a thread each.

    While one frame is published the next is processed, and a third waits before the model, where a
    newer one may still replace it: a processed frame is never dropped.

    Args:
        process: From a frame to what was found, or None where nothing follows.
        publish: From that to a result for ``finish``, or None where nothing follows.
        finish: Does the rest with the newest result.
        on_error: Takes what the three raise; the threads go on.
        max_rate: Most frames per second that are processed; 0 is no limit.
    """

    def __init__(
        self,
        process: Callable[[FrameT], FoundT | None],
        publish: Callable[[FoundT], ResultT | None],
        finish: Callable[[ResultT], None],
        on_error: Callable[[Exception], None],
        max_rate: float = 0.0,
    ) -> None:
        self.max_rate = max_rate
        self._process, self._publish, self._finish = process, publish, finish
        self._on_error = on_error
        self._frames: NewestSlot[tuple[FrameT, float] | _Errand] = NewestSlot()
        self._found: NewestSlot[tuple[FoundT, float]] = NewestSlot()
        self._results: NewestSlot[ResultT] = NewestSlot()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._received = self._processed = self._dropped = self._failed = 0
        self._done: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._busy_since: dict[str, float] = {}
        self._last_put = time.monotonic()

    def start(self, setup: Callable[[], None] | None = None) -> None:
        """Start the threads, once; ``setup`` is waited for.

        It is called in the thread that runs ``process``: a model's thread pool belongs to the
        thread that first ran it. What it raises is raised here, and no thread is left running; nor
        where a signal interrupts the wait: a process must not end while a thread runs a model.

        Raises:
            RuntimeError: It was started before.
        """
        if self._threads:
            raise RuntimeError('a FrameWorker is started once; make a new one')
        ready = threading.Event()
        errors: list[Exception] = []

        def work() -> None:
            try:
                if setup is not None:
                    setup()
            except Exception as error:
                errors.append(error)
                return
            finally:
                ready.set()
            self._work()

        self._threads = [
            threading.Thread(target=self._work_on_found, name='frame_publisher', daemon=True),
            threading.Thread(target=self._work_on_results, name='frame_finisher', daemon=True),
            threading.Thread(target=work, name='frame_worker', daemon=True),
        ]
        try:
            for thread in self._threads:
                thread.start()
            ready.wait()
        except BaseException:
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            self.stop()
            raise
        if errors:
            self.stop()
            raise errors[0]

    def put(self, frame: FrameT, again: bool = False) -> None:
        """Hand over a frame in place of one that waits; one put ``again`` is not counted twice."""
        now = time.monotonic()
        lost = self._frames.put((frame, now))
        with self._lock:
            self._dropped += lost
            if not again:
                self._received += 1
                self._last_put = now

    def run(self, act: Callable[[], None]) -> None:
        """Have something done in the thread that runs ``process``, before the next frame.

        That thread owns the model. What ``act`` raises goes to ``on_error``; after :meth:`stop` it
        is not called any more.
        """
        self._frames.queue(_Errand(act))

    def expect(self) -> None:
        """Take note that frames are to be expected from now on: before, none was."""
        with self._lock:
            self._last_put = time.monotonic()

    def stop(self, timeout: float = 10.0) -> bool:
        """Stop the threads after the frames in work.

        Returns:
            Whether they ended within ``timeout`` seconds; if not, they end with the process.
        """
        self._frames.close()
        self._found.close()
        self._results.close()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def statistics(self) -> WorkerStatistics:
        """Return the counts and times so far."""
        now = time.monotonic()
        with self._lock:
            recent = [end for end, _ in self._done if end > now - _RATE_SECONDS]
            latencies = [latency for _, latency in self._done]
            # Over the time that they span: else a full window of 50 frames would cap the rate.
            span = now - recent[0] if recent else 0.0
            return WorkerStatistics(
                received=self._received,
                processed=self._processed,
                dropped=self._dropped,
                failed=self._failed,
                rate=len(recent) / span if span > 0 else 0.0,
                latency=sum(latencies) / len(latencies) if latencies else 0.0,
                latency_max=max(latencies, default=0.0),
                busy=now - min(self._busy_since.values(), default=now),
                idle=now - self._last_put,
            )

    def _work(self) -> None:
        due = 0.0
        while True:
            # Wait before taking a frame, not after: then the newest is taken.
            taken = self._frames.take(due)
            if taken is None:
                return
            if isinstance(taken, _Errand):
                self._attempt('process', _Errand.run, taken)
                continue
            frame, put_at = taken
            if self.max_rate > 0:
                due = time.monotonic() + 1.0 / self.max_rate
            found = self._attempt('process', self._process, frame)
            if found is not None:
                self._found.hand_over((found, put_at))
            # A thread that waits keeps no frame: it is megabytes.
            del taken, frame, found

    def _work_on_found(self) -> None:
        while True:
            taken = self._found.take()
            if taken is None:
                return
            found, put_at = taken
            result = self._attempt('publish', self._publish, found)
            if result is not None:
                ended = time.monotonic()
                with self._lock:
                    self._processed += 1
                    self._done.append((ended, ended - put_at))
                self._results.put(result)
            del taken, found, result

    def _work_on_results(self) -> None:
        while True:
            result = self._results.take()
            if result is None:
                return
            try:
                self._finish(result)
            except Exception as error:
                self._on_error(error)
            del result

    def _attempt(self, stage: str, act: Callable[[ItemT], AnswerT], item: ItemT) -> AnswerT | None:
        """Run a step; report and count an error, and return None for it."""
        with self._lock:
            self._busy_since[stage] = time.monotonic()
        try:
            return act(item)
        except Exception as error:
            with self._lock:
                self._failed += 1
            self._on_error(error)
            return None
        finally:
            with self._lock:
                del self._busy_since[stage]
