"""The processes that all tests with topics share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_vision_msgs import environment_with_vision_msgs
from ros_peers import BUILT_PATH, ROOT, NodeProcess, Peer, running_node, write_tiny_model

from clipseg_ros.process.domain import claimed_domain
from clipseg_ros.ros.interfaces import load_interfaces

# Lines of the nodes' logs are compared with plain text.
os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'


@pytest.fixture(scope='session')
def domain() -> int:
    return int(os.environ['ROS_DOMAIN_ID'])


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('model') / 'tiny.safetensors'
    write_tiny_model(path)
    return path


@pytest.fixture(scope='module')
def peer(domain: int) -> Iterator[Peer]:
    made = Peer(domain)
    yield made
    made.close()


@pytest.fixture(scope='session')
def segment(domain: int, tiny_model: Path) -> Iterator[NodeProcess]:
    """The node, active, in a process that all tests share; each leaves it as it found it."""
    with running_node(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'"},
        afresh=True,
    ) as node:
        yield node


@pytest.fixture(scope='session')
def built() -> dict[str, str]:
    """Variables with which a process finds the generated messages."""
    if load_interfaces() is not None:
        return {'PYTHONPATH': BUILT_PATH}
    for tool in ('colcon', 'cmake', 'g++'):
        if shutil.which(tool, path=f'{sys.prefix}/bin:{os.environ["PATH"]}') is None:
            pytest.skip(f'{tool} is needed to build the messages, and is not here')
    subprocess.run([ROOT / 'scripts' / 'build_interfaces.sh', sys.prefix], check=True)
    prefix = ROOT / 'install' / 'clipseg_ros'
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    packages = prefix / 'lib' / version / 'site-packages'
    before = os.environ.get('LD_LIBRARY_PATH', '')
    return {
        'PYTHONPATH': f'{ROOT}:{packages}:{Path(__file__).parent}',
        'LD_LIBRARY_PATH': f'{prefix / "lib"}:{before}',
        'AMENT_PREFIX_PATH': f'{prefix}:{sys.prefix}',
    }


@pytest.fixture(scope='module')
def own_domain() -> Iterator[int]:
    """A domain without the nodes of other tests, whose names may be those of this module's."""
    with claimed_domain() as number:
        yield number


@pytest.fixture(scope='module')
def full_environment(built: dict[str, str], own_domain: int) -> dict[str, str]:
    """Variables with which a process finds the node's own messages and those of vision_msgs."""
    both = [built, environment_with_vision_msgs()]
    names = {name for some in both for name in some}
    merged = {name: os.pathsep.join(some[name] for some in both if name in some) for name in names}
    return {**merged, 'ROS_DOMAIN_ID': str(own_domain)}


@pytest.fixture(scope='module')
def full_node(full_environment: dict[str, str], tiny_model: Path) -> Iterator[NodeProcess]:
    """The node with all that it may find."""
    with running_node(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'"},
        environment=full_environment,
    ) as node:
        yield node
