from __future__ import annotations

import _thread
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ros_peers import wait_until

from clipseg_ros.segment.frame_worker import FrameWorker, NewestSlot

MakeWorker = Callable[..., 'FrameWorker[Any, Any, Any]']


@pytest.fixture
def make_worker() -> Iterator[MakeWorker]:
    workers: list[FrameWorker[Any, Any, Any]] = []

    def make(
        process: Callable[[Any], Any],
        finish: Callable[[Any], None] = lambda result: None,
        on_error: Callable[[Exception], None] = lambda error: None,
        max_rate: float = 0.0,
        publish: Callable[[Any], Any] = lambda found: found,
    ) -> FrameWorker[Any, Any, Any]:
        workers.append(FrameWorker(process, publish, finish, on_error, max_rate))
        return workers[-1]

    yield make
    for worker in workers:
        assert worker.stop()


def test_slot_keeps_the_newest_and_says_what_was_lost() -> None:
    slot: NewestSlot[int] = NewestSlot()
    assert [slot.put(n) for n in range(3)] == [False, True, True]
    assert slot.take() == 2
    assert slot.put(3) is False


def test_slot_wakes_a_waiting_thread() -> None:
    slot: NewestSlot[str] = NewestSlot()
    taken: list[str | None] = []
    thread = threading.Thread(target=lambda: taken.extend((slot.take(), slot.take())))
    thread.start()
    slot.put('a')
    wait_until(lambda: taken is not None and not slot._items)
    slot.close()
    thread.join(5)
    assert taken == ['a', None]


def test_handing_over_waits_for_somebody_who_takes_and_overwrites_nothing() -> None:
    slot: NewestSlot[str] = NewestSlot()
    handed: list[str] = []

    def give() -> None:
        for item in ('a', 'b'):
            slot.hand_over(item)
            handed.append(item)

    thread = threading.Thread(target=give)
    thread.start()
    time.sleep(0.1)
    assert handed == []
    assert slot.take() == 'a'
    wait_until(lambda: handed == ['a'])
    time.sleep(0.1)
    assert handed == ['a']
    assert slot.take() == 'b'
    thread.join(5)
    assert handed == ['a', 'b']


def test_handing_over_does_not_wait_until_whoever_waits_runs() -> None:
    slot: NewestSlot[str] = NewestSlot()
    taken: list[str | None] = []
    thread = threading.Thread(target=lambda: taken.append(slot.take()))
    thread.start()
    wait_until(lambda: slot._takers == 1)
    with slot._condition:  # So that the thread cannot run.
        slot.hand_over('a')
        assert taken == []
    thread.join(5)
    assert taken == ['a']


def test_slot_holds_none_like_anything_else() -> None:
    slot: NewestSlot[None] = NewestSlot()
    slot.put(None)
    assert slot.put(None) is True


def test_the_newest_frame_wins(make_worker: MakeWorker) -> None:
    gate, begun, done = threading.Event(), threading.Event(), []

    def process(frame: int) -> int:
        begun.set()
        gate.wait(5)
        done.append(frame)
        return frame

    worker = make_worker(process)
    worker.start()
    worker.put(0)
    assert begun.wait(5)
    for frame in range(1, 6):
        worker.put(frame)
    gate.set()
    wait_until(lambda: len(done) == 2)
    assert done == [0, 5]
    wait_until(lambda: worker.statistics().processed == 2)
    counts = worker.statistics()
    assert (counts.received, counts.processed, counts.dropped, counts.failed) == (6, 2, 4, 0)


def test_a_frame_is_published_while_the_next_one_is_processed(make_worker: MakeWorker) -> None:
    gate, processed, published = threading.Event(), [], []

    def process(frame: int) -> int:
        processed.append(frame)
        return frame

    def publish(frame: int) -> int:
        gate.wait(5)
        published.append(frame)
        return frame

    worker = make_worker(process, publish=publish)
    worker.start()
    for frame in range(5):
        worker.put(frame)
        time.sleep(0.03)
    # 0 is being published and 1 waits for that: what comes meanwhile waits before the model.
    assert processed == [0, 1]
    assert published == []
    assert worker.statistics().processed == 0
    gate.set()
    wait_until(lambda: published == [0, 1, 4])
    assert processed == [0, 1, 4]
    wait_until(lambda: worker.statistics().processed == 3)
    assert worker.statistics().dropped == 2


def test_an_error_in_publishing_is_told_and_counted(make_worker: MakeWorker) -> None:
    errors: list[Exception] = []
    finished: list[int] = []

    def publish(frame: int) -> int:
        if frame == 0:
            raise ValueError('no memory')
        return frame

    worker = make_worker(lambda f: f, finished.append, errors.append, publish=publish)
    worker.start()
    worker.put(0)
    wait_until(lambda: errors)
    worker.put(1)
    wait_until(lambda: finished == [1])
    counts = worker.statistics()
    assert (counts.processed, counts.failed, counts.busy) == (1, 1, 0.0)


def test_heavy_outputs_never_delay_the_next_frame(make_worker: MakeWorker) -> None:
    gate, finished, processed = threading.Event(), [], []

    def process(frame: int) -> int:
        processed.append(frame)
        return frame

    def finish(frame: int) -> None:
        gate.wait(5)
        finished.append(frame)

    worker = make_worker(process, finish)
    worker.start()
    for frame in range(4):
        worker.put(frame)
        wait_until(lambda frame=frame: processed[-1:] == [frame])
        time.sleep(0.02)
    gate.set()
    wait_until(lambda: finished[-1:] == [3])
    assert finished == [0, 3]


def test_errors_are_told_and_the_next_frame_is_served(make_worker: MakeWorker) -> None:
    errors: list[Exception] = []
    done: list[int] = []

    def process(frame: int) -> int:
        if frame == 0:
            raise ValueError('bad frame')
        return frame

    def finish(frame: int) -> None:
        if frame == 1:
            raise KeyError('bad result')
        done.append(frame)

    worker = make_worker(process, finish, errors.append)
    worker.start()
    for frame in range(3):
        worker.put(frame)
        wait_until(lambda frame=frame: len(errors) + len(done) > frame)
    assert [type(error) for error in errors] == [ValueError, KeyError]
    assert done == [2]
    assert worker.statistics().failed == 1
    assert worker.statistics().busy == 0.0


def test_a_frame_without_result_is_not_finished_nor_counted(make_worker: MakeWorker) -> None:
    finished: list[Any] = []
    taken = threading.Event()

    def process(frame: int) -> None:
        taken.set()

    worker = make_worker(process, finished.append)
    worker.start()
    worker.put(1)
    assert taken.wait(5)
    time.sleep(0.05)
    assert finished == []
    assert worker.statistics().processed == 0


def test_what_is_put_again_is_one_image(make_worker: MakeWorker) -> None:
    done: list[int] = []
    worker = make_worker(lambda frame: frame, done.append)
    worker.start()
    worker.put(1)
    wait_until(lambda: done == [1])
    idle = worker.statistics().idle
    worker.put(1, again=True)
    wait_until(lambda: done == [1, 1])
    statistics = worker.statistics()
    assert (statistics.received, statistics.processed, statistics.dropped) == (1, 2, 0)
    assert statistics.idle > idle, 'no image has come'


def test_rate_limit(make_worker: MakeWorker) -> None:
    times: list[float] = []
    worker = make_worker(lambda frame: times.append(time.monotonic()), max_rate=20.0)
    worker.start()
    end = time.monotonic() + 0.55
    while time.monotonic() < end:
        worker.put(0)
        time.sleep(0.002)
    # 20 Hz for 0.55 s: at 0, 50, … 550 ms.
    assert 3 <= len(times) <= 12
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.049


def test_setup_runs_in_the_thread_that_processes(make_worker: MakeWorker) -> None:
    threads: list[int] = []
    worker = make_worker(lambda frame: threads.append(threading.get_ident()))
    worker.start(setup=lambda: threads.append(threading.get_ident()))
    assert len(threads) == 1
    worker.put(0)
    wait_until(lambda: len(threads) == 2)
    assert threads[0] == threads[1] != threading.get_ident()


def test_failing_setup_raises_and_leaves_no_thread() -> None:
    def setup() -> None:
        raise RuntimeError('no memory')

    before = threading.active_count()
    worker: FrameWorker[int, int, int] = FrameWorker(
        lambda f: f, lambda r: r, lambda r: None, lambda e: None
    )
    with pytest.raises(RuntimeError, match='no memory'):
        worker.start(setup)
    assert threading.active_count() == before


def test_a_worker_is_started_once(make_worker: MakeWorker) -> None:
    worker = make_worker(lambda frame: frame)
    worker.start()
    with pytest.raises(RuntimeError, match='once'):
        worker.start()


def test_stopping_waits_for_the_frame_in_work_and_says_if_it_hangs(
    make_worker: MakeWorker,
) -> None:
    gate, begun = threading.Event(), threading.Event()

    def process(frame: int) -> None:
        begun.set()
        gate.wait(10)

    worker = make_worker(process)
    worker.start()
    worker.put(0)
    assert begun.wait(5)
    assert worker.statistics().busy > 0.0
    assert worker.stop(timeout=0.05) is False
    gate.set()
    assert worker.stop(timeout=5) is True


def test_times(make_worker: MakeWorker) -> None:
    worker = make_worker(lambda frame: time.sleep(0.02) or frame)
    worker.start()
    assert worker.statistics().latency == 0.0
    for _ in range(5):
        worker.put(0)
        time.sleep(0.06)
    counts = worker.statistics()
    assert counts.processed == 5
    assert 0.02 <= counts.latency <= counts.latency_max < 0.5
    assert 5 < counts.rate < 30
    time.sleep(0.1)
    assert worker.statistics().idle >= 0.1


# What is done between frames.


def test_an_errand_is_run_in_the_model_s_thread_and_no_frame_is_lost(
    make_worker: MakeWorker,
) -> None:
    gate, begun = threading.Event(), threading.Event()
    done: list[tuple[str, str]] = []

    def process(frame: str) -> None:
        begun.set()
        gate.wait(5)
        done.append((frame, threading.current_thread().name))

    worker = make_worker(process)
    worker.start()
    worker.put('first')
    assert begun.wait(5)
    worker.put('second')
    for name in ('a', 'b'):
        worker.run(lambda name=name: done.append((name, threading.current_thread().name)))
    gate.set()
    wait_until(lambda: len(done) == 4)
    assert [what for what, _ in done] == ['first', 'a', 'b', 'second']
    assert {thread for _, thread in done} == {'frame_worker'}
    assert worker.statistics().dropped == 0
    worker.run(lambda: done.append(('alone', '')))
    wait_until(lambda: len(done) == 5, what='without any frame')


def test_an_errand_neither_waits_for_the_rate_nor_counts_in_it(make_worker: MakeWorker) -> None:
    frames: list[float] = []
    errands: list[float] = []
    worker = make_worker(lambda frame: frames.append(time.monotonic()), max_rate=2.0)
    worker.start()
    worker.put(0)
    wait_until(lambda: frames)
    worker.put(1)
    asked = time.monotonic()
    worker.run(lambda: errands.append(time.monotonic()))
    wait_until(lambda: errands)
    assert errands[0] - asked < 0.3
    wait_until(lambda: len(frames) == 2)
    assert 0.45 < frames[1] - frames[0] < 0.95


def test_an_errand_that_fails_is_reported_and_none_is_run_after_the_end(
    make_worker: MakeWorker,
) -> None:
    errors: list[Exception] = []
    worker = make_worker(lambda frame: None, on_error=errors.append)
    worker.start()

    def fail() -> None:
        raise ValueError('an errand')

    worker.run(fail)
    wait_until(lambda: errors)
    assert str(errors[0]) == 'an errand'
    ran: list[int] = []
    assert worker.stop()
    worker.run(lambda: ran.append(1))
    time.sleep(0.1)
    assert ran == []


def test_an_interrupt_while_it_starts_leaves_no_thread(make_worker: MakeWorker) -> None:
    """A process that ends while a thread runs a model is aborted by the model's own threads."""
    left = threading.Event()

    def warm_up() -> None:
        _thread.interrupt_main()
        time.sleep(0.2)
        left.set()

    worker = make_worker(lambda frame: frame)
    with pytest.raises(KeyboardInterrupt):
        worker.start(setup=warm_up)
    assert left.is_set(), 'the model has not been waited for'
    assert not [thread for thread in worker._threads if thread.is_alive()]


def test_threads_that_wait_keep_no_frame(make_worker: MakeWorker) -> None:
    class Frame:
        """Something that can be referred to weakly."""

    kept: list[weakref.ref[Frame]] = []

    def follow(frame: Frame) -> Frame:
        kept.append(weakref.ref(frame))
        return Frame()

    worker = make_worker(follow, finish=lambda result: follow(result) and None, publish=follow)
    worker.start()
    worker.put(Frame())
    wait_until(lambda: len(kept) == 3 and not any(one() for one in kept))
