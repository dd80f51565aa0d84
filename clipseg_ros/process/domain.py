"""A ROS domain for one run, which no other run of this project on this machine uses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from clipseg_ros.ros.share import profile_variables

# From domain 102 on, DDS takes ports that Linux gives to other programs.
_DOMAINS = 101

_for_good = ExitStack()


@contextmanager
def claimed_domain() -> Iterator[int]:
    """Choose a ``ROS_DOMAIN_ID`` that is free, and keep others from choosing it meanwhile.

    Raises:
        RuntimeError: All of them are taken.
    """
    for offset in range(_DOMAINS):
        domain = 1 + (os.getpid() + offset) % _DOMAINS
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            try:
                # An abstract name has no file. It belongs to a network namespace, as the ports of
                # DDS do, and is free again however the process ends.
                claim.bind(f'\0clipseg_ros_domain_{domain}')
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError(
        f'other processes of this machine have claimed all ROS domains from 1 to {_DOMAINS}: end '
        'some of them, or set ROS_DOMAIN_ID yourself'
    )


def claim_domain() -> int:
    """Return a :func:`claimed_domain` that stays claimed until this process ends."""
    return _for_good.enter_context(claimed_domain())


def keep_to_own_domain(domain: int | None = None) -> None:
    """Give this process and its children a ROS domain on this machine alone.

    They get the package's Fast DDS profile as well, unless the user has named one.

    Args:
        domain: ``ROS_DOMAIN_ID``; None claims one that is free until this process ends.

    Raises:
        RuntimeError: None is free.
    """
    os.environ['ROS_DOMAIN_ID'] = str(claim_domain() if domain is None else domain)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ.update(profile_variables(os.environ))
