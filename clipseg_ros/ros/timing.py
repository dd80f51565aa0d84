"""Stamps of messages as numbers, and timers that do not depend on the ROS clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.time import Time


def stamp_of(message: Any) -> int:
    """Return the stamp of a message with a header, in nanoseconds.

    A time before 1970, which rclpy refuses, counts as 0, as in a message that nobody stamped.
    """
    stamp = message.header.stamp
    return int(Time.from_msg(stamp).nanoseconds) if stamp.sec >= 0 else 0


def create_steady_timer(node: Any, period: float, callback: Callable[[], object]) -> Any:
    """Create a timer, period in seconds, that runs also while ``use_sim_time`` has no clock."""
    return node.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
