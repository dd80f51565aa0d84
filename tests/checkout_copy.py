"""A copy of the repository without what a checkout has beside it, to build packages in."""

from __future__ import annotations

import shutil
from pathlib import Path

# What the Makefile and the commands leave at the root of a checkout.
MADE = {'build', 'install', 'log', 'demo', 'runs', 'data', 'benchmarks'}
MADE |= {'build-jazzy', 'install-jazzy'}


def copy_checkout(root: Path, target: Path) -> None:
    """Copy a checkout to a folder that does not exist yet, without hidden and built files."""
    anywhere = shutil.ignore_patterns('.*', '__pycache__', '*.egg-info')

    def left_out(folder: str, names: list[str]) -> set[str]:
        return anywhere(folder, names) | (MADE & set(names) if Path(folder) == root else set())

    shutil.copytree(root, target, ignore=left_out)
