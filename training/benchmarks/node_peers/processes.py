"""The processes of the node's benchmark: their commands, and when they are ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clipseg_ros.process.child_process import ChildError, ChildProcess
from clipseg_ros.process.domain import keep_to_own_domain
from clipseg_ros.process.shared_memory import remove_orphans

__all__ = ['ChildError', 'ChildProcess', 'names_of', 'prepare_environment', 'running_node', 'start']

ROOT = Path(__file__).parents[3]
PROMPTS = 'a red mug; the book; something to drink from; a bottle'
START_TIMEOUT = 90.0
SUBJECTS = ('own', 'plain', 'plain-bytes')
"""The node, and the plain one, which hands pixels to messages as numpy arrays or as bytes."""


def prepare_environment(domain: int | None) -> None:
    """Give the processes a ROS domain of their own and the package's Fast DDS profile.

    Args:
        domain: ``ROS_DOMAIN_ID``; None chooses one that is free.
    """
    keep_to_own_domain(domain)
    os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
    # Checks each element of a message, refuses what the plain node does, and is off by default.
    os.environ.pop('ROS_PYTHON_CHECK_FIELDS', None)
    os.environ['PYTHONPATH'] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get('PYTHONPATH', '')])
    )


def start(name: str, module: str, arguments: Sequence[str], log: Path) -> ChildProcess:
    """Start ``python -m module``.

    Args:
        name: What messages call it.
        module: Run from the root of the checkout.
        arguments: Of the module.
        log: File for its output.
    """
    return ChildProcess(name, [sys.executable, '-u', '-m', module, *arguments], log, folder=ROOT)


def names_of(cameras: int) -> list[str]:
    """Return the namespaces of several cameras' nodes; none for one camera."""
    return [f'camera_{number}' for number in range(1, cameras + 1)] if cameras > 1 else []


@contextmanager
def running_node(
    subject: str, model: str, folder: Path, cameras: int = 1, max_batch: int = 0
) -> Iterator[ChildProcess]:
    """Start a node, or that of each camera, wait until it is ready, and stop it at the end.

    Args:
        subject: One of :data:`SUBJECTS`.
        model: ``stand-in:MILLISECONDS``, or a name.
        folder: For its output.
        cameras: How many; several need a model that has a name.
        max_batch: The nodes' parameter of that name, where there are several.

    Raises:
        ChildError: The node ends, or is not ready in time.
    """
    ros = ['--ros-args', '-p', f"prompt:='{PROMPTS}'"]
    if subject != 'own':
        assign = 'bytes' if subject == 'plain-bytes' else 'numpy'
        module = 'training.benchmarks.node_peers.plain_node'
        arguments = ['--model', model, '--prompts', PROMPTS, '--assign', assign]
    elif model.startswith('stand-in:'):
        module = 'training.benchmarks.node_peers.stand_in'
        arguments = ['--milliseconds', model.partition(':')[2], *ros]
    elif cameras > 1:
        module = 'clipseg_ros.segment_cameras_node'
        shared = ['-p', f"model:='{model}'", '-p', f'max_batch:={max_batch}', '-r', 'image:=/image']
        arguments = [*names_of(cameras), *ros, *shared]
    else:
        module = 'clipseg_ros.segment_node'
        arguments = [*ros, '-p', f"model:='{model}'"]
    try:
        with start(f'the node ({subject})', module, arguments, folder / f'{subject}.log') as node:
            for name in names_of(cameras) or ['']:
                node.wait_for(f'{name}.clipseg]: active:' if name else 'active:', START_TIMEOUT)
            yield node
    finally:
        remove_orphans()
