"""The parameters of the node ``segment``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from clipseg_model.errors import ColourError, PromptError, RegionError
from clipseg_model.outputs.palette import Colours, read_colours
from clipseg_model.prompting.visual_prompt import DEFAULT_METHOD, METHODS
from clipseg_model.prompts import find_captions
from clipseg_model.video.steadying import Steadying
from clipseg_model.video.still import MAX_REUSES
from clipseg_ros.depth.parameters import DEPTH_DECLARATIONS
from clipseg_ros.images.backend import BACKENDS, BUILTIN
from clipseg_ros.prompts.set import read_prompts
from clipseg_ros.ros.parameters import Declaration, one_of, readable
from clipseg_ros.segment.region import WHOLE, Roi, read_roi


def _read_prompt(value: Any) -> None:
    if not isinstance(value, str) and not (
        isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    ):
        raise PromptError(f'{value!r} is neither a text nor a list of texts')
    read_prompts(value)


def _read_colors(value: Any) -> Colours:
    # An empty list has any type: ROS does not know of what.
    entries = [value] if isinstance(value, str) else value
    if not hasattr(entries, '__len__') or not all(isinstance(entry, str) for entry in entries):
        raise ColourError(
            f'{value!r} is neither a text nor a list of texts such as mug=#ff8800 or 3=#00ff00'
        )
    return read_colours(list(entries))


def _check_threshold(value: Any) -> str:
    if value == -1.0 or 0.0 < value < 1.0:
        return ''
    return f"{value:g} is neither between 0 and 1 (both exclusive) nor -1 (the model's own)"


def _check_presence(value: Any) -> str:
    if value == -1.0 or 0.0 <= value <= 1.0:
        return ''
    return f"{value:g} is neither between 0 and 1 nor -1 (the model's own)"


def _read_template(value: Any) -> None:
    if str(value).strip():
        find_captions(value)


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
            'runtime',
            'eager',
            'What executes the model.',
            loads=True,
            constraints='eager, compile, onnxruntime, openvino, tensorrt or auto.',
            check=one_of('eager', 'compile', 'onnxruntime', 'openvino', 'tensorrt', 'auto'),
        ),
        Declaration(
            'precision',
            'fp32',
            'What the model computes in.',
            loads=True,
            constraints='fp32, bf16, fp16 or int8, as far as runtime and device have it.',
            check=one_of('fp32', 'bf16', 'fp16', 'int8'),
        ),
        Declaration(
            'exports',
            '',
            "Folder that `clipseg export` wrote the model to; empty is the user's cache.",
            loads=True,
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
            'max_batch',
            0,
            'Several cameras on one model: most images that go through it in one call; 1 has them '
            'take turns, 0 is automatic.',
            low=0,
            high=64,
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
            'image_backend',
            BUILTIN,
            "What reads the camera's images: builtin is the node's own converter; cv_bridge has to "
            'be installed, and to pass a self-test.',
            loads=True,
            constraints=f'{" or ".join(BACKENDS)}.',
            check=one_of(*BACKENDS),
        ),
        Declaration(
            'prompt',
            '',
            'What to segment: a text (; separates several, `name: phrase` names one, ! rules one '
            'out) or a list.',
            constraints='At most 254 prompts of at most 1000 characters; empty stops.',
            dynamic_type=True,
            check=readable(_read_prompt, PromptError),
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
        Declaration(
            'presence_threshold',
            -1.0,
            "Score from which on a prompt is present; -1 takes the model's calibrated threshold, 0 "
            'takes all for present.',
            low=-1.0,
            high=1.0,
            constraints='-1, or 0 to 1.',
            check=_check_presence,
        ),
        Declaration(
            'presence_hysteresis',
            0.05,
            'How far below its threshold the score of what is present may fall.',
            low=0.0,
            high=1.0,
        ),
        Declaration(
            'min_area',
            0,
            'Least area of a mask, pixels; a prompt with less is absent.',
            low=0,
            high=1_000_000_000,
        ),
        Declaration(
            'smoothing',
            0.0,
            'Time constant of the average over frames, seconds; 0 is none.',
            low=0.0,
            high=60.0,
        ),
        Declaration(
            'smoothing_reset',
            0.06,
            'Change of the picture (the camera moves) above which that average begins anew; 1 is '
            'never.',
            low=0.0,
            high=1.0,
        ),
        Declaration(
            'reuse_below',
            0.0,
            'An approximation for a camera that stands still: the encoding of an earlier image is '
            'reused while no tile of the picture changes by this many levels of 255; 0 is never.',
            low=0.0,
            high=255.0,
        ),
        Declaration(
            'reuse_frames',
            MAX_REUSES,
            'Most frames in a row that reuse an encoding; the next is encoded anyhow.',
            low=1,
            high=1_000_000,
        ),
        Declaration(
            'template',
            '',
            "Caption that phrases are put into; empty takes the model's own.",
            constraints='plain, fixed, shuffle, shuffle+, ensemble, or a text with one {}.',
            check=readable(_read_template, PromptError),
        ),
        Declaration(
            'visual_method',
            DEFAULT_METHOD,
            'How a picture and its mask become a prompt image.',
            constraints=f'One of {", ".join(METHODS)}.',
            check=one_of(*METHODS),
        ),
        Declaration(
            'text_weight',
            0.5,
            'Share of the words where a phrase is mixed with a picture of the same name.',
            low=0.0,
            high=1.0,
        ),
        Declaration(
            'prompt_file',
            '',
            'YAML file that ~/save_prompts writes and ~/load_prompts reads; restored when the node '
            'is configured, if it is there. Empty for none.',
        ),
        Declaration('overlay_alpha', 0.5, 'Share of the tint on ~/overlay.', low=0.0, high=1.0),
        Declaration(
            'overlay_colors',
            '',
            'Colours on ~/overlay in place of the palette: NAME_OR_ID=#RRGGBB, by the name of a '
            'prompt or the id of a label (; separates several), or a list of such texts.',
            constraints='Such as mug=#ff8800 or 3=#00ff00; what names no active prompt waits for '
            'it; empty is the palette.',
            dynamic_type=True,
            check=readable(_read_colors, ColourError),
        ),
        Declaration('overlay_legend', True, 'Whether ~/overlay shows the names of the prompts.'),
        Declaration(
            'detection_min_area',
            100,
            'Least area of a connected part of a mask that is a detection, pixels.',
            low=1,
            high=100_000_000,
        ),
        Declaration(
            'roi',
            WHOLE,
            'Region of interest: the part of every image that is segmented; outputs keep the size '
            'of the image and are 0 outside.',
            constraints='x, y, width and height in pixels, inside of the image; four zeros, or '
            'nothing, are the whole image.',
            dynamic_type=True,
            check=readable(read_roi, RegionError),
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
} | DEPTH_DECLARATIONS


@dataclass(frozen=True)
class Settings:
    """The parameters that the threads of the worker read, as one object that never changes.

    Attributes:
        threshold: Probability in (0, 1), or None for the model's own.
        overlay_alpha: Share of the tint, 0…1.
        overlay_colors: Colours in place of the palette's.
        overlay_legend: Whether the overlay has a legend.
        max_rate: Frames a second; 0 is no limit.
        watchdog: Seconds; 0 is never.
        template: What phrases are put into, or None for the model's own.
        visual_method: How a picture and its mask become a prompt image.
        steadying: Smoothing and presence.
        detection_min_area: Pixels, from 1.
        text_weight: Share of the words where a phrase meets a picture, 0…1.
        roi: Region of interest, None for the whole image.
        reuse_below: Levels of 255; 0 is never.
        reuse_frames: Frames, from 1.
    """

    threshold: float | None
    overlay_alpha: float
    overlay_legend: bool
    max_rate: float
    watchdog: float
    template: str | None = None
    visual_method: str = DEFAULT_METHOD
    steadying: Steadying = field(default_factory=Steadying)
    detection_min_area: int = 100
    text_weight: float = 0.5
    roi: Roi | None = None
    reuse_below: float = 0.0
    reuse_frames: int = MAX_REUSES
    overlay_colors: Colours = ()

    @classmethod
    def of(cls, node: Any) -> Settings:
        """Reads the settings of a node."""
        threshold = float(node.get_parameter('threshold').value)
        presence = float(node.get_parameter('presence_threshold').value)
        return cls(
            threshold=None if threshold == -1.0 else threshold,
            overlay_alpha=float(node.get_parameter('overlay_alpha').value),
            overlay_colors=_read_colors(node.get_parameter('overlay_colors').value),
            overlay_legend=bool(node.get_parameter('overlay_legend').value),
            detection_min_area=int(node.get_parameter('detection_min_area').value),
            text_weight=float(node.get_parameter('text_weight').value),
            roi=read_roi(node.get_parameter('roi').value),
            reuse_below=float(node.get_parameter('reuse_below').value),
            reuse_frames=int(node.get_parameter('reuse_frames').value),
            max_rate=float(node.get_parameter('max_rate').value),
            watchdog=float(node.get_parameter('watchdog').value),
            template=str(node.get_parameter('template').value).strip() or None,
            visual_method=str(node.get_parameter('visual_method').value),
            steadying=Steadying(
                smoothing=float(node.get_parameter('smoothing').value),
                smoothing_reset=float(node.get_parameter('smoothing_reset').value),
                presence_threshold=None if presence == -1.0 else presence,
                presence_hysteresis=float(node.get_parameter('presence_hysteresis').value),
                min_area=int(node.get_parameter('min_area').value),
            ),
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
