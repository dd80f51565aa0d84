"""Removes what killed ROS 2 processes leave in shared memory.

Fast DDS keeps the messages between processes of one machine in files of ``/dev/shm``: with this
package's profile some 32 MB a process. A process that is killed cannot remove its own, and no
other process does. Each file has a companion ``…_el`` that its owner holds an exclusive lock on
for as long as it lives, so orphans can be told from files in use.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')


def remove_orphans(folder: Path = SHARED_MEMORY) -> list[str]:
    """Removes Fast DDS files whose owner is gone; files in use, or of other users, stay.

    Args:
        folder: Where the files are.

    Returns:
        Names of the segments and ports that were removed, sorted.
    """
    removed = []
    for lock in sorted(folder.glob('fastdds_*_el')):
        name = lock.name.removesuffix('_el')
        try:
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in (folder / name, folder / f'sem.{name}_mutex', lock):
                    path.unlink(missing_ok=True)
        except (BlockingIOError, PermissionError, FileNotFoundError):
            # In use, somebody else's, or removed by its owner between the listing and now.
            continue
        removed.append(name)
    return removed


def main() -> None:
    """Removes the orphans of this machine and says which."""
    removed = remove_orphans()
    print(f'{len(removed)} file(s) without an owner removed from {SHARED_MEMORY}')
    for name in removed:
        print(f'  {name}')


if __name__ == '__main__':
    main()
