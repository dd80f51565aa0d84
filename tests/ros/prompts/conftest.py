"""The node that tests share, where prompts come from another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_bench import BOTH, Bench
from ros_peers import Peer, running_node, write_tiny_model

from clipseg_ros.process.domain import claimed_domain


@pytest.fixture(scope='session')
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('model') / 'tiny.safetensors'
    write_tiny_model(path, sees_pictures=True)
    return path


@pytest.fixture(scope='session')
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bench saves prompts; nothing is there yet."""
    return tmp_path_factory.mktemp('saved') / 'prompts.yaml'


@pytest.fixture(scope='session')
def bench_domain() -> Iterator[int]:
    """A domain of its own: the bench outlives these tests, and others look at /diagnostics."""
    with claimed_domain() as number:
        yield number


@pytest.fixture(scope='session')
def the_bench(seeing_model: Path, prompt_file: Path, bench_domain: int) -> Iterator[Bench]:
    peer = Peer(bench_domain, 'bench')
    given = {'model': seeing_model, 'device': 'cpu', 'threads': 1, 'prompt': f"'{BOTH}'"}
    with running_node(
        'tests.ros.processes.talkative_node',
        {**given, 'prompt_file': prompt_file},
        ['-r', '__ns:=/live'],
        environment={'ROS_DOMAIN_ID': str(bench_domain)},
    ) as node:
        yield Bench(node, peer)
    peer.close()


@pytest.fixture
def bench(the_bench: Bench) -> Iterator[Bench]:
    """The bench, which each test leaves as it found it."""
    yield the_bench
    the_bench.prompt('', 'no prompt active')
    the_bench.prompt(BOTH)
