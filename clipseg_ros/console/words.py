"""Words of this process as those may read them who look at its page. No ROS in here."""

from __future__ import annotations

import os
import re
from functools import lru_cache

# A path ends where these stand; names of files may hold the rest.
_PATH = re.compile(r"(?<![\w/.:~])(?:~|\.{1,2})?/[^\s:;,'\"()<>]+")
_USUAL = ('home', 'root', 'tmp', 'usr', 'opt', 'var', 'etc', 'mnt', 'media', 'srv', 'workspace')


@lru_cache(maxsize=1)
def _tops() -> frozenset[str]:
    try:
        here = os.listdir('/')
    except OSError:
        here = []
    return frozenset((*here, *_USUAL)) - {'dev'}


def without_folders(text: str) -> str:
    """Return a text in which paths of files are their last names.

    Topics and services of ROS look alike, and stay: their first word is no folder of a machine.
    """

    def last(found: re.Match[str]) -> str:
        path = found.group()
        first = path.lstrip('~.').strip('/').partition('/')[0]
        own = path.startswith(('~', '.'))
        if not own and first not in _tops():
            return path
        # ~/mask and the like are topics, too.
        if path.startswith('~') and path.count('/') == 1 and '.' not in path:
            return path
        return path.rstrip('/').rpartition('/')[2]

    return _PATH.sub(last, text)
