"""What killed processes leave in shared memory is found and removed, and nothing else is."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipseg_ros.ros.shared_memory import SHARED_MEMORY, remove_orphans


def make_segment(folder: Path, name: str) -> list[Path]:
    """Writes the files that Fast DDS has for one segment."""
    files = [folder / name, folder / f'{name}_el', folder / f'sem.{name}_mutex']
    for file in files:
        file.write_bytes(b'x')
    return files


def test_orphans_go_and_the_rest_stays(tmp_path: Path) -> None:
    orphan = make_segment(tmp_path, 'fastdds_port7000')
    used = make_segment(tmp_path, 'fastdds_0123456789abcdef')
    other = tmp_path / 'sem.something_else'
    other.touch()
    with used[1].open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_orphans(tmp_path) == ['fastdds_port7000']
        assert not any(file.exists() for file in orphan)
        assert all(file.exists() for file in [*used, other])
    assert remove_orphans(tmp_path) == ['fastdds_0123456789abcdef']
    assert list(tmp_path.iterdir()) == [other]


def test_a_port_without_a_companion_goes_unless_it_is_mapped(tmp_path: Path) -> None:
    ports = [make_segment(tmp_path, f'fastdds_port{number}') for number in (7000, 7001)]
    for _, lock, _ in ports:
        lock.unlink()
    with ports[0][0].open('r+b') as file, mmap.mmap(file.fileno(), 0):
        assert remove_orphans(tmp_path) == ['fastdds_port7001']
        assert ports[0][0].exists()
    assert remove_orphans(tmp_path) == ['fastdds_port7000']
    assert list(tmp_path.iterdir()) == []


def test_a_killed_node_leaves_files_that_are_recognised() -> None:
    pytest.importorskip('rclpy')
    code = (
        'import rclpy; rclpy.init(); node = rclpy.create_node("victim"); '
        'print("up", flush=True); rclpy.spin(node)'
    )
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == 'up'
        # Its own segments alone: other processes come and go, and share its ports.
        opened = [Path(os.readlink(fd)) for fd in Path(f'/proc/{process.pid}/fd').iterdir()]
        made = {
            path.name
            for path in opened
            if path.parent == SHARED_MEMORY
            and path.name.startswith('fastdds_')
            and not path.name.startswith('fastdds_port')
            and path.name.endswith('_el')
        }
        assert made, 'Fast DDS made no file in shared memory: have its names changed?'
        in_use = set(remove_orphans())
        assert not in_use & {name.removesuffix('_el') for name in made}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        process.stdout.close()
    assert remove_orphans()
    assert not made & set(os.listdir(SHARED_MEMORY))
