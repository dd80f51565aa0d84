"""Settings that every test runs under; made before anything reads them."""

from __future__ import annotations

import os
import runpy
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools

from clipseg_ros.process.domain import claim_domain
from clipseg_ros.ros.share import profile_variable

ROOT = Path(__file__).resolve().parents[1]

# The tests' own ROS 2: no traffic with a robot on the network, nor with another run of the tests.
os.environ['ROS_DOMAIN_ID'] = str(claim_domain())
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# Messages check the types of their fields.
os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'
# Images are larger than the shared memory that Fast DDS takes without a profile.
os.environ[profile_variable(os.environ)] = str(ROOT / 'config' / 'fastdds.xml')
# Software rendering without a display; MuJoCo reads this when it is first imported.
os.environ.setdefault('MUJOCO_GL', 'egl')
# Threads of torch that wait may not take the cores from other processes.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
# Those of numpy's products would, whatever is set.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
# What a test needs is in the repository; nothing may be downloaded.
os.environ['HF_HUB_OFFLINE'] = '1'

# Workers that run tests side by side share the cores.
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:
    cores = len(os.sched_getaffinity(0)) // int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, cores)))

# A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--part',
        choices=('ros', 'rest'),
        help='only the tests of the nodes (tests/ros), or only the others (scripts/run_tests.sh)',
    )


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist would begin with the files of the most tests.
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = config.getoption('--part')
    if part is None:
        return
    chosen = [item for item in items if _is_of_nodes(item.path) == (part == 'ros')]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    # Files that may take long come first, so that no worker is left with one at the end.
    work = Counter[Path]()
    for item in chosen:
        work[item.path] += SLOW_AS if item.get_closest_marker('slow') else 1
    items[:] = sorted(chosen, key=lambda item: -work[item.path])


SLOW_AS = 30
"""How many others a slow test counts as, where files are put in order."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files of the other part unread, which takes a minute."""
    part = config.getoption('--part')
    if part is None or (collection_path.is_dir() and not _is_of_nodes(collection_path)):
        return None
    return True if _is_of_nodes(collection_path) != (part == 'ros') else None


def _is_of_nodes(path: Path) -> bool:
    return path.is_relative_to(ROOT / 'tests' / 'ros')


@pytest.fixture(scope='session')
def repository() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope='session')
def setup_arguments() -> dict[str, Any]:
    """What setup.py passes to setuptools."""
    arguments: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, 'setup', lambda **words: arguments.update(words))
        runpy.run_path(str(ROOT / 'setup.py'))
    return arguments


@pytest.fixture(scope='session', autouse=True)
def _clean_shared_memory() -> Iterator[None]:
    """Removes what nodes that a test killed have left in shared memory."""
    yield
    from clipseg_ros.process.shared_memory import remove_orphans

    remove_orphans()
