"""Segmentation of images by text and image prompts, without ROS.

``create_model('everyday').segment(image, ['the mug'])`` is all that most programs need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clipseg_model.errors import (
    CheckpointError,
    ClipsegError,
    ColourError,
    DeviceError,
    DeviceMemoryError,
    ExportError,
    FileError,
    ImageError,
    ModelNotFoundError,
    PrecisionError,
    PromptError,
    RegionError,
    ReuseError,
    RuntimeMissingError,
)
from clipseg_model.files.user_folders import keep_private

if TYPE_CHECKING:
    from clipseg_model.model_card import ModelCard
    from clipseg_model.modeling.base import SegmentationModel, build_model
    from clipseg_model.prompts import Prompt, parse_prompts
    from clipseg_model.registry import create_model, get_card, list_models
    from clipseg_model.segmentation import PromptResult, Segmentation
    from clipseg_model.segmenter import Segmenter
    from clipseg_model.settings import SegmentSettings
    from clipseg_model.zoom.refinement import Zoom

__all__ = [
    'CheckpointError',
    'ClipsegError',
    'ColourError',
    'DeviceError',
    'DeviceMemoryError',
    'ExportError',
    'FileError',
    'ImageError',
    'ModelCard',
    'ModelNotFoundError',
    'PrecisionError',
    'Prompt',
    'PromptError',
    'PromptResult',
    'RegionError',
    'ReuseError',
    'RuntimeMissingError',
    'SegmentSettings',
    'Segmentation',
    'SegmentationModel',
    'Segmenter',
    'Zoom',
    'build_model',
    'create_model',
    'get_card',
    'list_models',
    'parse_prompts',
]

# Every process that uses this package passes here before it imports a runtime.
keep_private()

# torch takes seconds to import, so these come when they are first used.
_LAZY = {
    'ModelCard': 'model_card',
    'Prompt': 'prompts',
    'PromptResult': 'segmentation',
    'SegmentSettings': 'settings',
    'Segmentation': 'segmentation',
    'SegmentationModel': 'modeling.base',
    'Segmenter': 'segmenter',
    'build_model': 'modeling.base',
    'Zoom': 'zoom.refinement',
    'create_model': 'registry',
    'get_card': 'registry',
    'list_models': 'registry',
    'parse_prompts': 'prompts',
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_LAZY[name]}'), name)
