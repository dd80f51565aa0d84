"""A real ``pip install`` of a wheel that is built from a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkout_copy import copy_checkout

from clipseg_model.images import read_image
from clipseg_model.registry import create_model
from clipseg_ros.process.child_process import ChildProcess

PIP = [sys.executable, '-m', 'pip', '--quiet']


def run(command: list[str], cwd: Path, python_path: Path | None = None) -> str:
    """What a command that has to succeed prints, away from the checkout's own packages."""
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    if python_path is not None:
        environment['PYTHONPATH'] = str(python_path)
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp('wheel')
    # pip builds in the source tree: in a copy, so that it leaves nothing in this one.
    copy_checkout(repository, folder / 'source')
    options = ['--no-deps', '--no-index', '--no-build-isolation', '--wheel-dir', str(folder)]
    run([*PIP, 'wheel', *options, str(folder / 'source')], folder)
    (built,) = folder.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def prefix(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """Where the packages, without what they depend on, were installed."""
    folder = tmp_path_factory.mktemp('prefix')
    # Without --ignore-installed pip takes away the checkout that this environment points to.
    options = ['--no-deps', '--no-index', '--ignore-installed', '--prefix', str(folder)]
    run([*PIP, 'install', *options, str(wheel)], folder)
    return folder


@pytest.fixture
def new_environment(tmp_path: Path) -> Path:
    """A virtual environment that holds nothing."""
    folder = tmp_path / 'venv'
    run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], tmp_path)
    return folder


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
    clipseg = str(prefix / 'bin' / 'clipseg')
    assert 'tabletop' in run([clipseg, 'models'], tmp_path, site_packages(prefix))


def test_the_demo_finds_its_profile_there(prefix: Path, tmp_path: Path) -> None:
    code = "from clipseg_ros.ros.share import share_path as f; print(f('config', 'fastdds.xml'))"
    found = run([sys.executable, '-c', code], tmp_path, site_packages(prefix)).strip()
    assert found == str(prefix / 'share/clipseg_ros/config/fastdds.xml')


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_it_segments_pictures_and_cameras_without_torch(
    wheel: Path, new_environment: Path, repository: Path, tmp_path: Path
) -> None:
    """What ``pip install clipseg_ros[ros]`` brings is enough, and torch is not among it."""
    # The locked versions are those in pip's cache where `make env` has run.
    # Without digests, since the wheel that is installed has none, and without extras, which pip
    # refuses in constraints.
    lines = (repository / 'requirements.lock').read_text().splitlines()
    pinned = (line.removesuffix('\\') for line in lines if not line.startswith(' '))
    versions = [re.sub(r'\[.*?\]', '', line) for line in pinned]
    (tmp_path / 'versions.txt').write_text('\n'.join(versions))
    options = ['--no-compile', '--constraint', str(tmp_path / 'versions.txt')]
    run([*PIP, '--python', str(new_environment), 'install', *options, f'{wheel}[ros]'], tmp_path)
    (packages,) = new_environment.glob('lib/python3*/site-packages')
    assert not list(packages.glob('torch*'))
    clipseg = str(new_environment / 'bin' / 'clipseg')
    assert 'tabletop' in run([clipseg, 'models'], tmp_path)
    picture = tmp_path / 'photo.png'
    shutil.copy(repository / 'docs' / 'images' / 'demo.png', picture)
    run([clipseg, 'segment', picture.name, '-p', 'the mug', '-o', 'out'], tmp_path)
    (found,) = json.loads((tmp_path / 'out' / 'photo.json').read_text())['prompts']
    assert found['prompt'] == 'the mug'
    assert (tmp_path / 'out' / found['mask']).is_file()
    expected = create_model('tabletop', 'cpu', runtime='eager').segment(
        read_image(picture), ['the mug']
    )
    assert found['score'] == pytest.approx(expected.results[0].score, abs=0.005)
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ('PYTHONPATH', 'LD_LIBRARY_PATH', '_ROS_WHEELS_BOOTSTRAP_COMPLETE')
    }
    node = ChildProcess(
        'clipseg-node',
        [str(new_environment / 'bin' / 'clipseg-node'), '--ros-args', '-p', 'device:=cpu'],
        environment=environment,
        folder=tmp_path,
    )
    try:
        node.wait_for('active: tabletop')
    finally:
        assert node.stop((signal.SIGINT,), 30.0) == 0
