"""The command as it is installed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PRESS = """
import os, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
sys.argv = ['clipseg', 'models']
from clipseg_ros.command import main
main()
"""


def interrupted(module: str) -> subprocess.CompletedProcess[str]:
    """Runs `clipseg models`, and presses Ctrl-C where a module is about to be imported."""
    return subprocess.run(
        [sys.executable, '-c', PRESS.format(module=module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_interrupt_while_libraries_are_imported() -> None:
    for module in ('typer', 'rich.console'):
        done = interrupted(module)
        assert done.returncode == -signal.SIGINT
        assert done.stderr == ''


def test_an_interrupt_while_a_model_is_loaded() -> None:
    done = interrupted('clipseg_model.registry')
    assert done.returncode in (1, 130)
    assert 'Traceback' not in done.stderr
