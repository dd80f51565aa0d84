"""The shell scripts: what they say where a machine lacks something, and when they do nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ('bash', 'cat', 'cut', 'dirname', 'grep', 'id', 'ldconfig', 'sha256sum', 'sh', 'uname')


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The commands of a bare machine, some of which a test replaces."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    path = f'{os.environ["PATH"]}:/usr/sbin:/sbin'
    for tool in TOOLS:
        found = shutil.which(tool, path=path)
        assert found is not None, tool
        (folder / tool).symlink_to(found)
    (folder / 'python3').symlink_to(sys.executable)
    return folder


def replace(folder: Path, name: str, script: str) -> None:
    """Puts a script in the place of a command."""
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text(f'#!/bin/bash\n{script}\n')
    path.chmod(0o755)


def set_up(repository: Path, machine: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(machine / 'bash'), str(repository / 'scripts/setup_env.sh'), str(machine / 'venv')],
        env={'PATH': str(machine), 'HOME': str(machine), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_another_system_is_told_where_to_go(repository: Path, machine: Path) -> None:
    replace(machine, 'uname', '[ "$1" = -s ] && echo Darwin || echo arm64')
    done = set_up(repository, machine)
    assert done.returncode == 1
    assert 'Darwin on arm64' in done.stderr
    assert 'docs/install.md' in done.stderr


def test_an_old_python_is_told_what_is_needed(repository: Path, machine: Path) -> None:
    replace(machine, 'python3', '[ "$1" = --version ] && echo Python 3.8.10; exit 1')
    done = set_up(repository, machine)
    assert done.returncode == 1
    assert 'Python 3.8.10' in done.stderr
    assert 'CPython 3.10 to 3.14' in done.stderr


def test_no_python_is_told(repository: Path, machine: Path) -> None:
    (machine / 'python3').unlink()
    done = set_up(repository, machine)
    assert done.returncode == 1
    assert "there is no 'python3'" in done.stderr


def test_who_may_not_install_gets_the_command(repository: Path, machine: Path) -> None:
    replace(machine, 'id', 'echo 1000')
    replace(machine, 'apt-get', 'exit 9')
    replace(machine, 'ldconfig', 'true')
    done = set_up(repository, machine)
    assert done.returncode == 1
    assert 'may not install packages without a password' in done.stderr
    assert "sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends" in done.stderr
    for package in ('g++', 'cmake', 'libegl1'):
        assert package in done.stderr
    assert not (machine / 'venv').exists()


def test_a_failure_of_apt_is_a_failure(repository: Path, machine: Path) -> None:
    replace(machine, 'id', 'echo 0')
    replace(machine, 'apt-get', 'echo "no network" >&2; exit 100')
    replace(machine, 'env', 'shift 2; exec "$@"')
    done = set_up(repository, machine, YES='1')
    assert done.returncode == 1
    assert 'apt-get could not install them' in done.stderr
    assert 'no network' in done.stderr
    assert 'As root, this would run: apt-get update && apt-get install' in done.stdout


@pytest.mark.parametrize('answer', ['', 'n\n', 'no\n', '\n', 'y\n'])
def test_nothing_is_installed_without_a_yes(repository: Path, machine: Path, answer: str) -> None:
    """Asked at a terminal; where there is none, nothing is done."""
    replace(machine, 'id', 'echo 0')
    replace(machine, 'apt-get', 'exit 100')
    replace(machine, 'env', 'shift 2; : >"$0.called"; exit 100')
    person, terminal = os.openpty()
    os.write(person, answer.encode())
    done = subprocess.run(
        [str(machine / 'bash'), str(repository / 'scripts/setup_env.sh'), str(machine / 'venv')],
        env={'PATH': str(machine), 'HOME': str(machine)},
        stdin=terminal if answer else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(person)
    os.close(terminal)
    assert done.returncode == 1
    assert 'g++' in done.stdout, 'what it would install'
    assert 'As root, this would run: apt-get update' in done.stdout
    agreed = answer == 'y\n'
    assert (machine / 'env.called').exists() == agreed
    words = {'': 'YES=1', 'y\n': 'apt-get could not install'}.get(answer, 'nothing was installed')
    assert words in done.stderr


def test_another_packaging_is_told_what_is_missing(repository: Path, machine: Path) -> None:
    done = set_up(repository, machine)
    assert done.returncode == 1
    assert 'the system lacks what Debian calls: ' in done.stderr
    assert 'g++' in done.stderr


@pytest.mark.parametrize(
    'script',
    [
        'scripts/setup_env.sh',
        'scripts/setup_ros_env.sh',
        'scripts/build_interfaces.sh',
        'scripts/lock.sh',
        '.ci/run',
    ],
)
def test_scripts_are_sound(repository: Path, script: str) -> None:
    path = repository / script
    assert path.stat().st_mode & 0o111, 'not executable'
    assert 'set -euo pipefail' in path.read_text()
    subprocess.run(['bash', '-n', str(path)], check=True)


class TestRunTests:
    @pytest.mark.parametrize(
        ('rest', 'ros', 'expected'),
        [(0, 0, 0), (0, 5, 0), (5, 0, 0), (5, 5, 5), (1, 0, 1), (0, 1, 1), (1, 5, 1), (2, 0, 2)],
    )
    def test_it_passes_only_if_both_parts_do_and_one_ran(
        self, repository: Path, machine: Path, rest: int, ros: int, expected: int
    ) -> None:
        script = f'case "$*" in *"--part rest"*) exit {rest} ;; *"--part ros"*) exit {ros} ;; esac'
        assert self._run(repository, machine, script).returncode == expected

    def test_both_parts_get_the_arguments_and_several_processes(
        self, repository: Path, machine: Path
    ) -> None:
        done = self._run(repository, machine, 'echo "$*"', '-k', 'two words')
        lines = done.stdout.splitlines()
        assert len(lines) == 2
        for part, line in zip(('rest', 'ros'), lines, strict=True):
            assert line.startswith(f'-m pytest --part {part} --numprocesses auto')
            assert line.endswith('-k two words')

    @pytest.mark.parametrize(('status', 'expected'), [(0, 0), (5, 5), (1, 1)])
    def test_one_part_alone(
        self, repository: Path, machine: Path, status: int, expected: int
    ) -> None:
        script = f'echo "$*"; exit {status}'
        done = self._run(repository, machine, script, '--only', 'ros', '-k', 'camera')
        (line,) = done.stdout.splitlines()
        assert line.startswith('-m pytest --part ros ')
        assert line.endswith(' -k camera')
        assert done.returncode == expected

    @staticmethod
    def _run(
        repository: Path, machine: Path, python: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        (machine / 'python').touch()
        replace(machine, 'python', python)
        return subprocess.run(
            [str(machine / 'bash'), str(repository / 'scripts/run_tests.sh'), *arguments],
            env={'PATH': str(machine)},
            capture_output=True,
            text=True,
            check=False,
        )


def test_a_distribution_without_wheels_is_told(repository: Path, tmp_path: Path) -> None:
    script = repository / 'scripts' / 'setup_ros_env.sh'
    done = subprocess.run(
        [script, 'humble', tmp_path / 'venv'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'the wheels of ROS 2 humble are not known here' in done.stderr
    assert not (tmp_path / 'venv').exists()
