"""Images on the wire that do not reach the node are told from a camera that pauses."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from ros_peers import Peer, picture, wait_until
from sensor_msgs.msg import Image

from clipseg_ros.health.wire_watch import WireWatch, hears_images
from clipseg_ros.ros.qos import image_output


class Watched:
    def __init__(self, listen: Callable[[], bool]) -> None:
        self.now, self.renewed = 100.0, 0
        self.watch = WireWatch(self.renew, listen, lambda: self.now)

    def renew(self) -> None:
        self.renewed += 1

    def look_until(self, done: Callable[[], bool]) -> bool:
        """Looks once a second until it has listened."""
        for _ in range(100):
            fault = self.watch.look(missing=True)
            if done():
                return self.watch.look(missing=True)
            self.now += 1.0
            time.sleep(0.01)
        return fault


def test_what_others_hear_is_a_fault_after_a_new_subscription() -> None:
    listened: list[float] = []
    watched = Watched(lambda: bool(listened.append(watched.now) or True))
    assert not watched.watch.look(missing=False)
    assert watched.renewed == 0, 'nothing is done while all is well'
    assert watched.look_until(lambda: watched.watch.fault)
    assert watched.renewed == 1
    assert listened == [103.0], 'a new subscription has its time first'
    assert not watched.watch.look(missing=False), 'images came'
    watched.watch.close()


def test_a_camera_that_pauses_is_none_and_looked_into_again() -> None:
    listened: list[float] = []
    watched = Watched(lambda: bool(listened.append(watched.now)))
    assert not watched.look_until(lambda: len(listened) == 2)
    assert listened[1] - listened[0] >= 30.0
    assert watched.renewed == 2
    watched.watch.close()


@pytest.mark.parametrize('sends', [True, False])
def test_another_participant_hears_what_is_sent(peer: Peer, domain: int, sends: bool) -> None:
    publisher = peer.publisher(Image, '/wire/image', image_output(), matched=0)
    image = peer.stamped(picture(60, 80))
    timer = peer.node.create_timer(0.05, lambda: publisher.publish(image) if sends else None)
    wait_until(lambda: peer.node.count_publishers('/wire/image'))
    try:
        assert hears_images('Image', '/wire/image', domain, 60.0 if sends else 1.0) == sends
    finally:
        peer.node.destroy_timer(timer)
        peer.node.destroy_publisher(publisher)
