"""The node, which says each change of its prompts at once: tests wait for those lines."""

from __future__ import annotations


def main() -> int:
    from clipseg_ros.ros import log
    from clipseg_ros.segment_node import main as run

    log._BURST = 10_000
    return run()


if __name__ == '__main__':
    raise SystemExit(main())
