"""The node of programs that are no nodes themselves: how it goes on, and how it ends."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.waitable import NumberOfEntities, Waitable
from ros_peers import shared_memory_files

from clipseg_ros.ros.peer import Peer


def test_closing_after_its_context_was_shut_down(own_domain: int) -> None:
    # In a domain of its own: other nodes of this process map the memory of those that they find.
    before = shared_memory_files()
    peer = Peer('short', own_domain)
    assert shared_memory_files() - before
    peer.node.context.shutdown()
    peer.close()
    peer.close()
    assert not shared_memory_files() - before


class Destroyed(Waitable):  # Generic from Kilted on alone.
    """What an executor meets once that begins to wait for what another thread destroys."""

    met = False

    def __init__(self) -> None:
        super().__init__(ReentrantCallbackGroup())

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities()

    def is_ready(self, wait_set: Any) -> bool:
        return False

    def add_to_wait_set(self, wait_set: Any) -> None:
        if not self.met:
            self.met = True
            raise InvalidHandle('destruction was requested')


def test_it_outlives_what_is_destroyed_while_it_begins_to_wait(domain: int) -> None:
    peer = Peer('steady', domain)
    try:
        destroyed = Destroyed()
        peer.node.add_waitable(destroyed)
        assert peer.get_parameter('/steady', 'use_sim_time', 10.0) is False
        assert destroyed.met
    finally:
        peer.close()
