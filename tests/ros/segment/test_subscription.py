"""Images are received while somebody needs them, and not for a while longer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import Point
from rclpy.context import Context
from ros_peers import wait_until
from sensor_msgs.msg import Image, RegionOfInterest
from std_srvs.srv import Trigger

from clipseg_ros.ros.qos import QosWatch
from clipseg_ros.segment import subscription as module
from clipseg_ros.segment.subscription import ImageSubscription


class Rig:
    def __init__(self, node: Any) -> None:
        self.node, self.needed = node, False
        self.told: list[str] = []
        self.images = ImageSubscription(
            node,
            QosWatch(node),
            Image,
            '/seen/image',
            lambda message: None,
            lambda total: None,
            lambda: self.needed,
            lambda: self.told.append('opened'),
            lambda: self.told.append('closed'),
        )

    def count(self) -> int:
        """The subscriptions that the node has to images."""
        return sum(one.topic_name == '/seen/image' for one in self.node.subscriptions)


@pytest.fixture
def rig(domain: int) -> Iterator[Rig]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('seer', context=context, namespace='/seen')
    made = Rig(node)
    yield made
    made.images.destroy()
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_LINGER', 0.0)


def test_for_a_while_after_the_last_need(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.images.update()
    assert rig.images.is_open, 'just configured'
    monkeypatch.setattr(module, '_LINGER', 0.0)
    rig.images.update()
    assert (rig.images.is_open, rig.count(), rig.told) == (False, 0, ['closed'])
    rig.needed = True
    rig.images.update()
    rig.images.update()
    assert (rig.images.is_open, rig.count(), rig.told) == (True, 1, ['closed', 'opened'])
    monkeypatch.setattr(module, '_LINGER', 60.0)
    rig.needed = False
    rig.images.update()
    assert rig.images.is_open, 'they may come back'


def test_disabled_at_once_and_whoever_listens(rig: Rig) -> None:
    rig.needed = True
    rig.images.enabled = False
    assert (rig.images.is_open, rig.count()) == (False, 0)
    rig.images.update()
    assert not rig.images.is_open
    rig.images.enabled = True
    assert (rig.images.is_open, rig.count()) == (True, 1)


@pytest.mark.usefixtures('hasty')
@pytest.mark.parametrize(('topic', 'kind'), [('pick_point', Point), ('pick_box', RegionOfInterest)])
def test_who_may_point_at_the_newest_image_needs_it(rig: Rig, topic: str, kind: Any) -> None:
    rig.images.update()
    assert not rig.images.is_open
    made = rig.node.create_publisher(kind, f'/seen/seer/{topic}', 1)

    def is_open() -> bool:
        rig.images.update()
        return rig.images.is_open

    wait_until(is_open)
    rig.node.destroy_publisher(made)
    wait_until(lambda: not is_open())


@pytest.mark.usefixtures('hasty')
@pytest.mark.parametrize('service', ['pick', 'get_masks', 'segment_once'])
def test_who_keeps_a_client_without_calling_needs_no_image(rig: Rig, service: str) -> None:
    """A behaviour tree makes its clients at start, and lives as long as the robot."""
    name = f'/seen/seer/{service}'
    client = rig.node.create_client(Trigger, name)
    wait_until(lambda: rig.node.count_clients(name))
    rig.images.update()
    assert not rig.images.is_open
    rig.node.destroy_client(client)


def test_a_claim_is_a_need_and_holds_while_disabled(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.images.enabled = False
    rig.images.claim()
    assert rig.images.is_open
    rig.images.release()
    rig.images.update()
    assert not rig.images.is_open, 'at once'
    monkeypatch.setattr(module, '_LINGER', 0.0)
    rig.images.enabled = True
    rig.images.update()
    assert not rig.images.is_open
    monkeypatch.setattr(module, '_LINGER', 60.0)
    rig.images._needed_at = -100.0
    rig.images.claim()
    rig.images.release()
    rig.images.update()
    assert rig.images.is_open, 'who has asked may ask again'


@pytest.mark.usefixtures('hasty')
def test_nothing_is_left_behind(rig: Rig) -> None:
    entities = len(rig.node.default_callback_group.entities)
    for _ in range(5):
        rig.needed = not rig.needed
        rig.images.update()
    assert len(rig.node.default_callback_group.entities) <= entities
