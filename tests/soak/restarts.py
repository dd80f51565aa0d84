"""Kills the node and starts it again, many times, beside a camera and a listener that go on.

    python -m tests.soak.restarts --count 200 --report FILE

The time to the first answer counts from the start of the process, and, apart, from the moment at
which the node is ready (``active``). At the end no shared memory of the killed nodes is left. Exits
with 1 where an answer came later than ``--limit`` seconds after the start.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from tests.long_runs import prepare, report


def run(count: int, limit: float, patience: float, model: str) -> dict[str, Any]:
    """Restart ``count`` times with a model, by its name; return the report."""
    from ros_peers import NodeProcess, Peer, picture, shared_memory_files
    from sensor_msgs.msg import Image

    from clipseg_ros.process.shared_memory import SHARED_MEMORY, remove_orphans
    from clipseg_ros.ros.qos import image_output

    ours: set[str] = set()
    from_ready: list[float] = []
    from_start: list[float] = []
    left: list[int] = []
    parameters = {'model': model, 'device': 'cpu', 'prompt': "'the mug'"}
    peer = Peer(int(os.environ['ROS_DOMAIN_ID']), 'restarts')
    masks = peer.collect(Image, '/again/clipseg/mask', image_output())
    images = peer.node.create_publisher(Image, '/again/image', image_output())
    rgb = picture(120, 160)
    over = threading.Event()

    def film() -> None:
        while not over.wait(1 / 30):
            images.publish(peer.stamped(rgb))

    camera = threading.Thread(target=film)
    camera.start()
    try:
        for number in range(count):
            started = time.monotonic()
            node = NodeProcess(
                'clipseg_ros.segment_node',
                parameters,
                ['-r', '__ns:=/again'],
                afresh=True,
            )
            node.wait_for(f'active: {model}', patience)
            ready = time.monotonic()
            masks.clear()
            while not masks and time.monotonic() - ready < patience:
                time.sleep(0.01)
            now = time.monotonic()
            from_ready.append(now - ready if masks else float('inf'))
            from_start.append(now - started)
            ours |= shared_memory_files(node.pid)
            if number < count - 1:
                node.send_signal(signal.SIGKILL)
                node.join(10.0)
                left.append(sum((SHARED_MEMORY / name).exists() for name in ours))
            else:
                status = node.stop()
    finally:
        over.set()
        camera.join()
        peer.close()
    # Ports of other processes, which the nodes wrote to, are in use.
    after = ours & set(remove_orphans())
    late = [round(seconds, 2) for seconds in from_start if seconds > limit]
    return {
        'restarts': count,
        'model': model,
        'from_start_s': {
            'median': round(sorted(from_start)[count // 2], 2),
            'slowest': round(max(from_start), 2),
            'later_than_limit': late,
        },
        'from_ready_s': {
            'median': round(sorted(from_ready)[count // 2], 2),
            'slowest': round(max(from_ready), 2),
        },
        'files_in_shared_memory': {'most_meanwhile': max(left, default=0), 'left': sorted(after)},
        'problems': [*late, *sorted(after), *([] if status == 0 else [f'exit status {status}'])],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=200)
    parser.add_argument('--limit', type=float, default=5.0)
    parser.add_argument('--patience', type=float, default=300.0)
    parser.add_argument('--model', default='everyday')
    parser.add_argument('--report', type=Path)
    given = parser.parse_args()
    prepare()
    found = run(given.count, given.limit, given.patience, given.model)
    return report(found, given.report)


if __name__ == '__main__':
    raise SystemExit(main())
