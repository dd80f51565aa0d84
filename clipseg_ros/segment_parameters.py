"""The parameters of the node ``segment``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from clipseg_model.errors import PromptError
from clipseg_ros.parameters import Declaration, one_of
from clipseg_ros.prompt_set import read_prompts


def _check_prompt(value: Any) -> str:
    if not isinstance(value, str) and not (
        isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    ):
        return f'{value!r} is neither a text nor a list of texts'
    try:
        read_prompts(value)
    except PromptError as error:
        return str(error)
    return ''


def _check_threshold(value: Any) -> str:
    if value == -1.0 or 0.0 < value < 1.0:
        return ''
    return f"{value:g} is neither between 0 and 1 (both exclusive) nor -1 (the model's own)"


def _check_device(value: Any) -> str:
    if re.fullmatch(r'auto|cpu|cuda(:\d+)?', str(value)):
        return ''
    return f'{value!r} is not auto, cpu, cuda or cuda:N'


def _check_model(value: Any) -> str:
    return '' if str(value).strip() else 'it is empty; give a name or the path of a .safetensors'


DECLARATIONS: dict[str, Declaration] = {
    declaration.name: declaration
    for declaration in (
        Declaration(
            'model',
            'tabletop',
            'Name of a model, or path of a .safetensors checkpoint.',
            loads=True,
            check=_check_model,
        ),
        Declaration(
            'device',
            'auto',
            'Where the model runs: auto, cpu, cuda or cuda:N.',
            loads=True,
            check=_check_device,
        ),
        Declaration(
            'threads',
            0,
            "Threads of the model on a CPU; 0 leaves torch's choice.",
            low=0,
            high=256,
            loads=True,
        ),
        Declaration(
            'image_transport',
            'raw',
            'raw subscribes to `image` (Image), compressed to `image/compressed`.',
            loads=True,
            constraints='raw or compressed.',
            check=one_of('raw', 'compressed'),
        ),
        Declaration(
            'prompt',
            '',
            'What to segment: a text (; separates several, `name: phrase` names one) or a list.',
            constraints='At most 254 prompts of at most 1000 characters; empty stops.',
            dynamic_type=True,
            check=_check_prompt,
        ),
        Declaration(
            'threshold',
            -1.0,
            "Probability above which a pixel is on; -1 takes the model's calibrated threshold.",
            low=-1.0,
            high=1.0,
            constraints='-1, or above 0 and below 1.',
            check=_check_threshold,
        ),
        Declaration('overlay_alpha', 0.5, 'Share of the tint on ~/overlay.', low=0.0, high=1.0),
        Declaration('overlay_legend', True, 'Whether ~/overlay shows the names of the prompts.'),
        Declaration(
            'detection_min_area',
            100,
            'Least area of a connected part of a mask that is a detection, pixels.',
            low=1,
            high=100_000_000,
        ),
        Declaration(
            'max_rate',
            0.0,
            'Most frames a second that are segmented; 0 is no limit.',
            low=0.0,
            high=1000.0,
        ),
        Declaration(
            'watchdog',
            5.0,
            'Seconds without an image, or in one image, after which the node says so; 0 is never.',
            low=0.0,
            high=3600.0,
        ),
        Declaration(
            'autostart',
            True,
            'Whether the node configures and activates itself when it starts.',
            fixed=True,
        ),
    )
}


@dataclass(frozen=True)
class Settings:
    """The parameters that the threads of the worker read, as one object that never changes.

    Attributes:
        threshold: Probability in (0, 1), or None for the model's own.
        overlay_alpha: Share of the tint, 0…1.
        overlay_legend: Whether the overlay has a legend.
        max_rate: Frames a second; 0 is no limit.
        watchdog: Seconds; 0 is never.
        detection_min_area: Pixels, from 1.
    """

    threshold: float | None
    overlay_alpha: float
    overlay_legend: bool
    max_rate: float
    watchdog: float
    detection_min_area: int = 100

    @classmethod
    def of(cls, node: Any) -> Settings:
        """Reads the settings of a node."""
        threshold = float(node.get_parameter('threshold').value)
        return cls(
            threshold=None if threshold == -1.0 else threshold,
            overlay_alpha=float(node.get_parameter('overlay_alpha').value),
            overlay_legend=bool(node.get_parameter('overlay_legend').value),
            detection_min_area=int(node.get_parameter('detection_min_area').value),
            max_rate=float(node.get_parameter('max_rate').value),
            watchdog=float(node.get_parameter('watchdog').value),
        )


def find_problem(name: str, value: Any, configured: bool) -> str:
    """Returns what is wrong with a value for a parameter, or an empty string.

    Args:
        name: Any parameter; those not of this table are left to others.
        value: What it shall become.
        configured: Whether the node has loaded its model.
    """
    declaration = DECLARATIONS.get(name)
    if declaration is None:
        return ''
    if declaration.loads and configured:
        return (
            f'{name} takes effect when the node is configured, and it is: clean it up first '
            '(ros2 lifecycle set <node> deactivate, then cleanup), set it, configure again'
        )
    return declaration.problem(value)
