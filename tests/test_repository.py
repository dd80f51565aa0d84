"""The repository agrees with itself: versions, links, locked versions, files that are named."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

SUPPORTED_PYTHONS = ('3.10', '3.11', '3.12', '3.13', '3.14')
# Looked up in rosdistro (kilted/distribution.yaml and rosdep/python.yaml) on 2026-08-22.
ROSDEP_KEYS = {
    *('ament_cmake', 'ament_cmake_pytest', 'ament_cmake_python', 'builtin_interfaces'),
    *('ament_index_python', 'visualization_msgs'),
    *('cv_bridge', 'diagnostic_msgs', 'geometry_msgs', 'launch', 'launch_ros', 'launch_testing'),
    *(
        'lifecycle_msgs',
        'rcl_interfaces',
        'rclpy',
        'rosidl_default_generators',
        'rosidl_default_runtime',
    ),
    *('sensor_msgs', 'std_msgs', 'std_srvs', 'tf2_ros_py', 'vision_msgs'),
    *('python3-numpy', 'python3-opencv', 'python3-pil', 'python3-psutil', 'python3-pytest'),
    *('python3-rich', 'python3-yaml'),
}
PAGES = ('README.md', 'CONTRIBUTING.md', 'RELEASING.md', 'SECURITY.md', 'docs/*.md')


@pytest.fixture(scope='module')
def package(repository: Path) -> ElementTree.Element:
    return ElementTree.parse(repository / 'package.xml').getroot()


# Locked versions, and the distribution of ROS 2 that they are of.
LOCKS = {'requirements.lock': 'kilted', 'requirements-jazzy.lock': 'jazzy'}


@pytest.fixture(scope='module', params=LOCKS)
def lock(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope='module')
def locked(repository: Path, lock: str) -> list[Requirement]:
    lines = (repository / lock).read_text().splitlines()
    return [Requirement(line.removesuffix('\\')) for line in lines if not line.startswith(' ')]


def test_every_locked_file_has_a_digest(repository: Path, lock: str) -> None:
    text = (repository / lock).read_text()
    digest = r'    --hash=sha256:[0-9a-f]{64}'
    assert re.fullmatch(rf'(?:\S[^\n\\]* \\\n(?:{digest} \\\n)*{digest}\n)+', text)
    for script in ('setup_env.sh', 'setup_ros_env.sh'):
        assert '--require-hashes' in (repository / 'scripts' / script).read_text()
    assert '--generate-hashes' in (repository / 'scripts' / 'lock.sh').read_text()


@pytest.fixture(scope='module')
def tracked(repository: Path) -> list[Path]:
    """Text files under version control, or all where git is not at hand."""
    listing = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=repository, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip('this is not a git checkout')
    files = [repository / name for name in listing.stdout.split('\0') if name]
    return [file for file in files if file.is_file() and b'\0' not in file.read_bytes()[:4096]]


def declared(setup_arguments: dict[str, Any], distribution: str) -> list[Requirement]:
    """All that `make env` installs: every extra but tensorrt, which only some GPUs can use.

    Of another distribution than Kilted: its own packages.
    """
    named = setup_arguments['extras_require']
    if distribution != 'kilted':
        names = [*named[f'ros-{distribution}'], *named[f'build-{distribution}']]
        return [Requirement(name) for name in names if name.startswith('ros-')]
    extras = [extra for name, extra in named.items() if name != 'tensorrt' and '-' not in name]
    names = [*setup_arguments['install_requires'], *(name for extra in extras for name in extra)]
    return [Requirement(name) for name in names]


class TestVersions:
    def test_package_setup_and_changelog_agree(
        self, repository: Path, package: ElementTree.Element, setup_arguments: dict[str, Any]
    ) -> None:
        version = package.findtext('version')
        assert setup_arguments['version'] == version
        changelog = (repository / 'CHANGELOG.rst').read_text()
        newest = re.search(r'^(\d+\.\d+\.\d+) \((.+)\)\n-+$', changelog, re.MULTILINE)
        assert newest is not None
        assert newest[1] == version
        assert re.fullmatch(r'unreleased|\d{4}-\d{2}-\d{2}', newest[2])

    def test_package_setup_and_licence_agree(
        self, repository: Path, package: ElementTree.Element, setup_arguments: dict[str, Any]
    ) -> None:
        assert setup_arguments['name'] == package.findtext('name')
        assert setup_arguments['license'] == package.findtext('license') == 'Apache-2.0'
        assert 'Apache License\n' in (repository / 'LICENSE').read_text()
        for name in setup_arguments['license_files']:
            assert (repository / name).is_file()


class TestLock:
    def test_every_line_is_one_version_and_nothing_else(self, locked: list[Requirement]) -> None:
        for requirement in locked:
            (specifier,) = requirement.specifier
            assert specifier.operator == '==', str(requirement)
            assert requirement.url is None, str(requirement)

    @pytest.mark.parametrize('python', SUPPORTED_PYTHONS)
    def test_it_fits_what_setup_declares(
        self, lock: str, locked: list[Requirement], setup_arguments: dict[str, Any], python: str
    ) -> None:
        environment = {'python_version': python, 'python_full_version': f'{python}.0'}
        pins: dict[str, Version] = {}
        for requirement in locked:
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = canonicalize_name(requirement.name)
                assert name not in pins, f'{name} is locked twice for Python {python}'
                pins[name] = Version(next(iter(requirement.specifier)).version)
        for requirement in declared(setup_arguments, LOCKS[lock]):
            name = canonicalize_name(requirement.name)
            assert name in pins, f'{name} is not in {lock}: make lock'
            assert pins[name] in requirement.specifier, f'{requirement} against {pins[name]}'

    def test_one_ros_distribution(self, lock: str, locked: list[Requirement]) -> None:
        distributions = {
            name.split('-')[1]
            for name in (canonicalize_name(requirement.name) for requirement in locked)
            if re.fullmatch(r'ros-(humble|iron|jazzy|kilted|rolling)-.*', name)
        }
        assert distributions == {LOCKS[lock]}


class TestInstallation:
    def test_data_files_exist(self, repository: Path, setup_arguments: dict[str, Any]) -> None:
        for folder, files in setup_arguments['data_files']:
            assert files, f'nothing goes to {folder}'
            assert all((repository / file).is_file() for file in files), folder

    def test_launch_and_config_are_complete(
        self, repository: Path, setup_arguments: dict[str, Any]
    ) -> None:
        installed = {file for _, files in setup_arguments['data_files'] for file in files}
        for folder in ('launch', 'config'):
            for path in (repository / folder).iterdir():
                if path.is_file():
                    assert str(path.relative_to(repository)) in installed

    def test_commands_exist(self, repository: Path, setup_arguments: dict[str, Any]) -> None:
        for command in setup_arguments['entry_points']['console_scripts']:
            module, _, function = command.split('=')[1].strip().partition(':')
            source = (repository / Path(*module.split('.')).with_suffix('.py')).read_text()
            assert re.search(rf'^(def {function}\(|{function}\b.* = )', source, re.MULTILINE)

    def test_packages_are_packages_and_training_stays_out(
        self, repository: Path, setup_arguments: dict[str, Any]
    ) -> None:
        packages = setup_arguments['packages']
        assert all(
            (repository / name.replace('.', '/') / '__init__.py').is_file() for name in packages
        )
        assert 'training' not in packages
        inner = {
            '.'.join(path.parent.relative_to(repository).parts)
            for name in packages
            for path in (repository / name.replace('.', '/')).rglob('__init__.py')
        }
        assert inner == set(packages), 'a sub-package is missing in setup.py'

    @pytest.mark.parametrize('name', ['segment', 'camera', 'segment_cameras'])
    def test_executables_are_executable(self, repository: Path, name: str) -> None:
        path = repository / 'scripts' / name
        assert path.stat().st_mode & 0o111
        assert f'from clipseg_ros.{name}_node import main' in path.read_text()

    def test_dependencies_are_keys_that_rosdep_knows(self, package: ElementTree.Element) -> None:
        names = {element.text for element in package.iter() if element.tag.endswith('depend')}
        assert names <= ROSDEP_KEYS, 'look new ones up in rosdistro, then add them above'

    def test_ros_dependencies_are_declared_on_both_sides(
        self, package: ElementTree.Element, setup_arguments: dict[str, Any]
    ) -> None:
        names = {element.text for element in package.iter() if element.tag.endswith('depend')}
        wheels = {
            requirement.removeprefix('ros-kilted-').replace('-', '_')
            for requirement in setup_arguments['extras_require']['ros']
            if requirement.startswith('ros-kilted-')
        }
        assert wheels - {'rmw_fastrtps_cpp'} <= names


class TestText:
    def test_links_lead_somewhere(self, repository: Path) -> None:
        pages = [page for pattern in PAGES for page in repository.glob(pattern)]
        assert len(pages) >= 6
        broken = []
        for page in pages:
            for target in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text()):
                if '://' not in target and not (page.parent / target).exists():
                    broken.append(f'{page.relative_to(repository)}: {target}')
        assert not broken

    def test_make_targets_that_are_named_exist(self, repository: Path) -> None:
        makefile = (repository / 'Makefile').read_text()
        targets = set(re.findall(r'^([a-z]+):', makefile, re.MULTILINE))
        for pattern in PAGES:
            for page in repository.glob(pattern):
                named = set(re.findall(r'`make ([a-z]+)', page.read_text()))
                assert named <= targets, page.name

    def test_no_path_of_a_machine(self, tracked: list[Path], repository: Path) -> None:
        pattern = re.compile(r'(?<![\w.~$}])/(?:home|root|Users|work)/\w')
        found = [
            f'{file.relative_to(repository)}: {line.strip()}'
            for file in tracked
            for line in file.read_text(encoding='utf-8', errors='replace').splitlines()
            if pattern.search(line)
        ]
        assert not found

    def test_changelog_follows_ros(self, repository: Path) -> None:
        lines = (repository / 'CHANGELOG.rst').read_text().splitlines()
        assert lines[1] == 'Changelog for package clipseg_ros'
        assert set(lines[0]) == set(lines[2]) == {'^'}
        assert len(lines[0]) >= len(lines[1])
