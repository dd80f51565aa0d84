"""Where the user's files lie, also for users without a home."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from clipseg_model.errors import ClipsegError


def name_user() -> None:
    """Give a user without a name one, for this process and its children.

    Containers run under numbers that no list of users has; ``torch.compile`` and ``torch.onnx`` ask
    for a name all the same, for folders in ``/tmp``.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ['LOGNAME'] = f'user-{os.getuid()}'


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the user's home, or as it is where there is no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_folder(variable: str, *inside: str) -> Path:
    """Return a folder for what can be made or fetched again; it may not exist yet.

    Args:
        variable: Of the environment, which names another folder.
        inside: Its path below ``clipseg`` in the user's cache: ``$XDG_CACHE_HOME``, or
            ``~/.cache``, or a folder among the temporary ones where the user has no home.

    Raises:
        ClipsegError: The temporary folder belongs to another user.
    """
    if chosen := os.environ.get(variable):
        return expanded(chosen)
    cache = expanded(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
    if cache.parts[:1] == ('~',):
        cache = Path(os.environ.get('TMPDIR') or '/tmp') / f'clipseg-{os.getuid()}'
        # Everybody may make files there, and what lies in a cache is loaded.
        if os.path.lexists(cache) and cache.lstat().st_uid != os.getuid():
            raise ClipsegError(
                f'There is no home for the user {os.getuid()}, and {cache} belongs to somebody '
                f'else: set {variable} or XDG_CACHE_HOME to a folder of yours'
            )
    return cache.joinpath('clipseg', *inside)
