"""The node of programs that are no nodes themselves: how it ends."""

from __future__ import annotations

from ros_peers import shared_memory_files

from clipseg_ros.ros.peer import Peer


def test_closing_after_its_context_was_shut_down(domain: int) -> None:
    before = shared_memory_files()
    peer = Peer('short', domain)
    assert shared_memory_files() - before
    peer.node.context.shutdown()
    peer.close()
    peer.close()
    assert not shared_memory_files() - before
