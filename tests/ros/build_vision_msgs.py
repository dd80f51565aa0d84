"""Builds the test's own package `vision_msgs` with colcon, and says how to use it.

pip has no wheel of vision_msgs. What is in `interfaces/vision_msgs` was written from its
documentation and has those messages that the node publishes, field by field.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ros_peers import ROOT

SOURCE = Path(__file__).parent / 'interfaces' / 'vision_msgs'


def environment_with_vision_msgs() -> dict[str, str]:
    """Variables with which a process finds vision_msgs; built once for each state of its files."""
    own = str(Path(__file__).parent)
    if importlib.util.find_spec('vision_msgs') is not None:
        return {'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', ''), own])}
    for tool in ('colcon', 'cmake', 'g++'):
        if shutil.which(tool, path=f'{sys.prefix}/bin:{os.environ["PATH"]}') is None:
            pytest.skip(f'{tool} is needed to build vision_msgs for tests, and is not here')
    files = sorted(path for path in SOURCE.rglob('*') if path.is_file())
    content = b''.join(path.read_bytes() for path in [*files, ROOT / 'cmake' / 'pip_wheels.cmake'])
    digest = hashlib.sha256(content + sys.prefix.encode()).hexdigest()[:16]
    # One for each environment: those of several ROS 2 share a checkout.
    base = ROOT / 'build' / f'vision_msgs-{digest}'
    prefix = base / 'install' / 'vision_msgs'
    base.mkdir(parents=True, exist_ok=True)
    with (base / '.busy').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Another worker may be at it.
        if not (base / '.built').exists():
            _build(base)
            (base / '.built').touch()
    (packages,) = prefix.glob('l*/**/*-packages')
    return {
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(packages), own]),
        'LD_LIBRARY_PATH': f'{prefix / "lib"}:{os.environ.get("LD_LIBRARY_PATH", "")}',
        'AMENT_PREFIX_PATH': f'{prefix}:{ament_prefixes()}',
    }


def _build(base: Path) -> None:
    words = ['--build-base', f'{base}/build', '--install-base', f'{base}/install']
    done = subprocess.run(
        [f'{sys.prefix}/bin/colcon', '--log-base', f'{base}/log', 'build',
         '--base-paths', str(SOURCE), *words, '--cmake-args', '-DBUILD_TESTING=OFF'],
        env={
            **os.environ,
            'PATH': f'{sys.prefix}/bin:{os.environ["PATH"]}',
            'AMENT_PREFIX_PATH': ament_prefixes(),
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def ament_prefixes() -> str:
    """Where packages of ROS 2 are: those sourced here, and those of pip, which need no sourcing."""
    sourced = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return os.pathsep.join(filter(None, dict.fromkeys([*sourced, sys.prefix])))
