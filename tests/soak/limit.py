"""The node with 200 MB of addresses beyond what it has when idle, 254 prompts and images of 4K.

    python -m tests.soak.limit --seconds 600 --report FILE

It may answer less; it may not end, and what it does not answer is counted in the diagnostics.
Afterwards, without the limit, it answers a small image. Exits with 1 where that is not so.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.long_runs import prepare, report

MORE = 200_000_000
_COUNTS = ('received', 'processed', 'dropped', 'failed', 'refused', 'callback_faults', 'lost')


def run(seconds: float, patience: float) -> dict[str, Any]:
    """Run under the limit; return the report."""
    from diagnostic_msgs.msg import DiagnosticArray
    from ros_peers import NodeProcess, Peer, picture, write_tiny_model
    from sensor_msgs.msg import Image

    from clipseg_ros.ros.qos import image_output

    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / 'tiny.safetensors'
        write_tiny_model(model)
        node = NodeProcess(
            'clipseg_ros.segment_node',
            {'model': model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug'"},
            ['-r', '__ns:=/limit'],
            afresh=True,
        )
        node.may_fail = True
        peer = Peer(int(os.environ['ROS_DOMAIN_ID']), 'limit')
        try:
            node.wait_for('active: tiny', patience)
            masks = peer.collect(Image, '/limit/clipseg/mask', image_output())
            reports = peer.collect(DiagnosticArray, '/diagnostics', 10)
            images = peer.publisher(Image, '/limit/image', image_output())
            small, large = picture(120, 160), picture(2160, 3840)

            def answered(rgb: Any, wait: float) -> bool:
                image = peer.stamped(rgb)
                until = time.monotonic() + wait
                while time.monotonic() < until:
                    images.publish(image)
                    time.sleep(0.1)
                    if any(mask.header == image.header for mask in masks):
                        masks.clear()
                        return True
                return False

            def values() -> dict[str, str]:
                return {item.key: item.value for item in reports[-1].status[0].values}

            if not answered(small, patience):
                raise RuntimeError(f'no answer before the limit:\n{node.tail(20)}')
            pages = int(Path(f'/proc/{node.pid}/statm').read_text().split()[0])
            limit = pages * os.sysconf('SC_PAGE_SIZE') + MORE
            resource.prlimit(node.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            words = ['the mug', 'red bowl', 'a chair', 'blue mug']
            texts = [f'{number}: {words[number % 4]}' for number in range(254)]
            taken = peer.set_parameter('/limit/clipseg', 'prompt', texts, patience)
            started = time.monotonic()
            shown: list[Any] = []
            late: list[Any] = []
            while time.monotonic() - started < seconds and node.running:
                image = peer.stamped(large)
                shown.append(image.header)
                until = time.monotonic() + 2.0
                while time.monotonic() < until:
                    images.publish(image)
                    time.sleep(0.1)
                # An answer may take longer than an image is shown.
                late += [mask.header for mask in masks if mask.width == large.shape[1]]
                masks.clear()
            answers = sum(header in late for header in shown)
            if any(header not in shown for header in late):
                problems.append('a mask of an image that was never shown')
            under = values()
            if node.running:
                resource.prlimit(
                    node.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                )
                peer.set_parameter('/limit/clipseg', 'prompt', 'the mug', patience)
                if not answered(small, patience):
                    problems.append('no answer to a small image without the limit')
            else:
                problems.append(f'the node ended: {node.tail(30)}')
        finally:
            peer.close()
            status = node.stop(patience=60.0)
    counts = {name: int(under.get(name, 0)) for name in _COUNTS}
    unexplained = answers == 0 and not (counts['failed'] or counts['callback_faults'])
    if unexplained:
        problems.append('nothing was answered, and nothing says why')
    if status != 0:
        problems.append(f'exit status {status}: {node.tail(20)}')
    return {
        'seconds': round(time.monotonic() - started),
        'more_mb': MORE // 10**6,
        'prompts_taken': taken.successful,
        'images_of_4k': len(shown),
        'answered': answers,
        'counts': counts,
        'prompts_at_once': under.get('prompts_at_once', ''),
        'log_lines': len(node.lines),
        'log_tail': node.lines[-5:],
        'problems': problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=600.0)
    parser.add_argument('--patience', type=float, default=300.0)
    parser.add_argument('--report', type=Path)
    given = parser.parse_args()
    prepare()
    found = run(given.seconds, given.patience)
    return report(found, given.report)


if __name__ == '__main__':
    raise SystemExit(main())
