"""The consumer of the node's benchmark: records when the outputs arrive.

    python -m training.benchmarks.node_peers.receiver --output arrivals.json --topics mask labels

Only the stamps of messages are read, so that they cost about as much as in a consumer written in
C++. It runs until SIGINT or SIGTERM, then writes JSON: for each topic the stamp and the arrival of
each message (nanoseconds of system time), and the values of the node's diagnostics.
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from clipseg_ros.process.guarded_executor import GuardedExecutor
from clipseg_ros.process.runner import spin
from clipseg_ros.process.tuning import keep_large_buffers
from clipseg_ros.ros.qos import image_output


class Receiver:
    """A node that subscribes to outputs of ``/clipseg``, or of nodes of other names.

    Args:
        topics: Their private names, such as ``mask``, or full ones.

    Attributes:
        arrivals: For each topic (stamp, arrival) of each message, nanoseconds.
        diagnostics: The values of each of the node's diagnostics.
    """

    def __init__(self, topics: list[str]) -> None:
        self.node = rclpy.create_node('bench_receiver')
        self.arrivals: dict[str, list[tuple[int, int]]] = {topic: [] for topic in topics}
        self.diagnostics: list[dict[str, str]] = []
        for topic, arrivals in self.arrivals.items():
            self.node.create_subscription(
                Image, _full(topic), _recorder(arrivals), image_output(), raw=True
            )
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def wait_until_matched(self, timeout: float = 30.0) -> None:
        """Wait until each topic has a publisher.

        Raises:
            TimeoutError: If a topic has none in time.
        """
        deadline = time.monotonic() + timeout
        while missing := [t for t in self.arrivals if not self._publishers(t)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f'nobody publishes {missing} within {timeout:g} s')
            time.sleep(0.02)

    def _publishers(self, topic: str) -> int:
        return int(self.node.count_publishers(_full(topic)))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics.append({item.key: item.value for item in status.values})


def _full(topic: str) -> str:
    return topic if topic.startswith('/') else f'/clipseg/{topic}'


def _recorder(arrivals: list[tuple[int, int]]) -> Callable[[bytes], None]:
    def record(message: bytes) -> None:
        arrival = time.time_ns()
        # The stamp is the first field, after four bytes of which the second has the byte order.
        seconds, nanoseconds = struct.unpack_from('<iI' if message[1] & 1 else '>iI', message, 4)
        arrivals.append((seconds * 1_000_000_000 + nanoseconds, arrival))

    return record


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument('--output', type=Path, required=True, help='file to write')
    parser.add_argument('--topics', nargs='+', required=True, help='mask, labels, …')
    options = parser.parse_args(arguments)
    keep_large_buffers()
    rclpy.init(args=[])
    try:
        receiver = Receiver(options.topics)
        receiver.wait_until_matched()
        executor = GuardedExecutor()
        executor.add_node(receiver.node)
        print('receiver ready', flush=True)
        spin(executor, receiver.node.get_logger())
        executor.shutdown()
        receiver.node.destroy_node()
    finally:
        rclpy.try_shutdown()
    report = {'arrivals': receiver.arrivals, 'diagnostics': receiver.diagnostics}
    options.output.write_text(json.dumps(report) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
