"""Bags may be called anything that a folder or file may be called."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from bags import change_metadata, clipseg, file_of, images, record, segment, stamps
from ros_peers import ROOT
from rosbags.rosbag2 import CompressionMode, StoragePlugin

NAMES = [
    'two words',
    'seg#1',
    'what?mode=ro',
    '50%',
    'a%20b%2F',
    'this&that',
    'Tür ☕ 日本',
    '-o',
    '--help',
    ':memory:',
    'file:x',
    'it\'s "quoted"',
    '[red]null: {a}',
    'two\nlines',
    'n' * 200,
    'many words ' * 18,
    '日本' * 33,
]
STORAGES = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]


@pytest.mark.parametrize(
    ('name', 'storage'),
    # Only SQLite reads names as addresses.
    [(name, STORAGES[1]) for name in NAMES] + [(name, STORAGES[0]) for name in NAMES[::2]],
)
def test_any_name_is_read_and_written(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    storage: StoragePlugin,
) -> None:  # fmt: skip
    bag = record(tmp_path / 'in', images(2), storage)
    file = file_of(bag).rename(bag / (name + file_of(bag).suffix))
    change_metadata(bag, lambda about: about.update(relative_file_paths=[file.name]))
    bag.rename(tmp_path / name)
    for source, output in ((Path(name), Path('out', name)), (Path('..', name, file.name), name)):
        if source != Path(name):
            (tmp_path / 'single').mkdir()
        monkeypatch.chdir(tmp_path if source == Path(name) else tmp_path / 'single')
        result = clipseg('bag', '-p', 'mug', '-m', tiny_model, '--outputs', 'mask', '-o', output,
                         '--storage', storage.name.lower(), '--', source)  # fmt: skip
        assert result.exit_code == 0, result.output
        assert f'2 images of /image, written to {output}' in result.stdout
        assert stamps(Path(output)) == [100, 101]
        written = Path.cwd() / output
        assert {path.name for path in written.iterdir()} == {file.name, 'metadata.yaml'}
        assert [path.name for path in written.parent.iterdir()] == [name]
        if storage == StoragePlugin.SQLITE3:
            with sqlite3.connect(written / file.name) as database:
                assert database.execute('SELECT count(*) FROM messages').fetchone() == (4,)
    assert {path.name for path in tmp_path.iterdir()} == {name, 'out', 'single'}


@pytest.mark.parametrize('folder', ['a#b/50%', 'what?/日本', '-x/y z'])
@pytest.mark.parametrize('storage', STORAGES)
def test_any_folder_on_the_way(
    tmp_path: Path, tiny_model: Path, folder: str, storage: StoragePlugin
) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    bag = record(tmp_path / 'in', images(1), storage, CompressionMode.FILE).rename(place / 'in')
    result = segment(bag, place / 'new' / 'out', tiny_model, '--storage', storage.name.lower())
    assert result.exit_code == 0, result.output
    assert stamps(place / 'new' / 'out') == [100]
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.partition('/')[0]]


@pytest.mark.parametrize('storage', STORAGES)
def test_names_that_cannot_be(tmp_path: Path, tiny_model: Path, storage: StoragePlugin) -> None:
    bag = record(tmp_path / 'in', images(1))
    (tmp_path / 'dangling').symlink_to('nowhere')
    for name, words in (('n' * 255, 'too long'), ('dangling', 'exists already'), ('.', 'exists'),
                        ('in/metadata.yaml/x', 'File exists')):  # fmt: skip
        result = segment(bag, tmp_path / name, tiny_model, '--storage', storage.name.lower())
        assert result.exit_code == 1
        assert words in result.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ['dangling', 'in']


def test_names_that_are_not_unicode(tmp_path: Path, tiny_model: Path) -> None:
    """They are read; metadata.yaml, which is UTF-8, cannot hold them."""
    (tmp_path / '\udcff').mkdir()
    bag = record(tmp_path / 'in', images(1)).rename(tmp_path / 'in\udcff')
    for name, words in (('\udcff/out', ''), ('out\udcff', 'metadata.yaml cannot hold')):
        words_given = ['bag', bag, '-p', 'mug', '-m', tiny_model, '-o', tmp_path / name]
        code = 'import sys; from clipseg_ros.cli import app; app(sys.argv[1:])'
        done = subprocess.run(
            [sys.executable, '-c', code, *map(os.fsencode, words_given)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {'PYTHONIOENCODING': 'utf-8'},
        )
        assert done.returncode == int(bool(words)), done.stderr
        assert words in done.stderr
        assert 'Traceback' not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in\udcff', '\udcff']


def test_paths_that_are_too_long_for_sqlite(tmp_path: Path, tiny_model: Path) -> None:
    deep = tmp_path / ('d' * 200) / ('e' * 200)
    deep.mkdir(parents=True)
    bag = record(tmp_path / 'in', images(2), StoragePlugin.SQLITE3)
    file_of(bag).rename(deep / ('n' * 200 + '.db3'))
    result = segment(deep / ('n' * 200 + '.db3'), tmp_path / 'out', tiny_model)
    assert result.exit_code == 0, result.output
    assert stamps(tmp_path / 'out') == [100, 101]


def test_nothing_beside_the_bag_is_touched(tmp_path: Path, tiny_model: Path) -> None:
    bag = record(tmp_path / 'in', images(1))
    (tmp_path / 'out.part').mkdir()
    (tmp_path / 'out.part' / 'mine').write_text('kept')
    assert segment(bag, tmp_path / 'out', tiny_model).exit_code == 0
    assert (tmp_path / 'out.part' / 'mine').read_text() == 'kept'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out', 'out.part']
