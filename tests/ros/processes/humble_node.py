"""The node `segment`, or `camera` where the first argument says so, on the rclpy of Humble."""

from __future__ import annotations

import importlib
import sys


def main() -> int:
    from stand_ins.humble import become_humble

    become_humble()
    from rclpy.node import Node

    from clipseg_ros.ros import distributions

    missing = not hasattr(Node, 'add_post_set_parameters_callback')
    plain = not distributions._TELLS_INFO
    if missing and plain:
        print('Humble: no add_post_set_parameters_callback, no sequence numbers', flush=True)
    name = sys.argv.pop(1)
    return int(importlib.import_module(f'clipseg_ros.{name}_node').main(sys.argv))


if __name__ == '__main__':
    raise SystemExit(main())
