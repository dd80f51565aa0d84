"""Runs a module as if torch were not installed: ``python -m tests.without_torch MODULE ARGUMENT…``.

When that ends, nothing may have imported torch behind its back either.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

HIDDEN = frozenset(['torch', 'torchvision', 'open_clip', 'timm', 'onnx', 'onnxscript'])


class Hiding:
    """A finder of modules that does not find some."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition('.')[0] in HIDDEN:
            return None
        return self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide() -> None:
    """Hide them from this process."""
    assert not HIDDEN & set(sys.modules)
    sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]


def told_by(script: Path, *words: object) -> tuple[dict[str, Any], str]:
    """Run a script that hides them; return the JSON of its last line, and what it complained of."""
    done = subprocess.run(
        [sys.executable, script, *map(str, words)],
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:{os.environ.get("PYTHONPATH", "")}'},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


if __name__ == '__main__':
    hide()
    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
    finally:
        found = HIDDEN & set(sys.modules)
        assert not found, found
