"""Several `segment` nodes in one process, each in a namespace: importing torch once is enough.

python node_host.py '{"namespace": ["--ros-args", "-p", "model:=..."], ...}'
"""

from __future__ import annotations

import json
import sys

from clipseg_ros.process.tuning import tune_process


def main() -> int:
    tune_process()
    import rclpy

    from clipseg_ros.process.guarded_executor import GuardedExecutor
    from clipseg_ros.process.runner import spin
    from clipseg_ros.segment.lifecycle import SegmentNode

    rclpy.init()
    executor = GuardedExecutor()
    nodes = [
        SegmentNode(cli_args=[*arguments, '-r', f'__ns:=/{namespace}'], use_global_arguments=False)
        for namespace, arguments in json.loads(sys.argv[1]).items()
    ]
    for node in nodes:
        executor.add_node(node)
    spin(executor, nodes[0].get_logger())
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
