"""Who a mismatch of QoS is with: told once the graph knows it, and after some looks in any case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rclpy.qos import QoSReliabilityPolicy
from sensor_msgs.msg import Image

from clipseg_ros.ros.qos import QosWatch, image_output, sensor_input

UNKNOWN = '_NODE_NAME_UNKNOWN_'


class Graph:
    """What a node knows of its only topic; the name of the peer's node may be set."""

    def __init__(self) -> None:
        best_effort = image_output()
        best_effort.reliability = QoSReliabilityPolicy.BEST_EFFORT
        self.peer = SimpleNamespace(
            node_name=UNKNOWN, node_namespace='/', endpoint_gid=[1, 2], qos_profile=best_effort
        )

    def resolve_topic_name(self, topic: str) -> str:
        return f'/{topic}'

    def create_subscription(self, *_: Any, event_callbacks: Any, **__: Any) -> Any:
        return event_callbacks

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        return [self.peer]


def watching(graph: Graph) -> QosWatch:
    watch, profile = QosWatch(graph), sensor_input()
    profile.reliability = QoSReliabilityPolicy.RELIABLE
    events = watch.create_subscription(Image, 'image', lambda message: None, profile)
    assert watch.mismatches() == []
    events.incompatible_qos(None)
    return watch


def test_it_waits_for_the_name_of_a_peer() -> None:
    graph = Graph()
    watch = watching(graph)
    assert watch.mismatches() == []
    graph.peer.node_name = 'driver'
    (sentence,) = watch.mismatches()
    assert '/driver offers reliability best_effort' in sentence


def test_it_does_not_wait_for_ever() -> None:
    watch = watching(Graph())
    assert [len(watch.mismatches()) for _ in range(6)] == [0, 0, 0, 0, 1, 1]
