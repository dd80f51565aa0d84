"""Executable ``console``: the page of a running node ``segment``; see docs/console.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clipseg_ros.process.start import end_at_once_if_asked, take_signals_as_usual
from clipseg_ros.process.tuning import tune_process


def main(args: Sequence[str] | None = None) -> int:
    """Run the console with the words of a command line, those of ROS among them.

    A namespace (``--ros-args -r __ns:=/robot``) is that of the nodes that are looked at.
    """
    end_at_once_if_asked()
    tune_process()
    # Imported here: a signal may come meanwhile.
    from rclpy.utilities import remove_ros_args

    from clipseg_model.cli.console import before_work
    from clipseg_ros.cli import app

    before_work.append(take_signals_as_usual)
    words = list(sys.argv[1:] if args is None else args)
    own = list(remove_ros_args(['console', *words]))[1:]
    if '--node' not in own:
        own += ['--node', 'clipseg']
    for word in words:
        if word.startswith('__ns:='):
            own += ['--namespace', word.removeprefix('__ns:=')]
    app(['console', *own], standalone_mode=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
