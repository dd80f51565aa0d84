"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path, mode: int | None = None) -> Iterator[Path]:
    """Write a file or a folder in place of an older one, complete or not at all.

    The folder of ``path`` is made. An older file passes its mode on; a new one, and every file of a
    folder, gets ``mode``, or where that is None the mode that the umask gives. An older folder is
    removed with all that it holds.

    Yields:
        A path beside the target where nothing is yet, and where the block writes one file or makes
        one folder. If the block raises, what it wrote is removed and the older target is untouched.

    Raises:
        OSError: The target cannot be written, or the block wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is new, so that two writers of one target do not meet, and ends in a suffix that no
    # reader of the folder looks for.
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.part')
    # Some writers, safetensors among them, make files that only their owner may read.
    if path.is_file():
        mode = stat.S_IMODE(path.stat().st_mode)
    elif mode is None:
        mode = _mode_of_new(temporary)
    try:
        yield temporary
        whole = temporary.is_dir()
        for file in filter(Path.is_file, temporary.rglob('*')) if whole else [temporary]:
            file.chmod(mode)
            # Without this, a power cut after the rename may leave an empty file.
            _sync(file)
        if whole:
            _replace_folder(temporary, path)
        else:
            temporary.replace(path)
        _sync(path.parent)
    finally:
        _remove(temporary)


def write_atomically(path: str | Path, content: str | bytes, mode: int | None = None) -> None:
    """Write text (UTF-8) or bytes to a file as :func:`replacing` does; raises OSError likewise."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, mode) as temporary:
        # Nobody else reads it before it has its mode.
        temporary.touch(0o600, exist_ok=False)
        temporary.write_bytes(data)


def _mode_of_new(path: Path) -> int:
    """Return the mode that a new file of this name gets."""
    path.touch(exist_ok=False)
    try:
        return stat.S_IMODE(path.stat().st_mode)
    finally:
        path.unlink()


def _replace_folder(temporary: Path, path: Path) -> None:
    """Give a folder its name. No system call swaps two folders, so the older one moves aside."""
    older = temporary.with_suffix('.old')
    if path.exists():
        path.rename(older)
    try:
        temporary.rename(path)
    except OSError:
        if older.exists():
            older.rename(path)
        raise
    _remove(older)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
