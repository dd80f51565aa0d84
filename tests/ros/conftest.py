"""The processes that all tests with topics share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ros_peers import NodeProcess, Peer, claimed_domain, write_tiny_model

# Lines of the nodes' logs are compared with plain text.
os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'


@pytest.fixture(scope='session')
def domain() -> Iterator[int]:
    with claimed_domain() as number:
        os.environ['ROS_DOMAIN_ID'] = str(number)
        yield number


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
    node = NodeProcess(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'"},
    )
    node.wait_for('active: tiny')
    yield node
    status = node.stop()
    assert status == 0, node.output
    assert 'Traceback' not in node.output, node.output
