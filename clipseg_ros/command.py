"""The command ``clipseg`` as it is installed."""

from __future__ import annotations

import signal

from clipseg_ros.process.tuning import tune_process


def main() -> None:
    """Run the command. Ctrl-C ends it at once while libraries are imported, without a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    tune_process()
    from clipseg_ros.cli import app

    signal.signal(signal.SIGINT, before)
    app()


if __name__ == '__main__':
    main()
