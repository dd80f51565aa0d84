"""The command ``clipseg`` as it is installed."""

from __future__ import annotations

from clipseg_ros.process.start import (
    INTERRUPTED,
    end_at_once_if_asked,
    take_signals_as_usual,
)
from clipseg_ros.process.tuning import tune_process


def main() -> None:
    """Run the command; Ctrl-C ends it with status 130, at once until its work begins."""
    end_at_once_if_asked(INTERRUPTED)
    tune_process()
    # Imported here: a signal may come meanwhile.
    from clipseg_model.cli.console import before_work
    from clipseg_ros.cli import app

    before_work.append(take_signals_as_usual)
    app()


if __name__ == '__main__':
    main()
