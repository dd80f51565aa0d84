"""The command as it is installed."""

from __future__ import annotations

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
"""
PRESS_AT_WORK = """
import os, signal, sys
import clipseg_model.registry
clipseg_model.registry.list_models = lambda: os.kill(os.getpid(), signal.SIGINT)
"""
RUN = """
sys.argv = ['clipseg', 'models']
from clipseg_ros.command import main
main()
"""


def interrupted(press: str) -> subprocess.CompletedProcess[str]:
    """Runs `clipseg models`, with Ctrl-C at some point."""
    return subprocess.run(
        [sys.executable, '-c', press + RUN], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_an_interrupt_while_libraries_are_imported() -> None:
    # The last when the command runs already.
    for module in ('typer', 'rich.console', 'clipseg_model.registry'):
        done = interrupted(PRESS.format(module=module))
        assert done.returncode == 130
        assert done.stderr == 'interrupted while starting: nothing had begun\n'


def test_an_interrupt_of_its_work() -> None:
    done = interrupted(PRESS_AT_WORK)
    assert done.returncode in (1, 130)
    assert 'nothing had begun' not in done.stderr
    assert 'Traceback' not in done.stderr
