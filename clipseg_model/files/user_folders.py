"""Where the user's files lie, and what libraries may learn of the user; home or no home."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Any

from clipseg_model.errors import ClipsegError


def keep_private() -> None:
    """Switch off the telemetry of OpenVINO, NNCF, ONNX Runtime and huggingface_hub.

    It must come before any of them is imported, since they report that they are, and write ids into
    the user's home. A user without a name gets one, which ``torch.compile`` asks for.
    """
    os.environ.update(ORT_DISABLE_TELEMETRY='1', HF_HUB_DISABLE_TELEMETRY='1')
    # OpenVINO and NNCF have no switch but a file in the home; so this is as if not installed.
    modules: dict[str, Any] = sys.modules
    modules.setdefault('openvino_telemetry', None)
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
    """Return the folder that a variable names, or one ``inside`` of ours in the user's cache.

    It may not exist yet. The cache of a user without a home is among the temporary files.

    Raises:
        ClipsegError: That one belongs to another user, who could put models there.
    """
    if chosen := os.environ.get(variable):
        return expanded(chosen)
    cache = expanded(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
    if cache.parts[:1] == ('~',):
        cache = Path(os.environ.get('TMPDIR') or '/tmp') / f'clipseg-{os.getuid()}'
        if os.path.lexists(cache) and cache.lstat().st_uid != os.getuid():
            raise ClipsegError(
                f'There is no home for the user {os.getuid()}, and {cache} belongs to somebody '
                f'else: set {variable} or XDG_CACHE_HOME to a folder of yours'
            )
    return cache.joinpath('clipseg', *inside)
