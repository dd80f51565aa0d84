"""The package's own messages, where they are built.

``colcon build`` generates ``clipseg_ros.msg`` and ``clipseg_ros.srv``; a plain ``pip install``
cannot. Without them the nodes use standard messages alone.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clipseg_ros.errors import InterfacesError

MISSING = (
    'the messages of clipseg_ros are not built (plain pip install): running without ~/prompts, '
    '~/segments, ~/set_prompts, ~/pick, ~/get_masks and ~/segment_once. Remedy: `colcon build` and '
    'source its install/setup file'
)


@dataclass(frozen=True)
class Interfaces:
    """The generated classes of ``clipseg_ros.msg`` and ``clipseg_ros.srv``, by their names."""

    Prompt: Any
    PromptArray: Any
    Segment: Any
    SegmentArray: Any
    SetPrompts: Any
    PickPrompt: Any
    PromptMask: Any
    GetMasks: Any
    SegmentOnce: Any


def load_interfaces() -> Interfaces | None:
    """Return the generated interfaces, or None where they were not built.

    Raises:
        ImportError: They were built, and cannot be imported: for another Python or ROS
            distribution.
        InterfacesError: They were built from an older version.
    """
    if importlib.util.find_spec('clipseg_ros.msg') is None:
        return None
    messages = importlib.import_module('clipseg_ros.msg')
    known = {**vars(messages), **vars(importlib.import_module('clipseg_ros.srv'))}
    classes = {field.name: known.get(field.name) for field in fields(Interfaces)}
    missing = [name for name, found in classes.items() if found is None]
    if missing:
        raise InterfacesError(
            f'the messages of clipseg_ros in {Path(str(messages.__file__)).parents[1]} were '
            f'built from an older version: they lack {", ".join(missing)}. Remedy: `colcon build` '
            'again, and source its install/setup file'
        )
    return Interfaces(**classes)
