"""Runs the console of the demo: ``python -m clipseg_ros.demo.console``."""

from clipseg_ros.process.start import end_at_once_if_asked


def main() -> None:
    """Run it until Ctrl-C."""
    end_at_once_if_asked()
    # Imported here: a signal may come meanwhile.
    from clipseg_ros.demo.console_app import app

    app()


if __name__ == '__main__':
    main()
