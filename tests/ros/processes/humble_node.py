"""The node `segment`, or `camera` where the first argument says so, on the rclpy of Humble."""

from __future__ import annotations

import importlib
import sys


def main() -> int:
    from stand_ins.humble import become_humble

    become_humble()
    name = sys.argv.pop(1)
    return int(importlib.import_module(f'clipseg_ros.{name}_node').main(sys.argv))


if __name__ == '__main__':
    raise SystemExit(main())
