"""Runs the demo: ``python -m clipseg_ros.demo``."""

from clipseg_ros.process.start import INTERRUPTED, end_at_once_if_asked


def main() -> None:
    """Run it; end with status 130 where it is interrupted."""
    end_at_once_if_asked(INTERRUPTED)
    # Imported here: a signal may come meanwhile.
    from clipseg_ros.demo.app import app

    app()


if __name__ == '__main__':
    main()
