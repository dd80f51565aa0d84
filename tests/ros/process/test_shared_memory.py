"""What killed processes leave in shared memory is found and removed, and nothing else is."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from ros_peers import shared_memory_files

from clipseg_ros.process import shared_memory
from clipseg_ros.process.child_process import ChildProcess
from clipseg_ros.process.shared_memory import SHARED_MEMORY, remove_orphans
from tests.fuzz.mutations import guarded

pytestmark = pytest.mark.every_ros


@pytest.fixture(autouse=True)
def _no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run in one, from where not all processes are seen."""
    monkeypatch.setattr(shared_memory, '_CONTAINER', ())


def make_segment(folder: Path, name: str) -> list[Path]:
    """Writes the files that Fast DDS has for one segment."""
    files = [folder / name, folder / f'{name}_el', folder / f'sem.{name}_mutex']
    for file in files:
        file.write_bytes(b'x')
    return files


@pytest.mark.parametrize('version', ['fastdds', 'fastrtps'])
def test_orphans_go_and_the_rest_stays(tmp_path: Path, version: str) -> None:
    orphan = make_segment(tmp_path, f'{version}_port7000')
    used = make_segment(tmp_path, f'{version}_0123456789abcdef')
    other = tmp_path / 'sem.something_else'
    other.touch()
    with used[1].open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_orphans(tmp_path) == [f'{version}_port7000']
        assert not any(file.exists() for file in orphan)
        assert all(file.exists() for file in [*used, other])
    assert remove_orphans(tmp_path) == [f'{version}_0123456789abcdef']
    assert list(tmp_path.iterdir()) == [other]


def test_ports_stay_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / 'mark'
    mark.touch()
    monkeypatch.setattr(shared_memory, '_CONTAINER', (str(mark),))
    folder = tmp_path / 'shm'
    folder.mkdir()
    port, segment = (make_segment(folder, f'fastdds_{name}') for name in ('port7000', '0123456789'))
    assert remove_orphans(folder) == ['fastdds_0123456789']
    assert all(file.exists() for file in port), 'its process may be outside'
    assert not any(file.exists() for file in segment)


def test_what_is_young_stays(tmp_path: Path) -> None:
    old, young = (make_segment(tmp_path, f'fastdds_port{number}') for number in (7000, 7001))
    for file in old:
        os.utime(file, (1e9, 1e9))
    assert remove_orphans(tmp_path, least_age=60.0) == ['fastdds_port7000']
    assert all(file.exists() for file in young), 'its owner may be about to take it'


def test_a_port_without_a_companion_goes_unless_it_is_mapped(tmp_path: Path) -> None:
    ports = [make_segment(tmp_path, f'fastdds_port{number}') for number in (7000, 7001)]
    for _, lock, _ in ports:
        lock.unlink()
    with ports[0][0].open('r+b') as file, mmap.mmap(file.fileno(), 0):
        assert remove_orphans(tmp_path) == ['fastdds_port7001']
        assert ports[0][0].exists()
    assert remove_orphans(tmp_path) == ['fastdds_port7000']
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('suffix', ['', '_el'])
@pytest.mark.parametrize('kind', ['folder', 'pipe', 'link', 'loop'])
def test_what_is_no_file_of_the_middleware_stays_and_stops_nothing(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    folder = tmp_path / 'shm'
    folder.mkdir()
    orphan = make_segment(folder, 'fastdds_b')
    other, place = tmp_path / 'other', folder / f'fastdds_a{suffix}'
    other.write_text('mine')
    if kind == 'folder':
        place.mkdir()
    elif kind == 'pipe':
        os.mkfifo(place)
    else:
        place.symlink_to(other if kind == 'link' else place)
    with guarded(5):
        assert remove_orphans(folder) == ['fastdds_b']
        assert remove_orphans(folder, least_age=-60.0) == []
    assert not any(file.exists() for file in orphan)
    assert os.listdir(folder) == [place.name]
    assert other.read_text() == 'mine'


def test_a_killed_node_leaves_files_that_are_recognised(own_domain: int) -> None:
    code = (
        'import rclpy; rclpy.init(); node = rclpy.create_node("victim"); '
        'print("up", flush=True); rclpy.spin(node)'
    )
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(own_domain)}
    with ChildProcess('victim', [sys.executable, '-c', code], environment=environment) as victim:
        victim.wait_for('up')
        # Ports have names that any process of the domain may use.
        made = {
            name
            for name in shared_memory_files(victim.pid)
            if not re.match(r'fast(dds|rtps)_port', name)
        }
        assert made, 'Fast DDS made no file in shared memory: have its names changed?'
        assert not made & set(remove_orphans())
        assert made <= set(os.listdir(SHARED_MEMORY))
        assert victim.stop([signal.SIGKILL]) == -signal.SIGKILL
    # Another run of the tests may remove them too, before this one or after.
    remove_orphans()
    left = os.listdir(SHARED_MEMORY)
    assert not [file for file in left if any(name in file for name in made)]
