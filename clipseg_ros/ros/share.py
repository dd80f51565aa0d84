"""Where the files are that the package installs beside its modules, and who is told of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
"""Name the profile of Fast DDS 3 (ROS 2 Kilted and later), and of Fast DDS 2."""

_WITH_FAST_DDS_2 = ('humble', 'iron', 'jazzy')


def share_path(*parts: str) -> Path:
    """Return a file or folder below ``share/clipseg_ros``, or below the root of a checkout.

    Raises:
        FileNotFoundError: Neither has it.
    """
    package = Path(__file__).parents[1]
    for folder in (package.parent, *(p / 'share' / 'clipseg_ros' for p in package.parents)):
        path = folder.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(
        f'{"/".join(parts)} is neither in {package.parent} nor in share/clipseg_ros of a folder '
        'above it: the installation of clipseg_ros is incomplete, install it again'
    )


def profile_variable(given: Mapping[str, str], prefix: str = sys.prefix) -> str:
    """Return the variable that names Fast DDS's profile in this distribution of ROS 2.

    Both at once do not do: Fast DDS 3 warns of the older one.

    Args:
        given: The variables of this process.
        prefix: Of Python's environment, which has the distribution where it comes from wheels.
    """
    newer, older = PROFILE_VARIABLES
    distribution = given.get('ROS_DISTRO')
    if distribution:
        return older if distribution in _WITH_FAST_DDS_2 else newer
    return older if Path(prefix, 'share', 'fastrtps').is_dir() else newer


def profile_variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variable with which Fast DDS takes as much shared memory as images need.

    Args:
        given: Those of this process. None is returned where one of them names a profile: that is
            the user's choice.
    """
    if any(name in given for name in PROFILE_VARIABLES):
        return {}
    return {profile_variable(given): str(share_path('config', 'fastdds.xml'))}
