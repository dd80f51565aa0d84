"""Runs the demo: ``python -m clipseg_ros.demo``."""

from clipseg_ros.demo.app import app

if __name__ == '__main__':
    app()
