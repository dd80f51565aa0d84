"""Executable ``segment``: runs the node ``clipseg`` until SIGINT or SIGTERM."""

from __future__ import annotations

from clipseg_ros.process.start import end_at_once_if_asked
from clipseg_ros.process.tuning import tune_process


def main(args: list[str] | None = None) -> int:
    """Run the node; return 0 after a signal, 1 where the node could not be made or has failed."""
    end_at_once_if_asked()
    tune_process()
    # Imported here: torch reads its settings only once, and a signal may come meanwhile.
    from clipseg_ros.process.runner import run_node
    from clipseg_ros.segment.lifecycle import SegmentNode

    return run_node(SegmentNode, args)


if __name__ == '__main__':
    raise SystemExit(main())
