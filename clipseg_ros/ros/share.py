"""Where the files are that the package installs beside its modules: config, launch and messages."""

from __future__ import annotations

from pathlib import Path


def share_path(*parts: str) -> Path:
    """Return a file or folder below ``share/clipseg_ros``, or below the root of a checkout.

    Raises:
        FileNotFoundError: Neither has it.
    """
    package = Path(__file__).parents[1]
    for folder in (package.parent, *(p / 'share' / 'clipseg_ros' for p in package.parents)):
        path = folder.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(
        f'{"/".join(parts)} is neither in {package.parent} nor in share/clipseg_ros of a folder '
        'above it: the installation of clipseg_ros is incomplete, install it again'
    )
