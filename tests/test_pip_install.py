"""A real ``pip install`` of a copy of the repository into a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What the Makefile and the commands leave in the root of a checkout.
MADE = {'build', 'install', 'log', 'demo', 'runs', 'data', 'benchmarks'}


@pytest.fixture(scope='module')
def prefix(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Where the packages, without what they depend on, were installed."""
    folder = tmp_path_factory.mktemp('pip')
    # pip builds in the source tree: in a copy, so that it leaves nothing in this one.
    hidden = shutil.ignore_patterns('.*', '__pycache__', '*.egg-info')
    shutil.copytree(
        repository,
        folder / 'source',
        ignore=lambda at, names: (
            hidden(at, names) | (MADE & set(names) if Path(at) == repository else set())
        ),
    )
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index']
    options = ['--no-build-isolation', '--prefix', str(folder / 'prefix'), str(folder / 'source')]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / 'prefix'


def site_packages(prefix: Path) -> Path:
    (folder,) = prefix.glob('l*/python3*/site-packages')
    return folder


def test_packages_data_and_commands_are_installed(prefix: Path, repository: Path) -> None:
    packages = site_packages(prefix)
    for package in ('clipseg_model', 'clipseg_ros', 'tabletop_world'):
        for source in (repository / package).rglob('*'):
            if source.is_file() and '__pycache__' not in source.parts:
                assert (packages / source.relative_to(repository)).is_file(), source
    assert not (packages / 'training').exists()
    assert not (packages / 'tests').exists()
    share = prefix / 'share' / 'clipseg_ros'
    assert (share / 'package.xml').is_file()
    assert (share / 'launch' / 'segment.launch.py').is_file()
    assert (share / 'config' / 'fastdds.xml').is_file()
    assert (prefix / 'share/ament_index/resource_index/packages/clipseg_ros').is_file()
    for name in ('clipseg', 'clipseg-node', 'clipseg-camera', 'clipseg-demo'):
        assert os.access(prefix / 'bin' / name, os.X_OK), name
    for name in ('segment', 'camera'):
        assert os.access(prefix / 'lib' / 'clipseg_ros' / name, os.X_OK), name


def test_the_command_works_outside_of_the_checkout(prefix: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(prefix / 'bin' / 'clipseg'), 'models'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(site_packages(prefix))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'tabletop' in done.stdout


def test_the_demo_finds_its_profile_there(prefix: Path, tmp_path: Path) -> None:
    code = 'from clipseg_ros.demo.app import find_fastdds_profile as f; print(f())'
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(site_packages(prefix))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(prefix / 'share/clipseg_ros/config/fastdds.xml'), done.stderr
