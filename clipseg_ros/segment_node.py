"""Executable ``segment``: runs the node ``clipseg`` until SIGINT or SIGTERM."""

from __future__ import annotations

from clipseg_ros.ros.runner import run_node
from clipseg_ros.ros.tuning import tune_process


def main(args: list[str] | None = None) -> int:
    """Run the node; return 0 after a signal, 1 where the node could not be made."""
    tune_process()
    # Imported here: it imports torch, which reads its settings only once.
    from clipseg_ros.segment.lifecycle import SegmentNode

    return run_node(SegmentNode, args)


if __name__ == '__main__':
    raise SystemExit(main())
