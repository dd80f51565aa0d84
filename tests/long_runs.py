"""What the commands of fuzzing and soaking share: where they run, and how they report."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from clipseg_ros.process.domain import keep_to_own_domain

ROOT = Path(__file__).parents[1]


def prepare() -> None:
    """Keep to a ROS domain of one's own, and find the peers of tests/ros."""
    keep_to_own_domain()
    os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
    peers = str(ROOT / 'tests' / 'ros')
    if peers not in sys.path:
        sys.path.insert(0, peers)


def report(found: dict[str, Any], path: Path | None, problems: str = 'problems') -> int:
    """Print what was found, write it to a file where one is named, and return the exit status."""
    text = json.dumps(found, indent=2, ensure_ascii=False)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + '\n')
    return 1 if found[problems] else 0
