"""Files are complete under their name, or as they were before."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from clipseg_model.files.atomic_files import replacing, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_off(write: Callable[[str], object], error: BaseException) -> None:
    write('half')
    raise error


def test_text_and_bytes_are_written_into_a_folder_that_is_made(tmp_path):
    write_atomically(tmp_path / 'new' / 'a.txt', 'Tür\n')
    write_atomically(str(tmp_path / 'new' / 'b.bin'), b'\0\1')
    assert (tmp_path / 'new' / 'a.txt').read_bytes() == 'Tür\n'.encode()
    assert (tmp_path / 'new' / 'b.bin').read_bytes() == b'\0\1'
    assert names(tmp_path / 'new') == ['a.txt', 'b.bin']


def test_the_older_file_stands_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / 'state.json'
    target.write_text('old')
    with replacing(target) as temporary:
        assert temporary.parent == target.parent  # a rename between file systems is a copy
        temporary.write_text('new')
        assert target.read_text() == 'old'
    assert target.read_text() == 'new'
    assert names(tmp_path) == ['state.json']


@pytest.mark.parametrize('error', [OSError('No space left on device'), KeyboardInterrupt()])
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, error):
    target = tmp_path / 'state.json'
    target.write_text('old')
    with pytest.raises(type(error)), replacing(target) as temporary:
        break_off(temporary.write_text, error)
    assert target.read_text() == 'old'
    assert names(tmp_path) == ['state.json']


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    target = tmp_path / 'state.json'
    target.write_text('old')
    with pytest.raises(FileNotFoundError), replacing(target):
        pass
    assert target.read_text() == 'old'


def test_a_new_file_has_the_mode_of_the_umask_and_a_replaced_one_keeps_its_own(tmp_path):
    target = tmp_path / 'a.txt'
    before = os.umask(0o027)
    try:
        write_atomically(target, 'one')
        assert mode(target) == 0o640
        target.chmod(0o604)
        write_atomically(target, 'two')
        assert mode(target) == 0o604
    finally:
        os.umask(before)


def test_a_writer_of_private_files_does_not_decide_the_mode(tmp_path):
    with replacing(tmp_path / 'a.txt') as temporary:
        temporary.touch(0o600)
    (tmp_path / 'b.txt').touch()
    assert mode(tmp_path / 'a.txt') == mode(tmp_path / 'b.txt')


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    target = tmp_path / 'a.txt'
    with replacing(target) as first, replacing(target) as second:
        first.write_text('first')
        second.write_text('second')
    assert target.read_text() == 'first'
    assert names(tmp_path) == ['a.txt']


def test_content_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    target = tmp_path / 'a.txt'
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (order.append('sync'), sync(handle)))
    monkeypatch.setattr(os, 'replace', lambda *args: (order.append('name'), replace(*args)))
    write_atomically(target, 'text')
    assert order == ['sync', 'name', 'sync']


def fill(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / name).write_text(name)


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    target = tmp_path / 'export'
    fill(target, 'old')
    with replacing(target) as temporary:
        fill(temporary, 'new')
        assert names(target) == ['old']
    assert names(target) == ['new']
    assert names(tmp_path) == ['export']


def test_a_folder_that_is_not_completed_leaves_the_older_one(tmp_path):
    target = tmp_path / 'export'
    fill(target, 'old')
    with pytest.raises(ValueError, match='half'), replacing(target) as temporary:
        break_off(lambda name: fill(temporary, name), ValueError('half'))
    assert names(target) == ['old']
    assert names(tmp_path) == ['export']


def test_an_older_folder_comes_back_where_the_new_one_cannot_be_named(tmp_path, monkeypatch):
    target = tmp_path / 'export'
    fill(target, 'old')
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if self.suffix == '.part':
            raise OSError('Permission denied')
        return rename(self, to)

    monkeypatch.setattr(Path, 'rename', refuse)
    with pytest.raises(OSError, match='Permission denied'), replacing(target) as temporary:
        fill(temporary, 'new')
    assert names(target) == ['old']
    assert names(tmp_path) == ['export']
