"""Memory that a storm has left is given back, and not that of every frame."""

from __future__ import annotations

from clipseg_ros.health.memory_watch import MemoryWatch


class Process:
    """Memory of a process whose C library keeps what is freed until it is asked."""

    def __init__(self) -> None:
        self.used, self.kept, self.now, self.asked = 500, 0, 0.0, 0
        self.watch = MemoryWatch(self.release, lambda: self.now)

    def release(self) -> None:
        self.kept, self.asked = 0, self.asked + 1

    def look(self, seconds: int) -> int:
        """Looks once a second; returns what is resident then."""
        for _ in range(seconds):
            self.now += 1.0
            self.watch.look(lambda: self.used + self.kept)
        return self.used + self.kept


def test_what_a_storm_leaves_goes_within_a_minute() -> None:
    process = Process()
    process.look(30)
    assert process.asked == 0
    process.kept = 700
    assert process.look(60) <= 1.1 * 500
    assert process.asked == 1


def test_what_is_freed_after_the_peak_goes_too() -> None:
    """In the peak it was in use, and the memory has not grown since."""
    process = Process()
    process.look(30)
    process.used = 1100
    process.look(20)
    assert process.asked == 1
    process.used, process.kept = 500, 550
    assert process.look(45) == 500


def test_what_is_in_use_is_not_asked_for_again_and_again() -> None:
    process = Process()
    process.look(30)
    process.used = 900
    process.look(600)
    assert process.asked <= 6
    process.kept = 300
    assert process.look(30) == 900, 'it has grown again'
    process.used = 500
    process.look(30)
    process.kept = 300
    assert process.look(60) == 500, 'less is usual by now'


def test_what_frames_take_and_leave_stays() -> None:
    process = Process()
    for _ in range(20):
        process.kept = 20
        process.look(5)
    assert process.asked == 0
