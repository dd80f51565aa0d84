"""Which files a bag is made of, and opening them."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import ExitStack
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

from clipseg_ros.bag.storage import MCAP_MAGIC, SQLITE_MAGIC, McapFile, SqliteFile, damage
from clipseg_ros.errors import BagError

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'

_SUFFIXES = ('.mcap', '.db3', '.mcap.zstd', '.db3.zstd')

_REINDEX = '`ros2 bag reindex` writes it anew'


def bag_files(path: Path) -> tuple[list[Path], Counter[str]]:
    """Return the files of a bag, and for each topic how many messages its metadata.yaml counts.

    Without a metadata.yaml, as after an interrupted recording, they are all that lie in the folder.

    Raises:
        BagError: There is no bag; or metadata.yaml is damaged, names files that are not there, or
            does not name others that are.
    """
    if not path.exists():
        raise BagError(f'{path}: there is no such bag')
    if not path.is_dir():
        return [path], Counter()
    metadata = path / 'metadata.yaml'
    with damage(path):
        present = {one.name for one in path.iterdir() if one.name.endswith(_SUFFIXES)}
    if not metadata.exists():
        if not present:
            raise BagError(
                f'{path} cannot be read as a ROS 2 bag: the folder has no metadata.yaml, and no '
                '.mcap or .db3 file'
            )
        # A file lies there twice if compressing it was interrupted; the first is complete.
        names = sorted(
            name for name in present if name.removesuffix('.zstd') not in present - {name}
        )
        return [path / name for name in names], Counter()
    with damage(metadata, _REINDEX):
        listed, counts = _read_metadata(metadata)
    missing, others = sorted(listed - present), sorted(present - listed)
    if missing or not listed:
        raise BagError(
            f'{metadata} names files that are not there: {", ".join(missing) or "none at all"}; '
            f'put them there, or {_REINDEX}'
        )
    if others:
        raise BagError(
            f'{metadata} does not name files that lie beside it: {", ".join(others)}; '
            f'{_REINDEX}, or move them to another folder'
        )
    return [path / name for name in sorted(listed)], counts


def _read_metadata(path: Path) -> tuple[set[str], Counter[str]]:
    import yaml

    about = yaml.safe_load(path.read_bytes())['rosbag2_bagfile_information']
    if (compression := about.get('compression_format') or 'zstd') != 'zstd':
        raise BagError(f'{path}: the bag is compressed with {compression}, and zstd alone is read')
    counts: Counter[str] = Counter()
    for topic in about['topics_with_message_count'] or ():
        counts[topic['topic_metadata']['name']] += int(topic['message_count'])
    # Before version 4 of the format, names had the folder before them.
    return {PurePath(name).name for name in about['relative_file_paths'] or ()}, counts


def open_file(path: Path, stack: ExitStack) -> McapFile | SqliteFile:
    """Open a file of a bag; what it is, its first bytes say.

    Raises:
        BagError: It is not of a ROS 2 bag, cannot be read, or is damaged.
    """
    with damage(path):
        content = _unpacked(path, stack)
        start = _start(content)
        if start.startswith(MCAP_MAGIC):
            return McapFile(path, stack.enter_context(content.open('rb')))
        if start == SQLITE_MAGIC:
            return SqliteFile(path, _connect(content, stack))
    if path.suffix == '.bag' or start.startswith(b'#ROSBAG V'):
        raise BagError(
            f'{path} is a bag of ROS 1: convert it first, `rosbags-convert --src {path}`'
        )
    reason = f'its first bytes are {start!r}' if start else 'the file is empty'
    raise BagError(
        f'{path} cannot be read as a ROS 2 bag (a folder with metadata.yaml, or an .mcap or .db3 '
        f'file, also compressed with zstd): {reason}'
    )


def _start(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(16)


def _unpacked(path: Path, stack: ExitStack) -> Path:
    """Return a file that is not compressed, with the content of another one."""
    # It chooses between the module of Python and its backport.
    from rosbags.rosbag2.reader import zstd

    if not _start(path).startswith(ZSTD_MAGIC):
        return path
    unpacked = Path(stack.enter_context(TemporaryDirectory()), 'unpacked')
    with zstd.open(path, 'rb') as packed, unpacked.open('wb') as file:
        shutil.copyfileobj(packed, file)
    return unpacked


def _connect(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """Open a database for reading; if it has an unfinished journal, a copy into which that went."""
    journals = [path.with_name(path.name + suffix) for suffix in ('-wal', '-journal')]
    journals = [journal for journal in journals if journal.exists() and journal.stat().st_size]
    mode = '?immutable=1'
    if journals:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        for file in (path, *journals):
            shutil.copyfile(file, folder / file.name)
        path, mode = folder / path.name, ''
    database = sqlite3.connect(f'{path.absolute().as_uri()}{mode}', uri=True)
    stack.callback(database.close)
    return database
