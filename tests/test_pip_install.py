"""A real ``pip install`` of a wheel that is built from a copy of the repository."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from checkout_copy import copy_checkout
from packaging.requirements import Requirement

from clipseg_model.images import read_image
from clipseg_model.registry import create_model

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


def with_what_they_need(wanted: list[Requirement]) -> set[str]:
    """Names of installed distributions and of all that they require here, however indirectly."""
    found: set[tuple[str, str]] = set()
    waiting: list[tuple[str, str]] = []
    for one in wanted:
        if one.marker is None or one.marker.evaluate({'extra': ''}):
            waiting += [(one.name, extra) for extra in ('', *one.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for one in map(Requirement, distribution(name).requires or []):
            if one.marker is None or one.marker.evaluate({'extra': extra}):
                waiting += [(one.name, more) for more in ('', *one.extras)]
    return {name for name, _ in found}


def declared(wheel: Path) -> list[Requirement]:
    """What a wheel says that it requires."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('.dist-info/METADATA'))
        about = email.message_from_bytes(archive.read(name))
    return [Requirement(str(line)) for line in about.get_all('Requires-Dist', [])]


@pytest.fixture
def new_environment(wheel: Path, tmp_path: Path) -> Path:
    """A virtual environment that holds what a wheel declares, linked to this one's, and no more.

    Six gigabytes would take minutes to install. pip looks at what is there, and its versions.
    """
    folder = tmp_path / 'venv'
    run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], tmp_path)
    (packages,) = folder.glob('lib/python3*/site-packages')
    for name in with_what_they_need(declared(wheel)):
        installed = distribution(name)
        for file in installed.files or ():
            top = packages / file.parts[0]
            if file.parts[0] != '..' and not top.exists():
                top.symlink_to(Path(str(installed.locate_file(file.parts[0]))))
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
def test_what_setup_declares_is_enough_to_segment_a_picture_without_torch(
    wheel: Path, new_environment: Path, repository: Path, tmp_path: Path
) -> None:
    (packages,) = new_environment.glob('lib/python3*/site-packages')
    assert not (packages / 'rclpy').exists(), 'nothing is there that is not declared'
    assert not list(packages.glob('torch*')), 'the installation without extras is the light one'
    # Without an index, pip refuses where a requirement is not met by what is there.
    options = ['--no-compile', '--no-index', str(wheel)]
    run([*PIP, '--python', str(new_environment), 'install', *options], tmp_path)
    clipseg = str(new_environment / 'bin' / 'clipseg')
    assert 'tabletop' in run([clipseg, 'models'], tmp_path)
    picture = tmp_path / 'photo.png'
    shutil.copy(repository / 'docs' / 'images' / 'demo.png', picture)
    run([clipseg, 'segment', picture.name, '-p', 'the mug', '-o', 'out'], tmp_path)
    (found,) = json.loads((tmp_path / 'out' / 'photo.json').read_text())['prompts']
    assert found['prompt'] == 'the mug'
    assert (tmp_path / 'out' / found['mask']).is_file()
    expected = create_model(device='cpu', runtime='eager').segment(read_image(picture), ['the mug'])
    assert found['score'] == pytest.approx(expected.results[0].score, abs=0.005)
