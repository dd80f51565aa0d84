"""Whether the package's own messages were built, asked in one place.

``colcon build`` generates ``clipseg_ros.msg`` and ``clipseg_ros.srv``; a plain ``pip install``
cannot. Without them the nodes work on standard messages alone.
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
    '~/segments, ~/set_prompts, ~/pick and ~/get_masks. Remedy: `colcon build` and source its '
    'install/setup file'
)


@dataclass(frozen=True)
class Interfaces:
    """The generated classes.

    Attributes:
        Prompt: ``clipseg_ros/msg/Prompt``.
        PromptArray: ``clipseg_ros/msg/PromptArray``.
        Segment: ``clipseg_ros/msg/Segment``.
        SegmentArray: ``clipseg_ros/msg/SegmentArray``.
        SetPrompts: ``clipseg_ros/srv/SetPrompts``.
        PickPrompt: ``clipseg_ros/srv/PickPrompt``.
        PromptMask: ``clipseg_ros/msg/PromptMask``.
        GetMasks: ``clipseg_ros/srv/GetMasks``.
    """

    Prompt: Any
    PromptArray: Any
    Segment: Any
    SegmentArray: Any
    SetPrompts: Any
    PickPrompt: Any
    PromptMask: Any
    GetMasks: Any


def load_interfaces() -> Interfaces | None:
    """Returns the generated interfaces, or None where they were not built.

    Raises:
        ImportError: If they were built but cannot be imported (another Python, another ROS
            distribution): broken is not the same as absent.
        InterfacesError: If they were built from an older version.
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
