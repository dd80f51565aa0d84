"""Stamps as numbers; and what the package relies on in rclpy beyond its documentation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from builtin_interfaces.msg import Time
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Header, String

from clipseg_ros.ros.callback_groups import Gate, forget_dead_entities
from clipseg_ros.ros.qos import command_input
from clipseg_ros.ros.timing import create_steady_timer, stamp_of

MOVED = (
    'rclpy has changed: adapt clipseg_ros/ros/callback_groups.py, the one module that relies on '
    'internals of its callback groups'
)


class Stamped:
    def __init__(self, sec: int, nanosec: int = 0) -> None:
        self.header = Header(stamp=Time(sec=sec, nanosec=nanosec))


@pytest.mark.parametrize(
    ('sec', 'nanosec', 'expected'),
    [(0, 0, 0), (3, 4, 3_000_000_004), (2**31 - 1, 999_999_999, 2_147_483_647_999_999_999)],
)
def test_stamps_are_nanoseconds(sec: int, nanosec: int, expected: int) -> None:
    assert stamp_of(Stamped(sec, nanosec)) == expected


def test_a_stamp_before_1970_does_not_end_the_node() -> None:
    assert stamp_of(Stamped(-1)) == stamp_of(Stamped(-(2**31), 5)) == 0


@pytest.fixture
def node(domain: int) -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    made = rclpy.create_node('groups', context=context)
    yield made
    made.destroy_node()
    context.try_shutdown()


def test_destroyed_entities_are_forgotten(node: Node) -> None:
    group = node.default_callback_group
    assert isinstance(group, MutuallyExclusiveCallbackGroup), MOVED
    assert hasattr(group, 'entities'), MOVED
    forget_dead_entities(node)
    before = len(group.entities)
    for _ in range(3):
        node.destroy_timer(create_steady_timer(node, 1.0, lambda: None))
    forget_dead_entities(node)
    assert len(group.entities) == before, MOVED


def test_what_is_behind_a_gate_waits_while_it_is_shut(node: Node) -> None:
    gate, received = Gate(), []
    node.create_subscription(
        String, 'behind_gate', received.append, command_input(), callback_group=gate
    )
    publisher = node.create_publisher(String, 'behind_gate', command_input())
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    gate.shut = True
    publisher.publish(String(data='mug'))
    for _ in range(10):
        executor.spin_once(timeout_sec=0.02)
    assert received == [], MOVED
    gate.shut = False
    for _ in range(100):
        executor.spin_once(timeout_sec=0.02)
        if received:
            break
    executor.shutdown()
    assert [message.data for message in received] == ['mug'], MOVED
