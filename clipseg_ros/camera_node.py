"""Executable ``camera``: runs the node ``camera`` until SIGINT or SIGTERM."""

from __future__ import annotations

from clipseg_ros.process.start import end_at_once_if_asked
from clipseg_ros.process.tuning import keep_large_buffers


def main(args: list[str] | None = None) -> int:
    """Run the node; return 0 after a signal, 1 where the source cannot be opened."""
    end_at_once_if_asked()
    keep_large_buffers()
    # Imported here: a signal may come meanwhile.
    from clipseg_ros.camera.node import CameraNode
    from clipseg_ros.process.runner import run_node

    return run_node(CameraNode, args)


if __name__ == '__main__':
    raise SystemExit(main())
