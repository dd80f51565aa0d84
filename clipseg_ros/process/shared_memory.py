"""Remove what killed ROS 2 processes leave in shared memory.

Fast DDS keeps the messages between processes of one machine in files of ``/dev/shm``: with this
package's profile some 32 MB per process. A killed process cannot remove its files, and no other
process does. The owner of a file holds an exclusive lock on its companion ``…_el`` as long as it
lives; a port that others write to after its owner's end is made again without a companion. A file
is an orphan if nobody holds that lock and no process has it mapped.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')

# Of Fast DDS 3 (ROS 2 Kilted), and of 2 (Jazzy, Humble).
_NAME = re.compile(r'fast(?:dds|rtps)_\w+')
_CONTAINER = ('/.dockerenv', '/run/.containerenv')


def remove_orphans(folder: Path = SHARED_MEMORY, least_age: float = 0.0) -> list[str]:
    """Remove Fast DDS files without an owner; files in use, or of other users, stay.

    So does what has such a name and is no file: a folder, a pipe, a link.

    Args:
        folder: Where they lie.
        least_age: Seconds; younger files stay, whose owner may be about to take them.

    Returns:
        Names of the segments and ports that were removed, sorted.
    """
    newest = time.time() - least_age
    names = {
        path.name.removesuffix('_el')
        for path in folder.glob('fast*_*')
        if _NAME.fullmatch(path.name)
    }
    if least_age:
        names = {name for name in names if _made(folder / name) <= newest}
    if not names:
        return []
    if any(Path(mark).exists() for mark in _CONTAINER):
        # Whoever writes to a port may be a process that is not seen from here.
        names = {name for name in names if not name.startswith(('fastdds_port', 'fastrtps_port'))}
    mapped = _mapped_files(folder)
    removed = []
    for name in sorted(names - mapped):
        # In use, somebody else's, no such file, or removed by its owner since the listing.
        with suppress(OSError):
            with _locked(folder / f'{name}_el'):
                _remove(folder, name)
            removed.append(name)
    return removed


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a companion, if it is there; raises an OSError if its owner lives."""
    try:
        # Anybody may put a pipe or a link here, under any name.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        _check_regular(path, os.fstat(handle))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _made(path: Path) -> float:
    """Return when a file was made; never, if it is gone. Fast DDS writes to it by memory alone."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _remove(folder: Path, name: str) -> None:
    paths = [folder / name, folder / f'sem.{name}_mutex', folder / f'{name}_el']
    there = [path for path in paths if os.path.lexists(path)]
    for path in there:
        _check_regular(path, path.lstat())
    for path in there:
        path.unlink(missing_ok=True)


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f'{path} is no file of Fast DDS')


def _mapped_files(folder: Path) -> set[str]:
    """Return the names of a folder's Fast DDS files that a process of this user has mapped."""
    pattern = re.compile(rf' {re.escape(str(folder))}/({_NAME.pattern})$', re.MULTILINE)
    names: set[str] = set()
    for maps in Path('/proc').glob('[0-9]*/maps'):
        # Processes of other users cannot be looked into, nor their files be removed.
        with suppress(OSError):
            names.update(pattern.findall(maps.read_text(errors='replace')))
    return names


def main() -> None:
    """Remove the orphans of this machine, and print which."""
    removed = remove_orphans()
    print(f'{len(removed)} file(s) without an owner removed from {SHARED_MEMORY}')
    for name in removed:
        print(f'  {name}')


if __name__ == '__main__':
    main()
