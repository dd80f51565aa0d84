"""Who a mismatch of QoS is with: told once the graph knows it, and after some looks in any case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rclpy.qos import QoSReliabilityPolicy
from sensor_msgs.msg import Image

from clipseg_ros.ros.qos import QosWatch, image_output, sensor_input

UNKNOWN = '_NODE_NAME_UNKNOWN_'


class Log:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


class Graph:
    """What a node knows of its only topic; the name of the peer's node may be set."""

    def __init__(self) -> None:
        best_effort = image_output()
        best_effort.reliability = QoSReliabilityPolicy.BEST_EFFORT
        self.peer = SimpleNamespace(
            node_name=UNKNOWN, node_namespace='/', endpoint_gid=[1, 2], qos_profile=best_effort
        )
        self.log = Log()

    def get_logger(self) -> Log:
        return self.log

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


def test_a_warning_comes_once_and_again_where_the_peer_comes_back() -> None:
    graph = Graph()
    graph.peer.node_name = 'driver'
    watch = watching(graph)
    fitting, unfit = image_output(), graph.peer.qos_profile
    for profile, warnings in ((unfit, 1), (unfit, 1), (fitting, 1), (unfit, 2), (unfit, 2)):
        graph.peer.qos_profile = profile
        assert watch.warn() == watch.mismatches()
        assert len(graph.log.warnings) == warnings
    assert set(graph.log.warnings) == set(watch.mismatches())
