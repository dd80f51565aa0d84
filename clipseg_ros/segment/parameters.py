"""The parameters of the node ``segment``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from clipseg_model.errors import ColourError
from clipseg_model.images import LARGEST
from clipseg_model.outputs.palette import Colours, read_colours
from clipseg_model.prompting.templates import find_captions
from clipseg_model.prompting.visual_prompt import METHODS, find_method
from clipseg_model.regions import COMBINATIONS
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.steadying import Steadying
from clipseg_model.video.still import MAX_REUSES
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.errors import ParameterError
from clipseg_ros.images.backend import BACKENDS, BUILTIN
from clipseg_ros.images.conversion import MOST_OF_TOPICS
from clipseg_ros.outputs.parameters import OutputSettings
from clipseg_ros.prompts.text import Texts, check_texts, survive_yaml_texts
from clipseg_ros.ros.parameters import declarations_of, group, parameter
from clipseg_ros.segment.region import WHOLE, Roi, read_roi


def _read_colors(value: Any) -> Colours:
    # An empty list has any type: ROS does not know of what.
    entries = [value] if isinstance(value, str) else value
    if not hasattr(entries, '__len__') or not all(isinstance(entry, str) for entry in entries):
        raise ColourError(
            f'{value!r} is neither a text nor a list of texts such as mug=#ff8800 or 3=#00ff00'
        )
    return read_colours(list(entries))


def _threshold(ends: bool) -> Callable[[float], float | None]:
    """Return what reads a probability, or -1 as None; whether 0 and 1 are allowed."""

    def read(value: float) -> float | None:
        if value == -1.0:
            return None
        if 0.0 < value < 1.0 or (ends and value in (0.0, 1.0)):
            return value
        inside = 'between 0 and 1' if ends else 'between 0 and 1 (both exclusive)'
        raise ParameterError(f"{value:g} is neither {inside} nor -1 (the model's own)")

    return read


def _read_template(value: str) -> str | None:
    template = value.strip() or None
    if template is not None:
        find_captions(template)
    return template


def _read_visual_method(value: str) -> str | None:
    if value:
        find_method(value)
    return value or None


def _read_device(value: str) -> str:
    if not re.fullmatch(r'auto|cpu|cuda(:\d+)?', value):
        raise ParameterError(f'{value!r} is not auto, cpu, cuda or cuda:N')
    return value


def _read_model(value: str) -> str:
    if not value.strip():
        raise ParameterError('it is empty; give a name or the path of a .safetensors')
    return value


@dataclass(frozen=True)
class Settings:
    """What the parameters say, as one object that never changes. They say what each field means.

    A value by which a parameter leaves the choice to others is None here; ``prompt`` is as it was
    written, and what is active is in :class:`~clipseg_ros.prompts.set.PromptSet`.
    """

    model: str = parameter(
        'everyday',
        'Name of a model, or path of a .safetensors checkpoint.',
        when='configure',
        link='models.md',
        read=_read_model,
    )
    device: str = parameter(
        'auto',
        'Where the model runs: auto, cpu, cuda or cuda:N. A device that is not there is an error, '
        'never replaced.',
        when='configure',
        read=_read_device,
    )
    runtime: str = parameter(
        'auto',
        'What executes the model; auto takes one without torch where the model is exported.',
        choices=('eager', 'compile', 'onnxruntime', 'openvino', 'tensorrt', 'auto'),
        when='configure',
        link='runtimes.md',
    )
    precision: str = parameter(
        'fp32',
        'What the model computes in. One that the runtime or the device lacks is an error.',
        choices=('fp32', 'bf16', 'fp16', 'int8'),
        when='configure',
        link='runtimes.md',
    )
    exports: str | None = parameter(
        '',
        "Folder that `clipseg export` wrote the model to; empty is the user's cache.",
        when='start',
        read=lambda folder: folder or None,
    )
    threads: int | None = parameter(
        0,
        'Threads that compute on a CPU, of the model and of OpenCV; 0 is one for each core.',
        low=0,
        high=256,
        when='configure',
        read=lambda threads: threads or None,
    )
    max_batch: int = parameter(
        0,
        'Several cameras on one model: most images that go through it in one call; 1 has them '
        'take turns, 0 is automatic.',
        low=0,
        high=64,
        when='configure',
        link='cameras.md',
    )
    image_transport: str = parameter(
        'raw',
        'raw subscribes to `image` (Image), compressed to `image/compressed`.',
        choices=('raw', 'compressed'),
        when='configure',
    )
    image_backend: str = parameter(
        BUILTIN,
        "What reads the camera's images: builtin is the node's own converter; cv_bridge has to "
        'be installed, and to pass a self-test.',
        choices=BACKENDS,
        when='configure',
        link='#reading-images-with-cv_bridge',
    )
    max_pixels: int = parameter(
        MOST_OF_TOPICS,
        'Most pixels of an image. One that states more, compressed or not, is refused before '
        'memory is taken for it, and a JPEG that goes over twenty times as many in its scans. The '
        'default takes cameras of 26 million pixels; one of 8K needs more.',
        low=1,
        high=LARGEST,
    )
    prompt: Texts = parameter(
        '',
        'What to segment: a text (; separates several, `name: phrase` names one, ! rules one '
        'out) or a list. Follows ~/prompt and the services.',
        constraints='At most 254 prompts of at most 1000 characters; empty stops.',
        any_type=True,
        link='prompts.md#prompts-in-parameters',
        read=check_texts,
        write=survive_yaml_texts,
    )
    threshold: float | None = parameter(
        -1.0,
        "Probability above which a pixel is on; -1 takes the model's calibrated threshold.",
        low=-1.0,
        high=1.0,
        constraints='-1, or above 0 and below 1.',
        read=_threshold(ends=False),
    )
    presence_threshold: float | None = parameter(
        -1.0,
        "Score from which on a prompt is present; -1 takes the model's calibrated threshold, 0 "
        'counts every prompt as present.',
        low=-1.0,
        high=1.0,
        constraints='-1, or 0 to 1.',
        link='prompts.md#presence',
        read=_threshold(ends=True),
    )
    presence_hysteresis: float = parameter(
        0.05,
        'How far the score of a prompt that is present may fall below its threshold.',
        low=0.0,
        high=1.0,
    )
    min_area: int = parameter(
        0,
        'Least area of a mask, pixels; a prompt with less is absent.',
        low=0,
        high=1_000_000_000,
    )
    smoothing: float = parameter(
        0.0,
        'Time constant of the average over frames, seconds; 0 is none.',
        low=0.0,
        high=60.0,
        link='prompts.md#smoothing',
    )
    smoothing_reset: float = parameter(
        0.06,
        'Change of the picture (the camera moves) above which that average starts afresh; 1 is '
        'never.',
        low=0.0,
        high=1.0,
    )
    reuse_below: float = parameter(
        0.0,
        'An approximation for a camera that stands still: the encoding of an earlier image is '
        'reused while no tile of the picture changes by this many levels of 255; 0 is never.',
        low=0.0,
        high=255.0,
        link='performance.md#a-camera-that-stands-still',
    )
    reuse_frames: int = parameter(
        MAX_REUSES,
        'Most frames in a row that reuse an encoding; the next is encoded anyhow.',
        low=1,
        high=1_000_000,
    )
    # Not off, which YAML takes for false.
    zoom: str = parameter(
        'none',
        'Whether parts of every image are looked at again at full input size, for small things: '
        'self, where the model itself sees something possible; detector, where zoom_detector sees '
        'something. Each part costs about as much as an image.',
        choices=('none', 'self', 'detector'),
        link='zoom.md#in-the-node',
    )
    zoom_detector: str | None = parameter(
        '',
        'Detector that is loaded with the model, for zoom: a name of torchvision whose weights '
        '`clipseg download` fetched, or the name or path of a model. Empty for none.',
        when='configure',
        link='zoom.md#in-the-node',
        read=lambda name: name.strip() or None,
    )
    zoom_tiles: int = parameter(
        1,
        'Parts of the picture, in a row and in a column, that a model as zoom_detector looks at '
        'besides, for what is too small in the whole; 1 for none. Costs 1 + tiles² passes.',
        low=1,
        high=8,
        when='configure',
        link='zoom.md#a-model-as-the-detector',
    )
    zoom_combination: str | None = parameter(
        'auto',
        'How parts and the whole image are joined; auto is mean, and regions for ClsCLIP with a '
        'detector (ClsCLIP+).',
        choices=('auto', *COMBINATIONS),
        link='zoom.md#how-the-results-are-combined',
        read=lambda name: None if name == 'auto' else name,
    )
    zoom_regions: int | None = parameter(
        0,
        'Most parts of an image that are looked at, all prompts together; 0 is 8, and 100 for '
        'ClsCLIP+.',
        low=0,
        high=100,
        read=lambda count: count or None,
    )
    template: str | None = parameter(
        '',
        "Caption that phrases are put into; empty takes the model's own.",
        constraints='plain, fixed, shuffle, shuffle+, ensemble, or a text with one {}.',
        link='prompts.md#text',
        read=_read_template,
    )
    visual_method: str | None = parameter(
        '',
        "How a picture and its mask become a prompt image; empty takes the model's own.",
        constraints=f'{", ".join(METHODS)}, or nothing.',
        link='prompts.md#example-images',
        read=_read_visual_method,
    )
    text_weight: float = parameter(
        0.5,
        'Share of the words where a phrase is mixed with a picture of the same name. Prompts that '
        'are mixed with it follow at once; those given a weight of their own keep that.',
        low=0.0,
        high=1.0,
    )
    prompt_file: str = parameter(
        '',
        'YAML file that ~/save_prompts writes and ~/load_prompts reads. If it is there when the '
        'node is configured, it is restored in place of `prompt`. Empty for none.',
        when='start',
    )
    overlay_alpha: float = parameter(0.5, 'Share of the tint on ~/overlay.', low=0.0, high=1.0)
    overlay_colors: Colours = parameter(
        '',
        'Colours on ~/overlay, ~/labels/color and ~/markers in place of the palette: '
        'NAME_OR_ID=#RRGGBB, by the name of a prompt or the id of a label (; separates several), '
        'or a list of such texts.',
        constraints='Such as mug=#ff8800 or 3=#00ff00; an entry for a name that no active prompt '
        'has is kept; empty is the palette.',
        any_type=True,
        link='#colours',
        read=_read_colors,
    )
    overlay_legend: bool = parameter(True, 'Whether ~/overlay shows the names of the prompts.')
    detection_min_area: int = parameter(
        100,
        'Least area of a connected part of a mask that is a detection, pixels.',
        low=1,
        high=100_000_000,
    )
    roi: Roi | None = parameter(
        WHOLE,
        'Region of interest: the part of every image that is segmented; outputs keep the size '
        'of the image and are 0 outside.',
        constraints='x, y, width and height in pixels, inside of the image; four zeros, or '
        'nothing, are the whole image.',
        any_type=True,
        link='#region-of-interest',
        read=read_roi,
    )
    max_rate: float = parameter(
        0.0, 'Most frames a second that are segmented; 0 is no limit.', low=0.0, high=1000.0
    )
    watchdog: float = parameter(
        5.0,
        'Seconds without an image, or in one image, after which the node says so; 0 is never.',
        low=0.0,
        high=3600.0,
    )
    outputs: OutputSettings = group(OutputSettings)
    depth: DepthSettings = group(DepthSettings)
    autostart: bool = parameter(
        True, 'Whether the node configures and activates itself when it starts.', when='start'
    )
    exit_on_failure: bool = parameter(
        False,
        'Whether the process ends, with status 1, where configuring or activating fails, or where '
        'images reach others and not this node: for supervisors that start it again.',
        when='start',
    )

    @cached_property
    def segment_settings(self) -> SegmentSettings:
        """How the segmenter answers a call, zoom aside."""
        return SegmentSettings(
            template=self.template,
            visual_method=self.visual_method,
            reuse_below=self.reuse_below,
            reuse_frames=self.reuse_frames,
        )

    @cached_property
    def steadying(self) -> Steadying:
        """Smoothing and presence."""
        return Steadying(**{entry.name: getattr(self, entry.name) for entry in fields(Steadying)})


DECLARATIONS = declarations_of(Settings)
