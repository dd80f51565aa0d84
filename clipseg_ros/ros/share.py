"""Where the files are that the package installs beside its modules, and who is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
"""Name Fast DDS's profile: from version 3 (ROS 2 Kilted) on, and before (Jazzy, Humble)."""


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


def profile_variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which Fast DDS takes as much shared memory as images need.

    Args:
        given: Those of this process. None is returned where one of them names a profile: that is
            the user's choice.
    """
    if any(name in given for name in PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(share_path('config', 'fastdds.xml')))
