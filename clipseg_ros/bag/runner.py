"""Segmenting every image of a ROS 2 bag into another bag, without ROS.

Topics, types, headers and pixels are those of the node ``segment``. Unlike a recording of the node,
the new bag has results for every image.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_model.images import MAX_PIXELS
from clipseg_model.outputs.frame_outputs import Scratch
from clipseg_model.outputs.palette import Colours, check_used
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.video.steadying import Steadier, Steadying
from clipseg_ros.bag.messages import MessageFactory, message_store
from clipseg_ros.bag.reading import CONVERTERS, Camera
from clipseg_ros.errors import BagError, ImageConversionError
from clipseg_ros.outputs.messages import detection_array, label_info, segment_array
from clipseg_ros.outputs.result import (
    IMAGE_OUTPUTS,
    FrameResult,
    compute_pixels,
    write_image,
)
from clipseg_ros.prompts.messages import write_messages
from clipseg_ros.prompts.set import PromptRequest, PromptSet, reported

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer

OUTPUTS = (*IMAGE_OUTPUTS, 'segments', 'detections')
"""What can be asked for; ``prompts`` and ``label_info`` are always there."""

STORAGES = ('mcap', 'sqlite3')

_TYPES = {'segments': 'SegmentArray', 'detections': 'Detection2DArray', 'prompts': 'PromptArray',
          'label_info': 'LabelInfo'}  # fmt: skip
_LATCHED = ('prompts', 'label_info')


@dataclass(frozen=True)
class BagOutput:
    """The bag that is written.

    Attributes:
        node: Name of the node whose topics are written, with its namespace.
        min_area: Least area of a detection, pixels.
        colours: Of prompts in the outputs, by name or id, in place of the palette's.

    Raises:
        BagError: The folder exists or is not called in Unicode, an output or the storage is
            unknown, or there are colours and no output that has them.
    """

    folder: Path
    outputs: Sequence[str] = ('mask', 'labels', 'confidence', 'segments')
    storage: str = 'mcap'
    node: str = '/clipseg'
    min_area: int = 100
    colours: Colours = ()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.outputs) - set(OUTPUTS))
        if unknown or not self.outputs:
            raise BagError(
                f'the outputs are some of {", ".join(OUTPUTS)}, not {", ".join(unknown) or "none"}'
            )
        if self.storage not in STORAGES:
            raise BagError(f'the storage is one of {", ".join(STORAGES)}, not {self.storage!r}')
        if self.colours and not {'overlay', 'labels/color'} & set(self.outputs):
            raise BagError(
                'colours are for the outputs overlay and labels/color, and neither is asked for: '
                'add one (--outputs), or leave the colours out'
            )
        if os.path.lexists(self.folder):
            raise BagError(f'{self.folder} exists already: name another folder, or remove it')
        if self.folder.name != self.folder.name.encode(errors='replace').decode():
            raise BagError(f'metadata.yaml cannot hold {self.folder.name!r}: name another folder')


class BagRunner:
    """Segments the images of one topic of a bag.

    Prompts get the ids 1, 2, 3 … as the node gives them. A pixel is on above the threshold, None
    for the model's. Images of more than ``max_pixels`` pixels are left out. ``problems`` counts
    what was wrong with images that could not be read, and those that the bag counts and does not
    have.

    Raises:
        BagError: The messages of clipseg_ros are not installed.
        ColourError: There is a colour for a prompt that is not there.
        PromptError: Two prompts have one name.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: Sequence[Prompt],
        output: BagOutput,
        threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.problems: Counter[str] = Counter()
        self._segmenter, self._output, self._threshold = segmenter, output, threshold
        self._max_pixels = max_pixels
        self._asked = PromptSet().replace([PromptRequest(prompt) for prompt in prompts])
        self._prompts = reported(self._asked)
        check_used(output.colours, [(entry.id, entry.name) for entry in self._prompts])
        # As a node with the parameters that it has by default.
        self._steadier, self._steadying = Steadier(), Steadying()
        self._wanted = [name for name in OUTPUTS if name in output.outputs]
        self._make = MessageFactory(message_store())
        self._scratch = Scratch()
        self._connections: dict[str, Connection] = {}

    def run(self, camera: Camera, tick: Callable[[], None]) -> int:
        """Segment every image, calling ``tick`` after each; return how many were segmented.

        The new bag gets its name when it is complete; there is none if no image could be read.

        Raises:
            BagError: No image can be read, the bag is damaged, or the new one cannot be written.
            ClipsegError: The model refuses an image or a prompt.
        """
        from rosbags.rosbag2 import WriterError

        folder = self._output.folder
        seen = done = 0
        self._connections = {}
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory('.part', 'clipseg-', folder.parent) as part:
                # Files are named after their folder, so that has its final name already.
                bag = Path(part, folder.name)
                with _writer(bag, self._output.storage) as writer:
                    for time, kind, data in camera.messages():
                        done += self._segment(writer, camera, kind, data, time)
                        seen += 1
                        tick()
                    if seen < camera.total:
                        problem = f'count: {camera.total} messages are counted, {seen} are there'
                        self.problems[problem] += camera.total - seen
                    if not done:
                        raise BagError(
                            f'no image of {camera.topic} can be read, so nothing is written: '
                            f'{"; ".join(self.problems)}'
                        )
                bag.rename(folder)
        except (WriterError, OSError, sqlite3.Error, UnicodeError) as error:
            raise BagError(f'{folder} cannot be written: {error}') from error
        return done

    def _segment(self, writer: Writer, camera: Camera, kind: str, data: Any, time: int) -> bool:
        try:
            message = camera.read(kind, data)
            rgb = CONVERTERS[kind](message, self._max_pixels)
        except ImageConversionError as error:
            self.problems[f'{error.kind}: {error}'] += 1
            return False
        prompts = [entry.prompt for entry in self._asked]
        found = self._segmenter.segment(rgb, prompts, self._threshold)
        stamp = message.header.stamp
        found = self._steadier.apply(
            found,
            stamp.sec + stamp.nanosec * 1e-9,
            rgb,
            self._steadying,
            self._segmenter.card.presence_threshold,
        )
        if not self._connections:
            self._announce(writer, found, message.header, time)
        pixels = compute_pixels(found, self._prompts, self._wanted, self._scratch)
        colours = self._output.colours
        result = FrameResult(message.header, rgb, self._prompts, found, pixels, colours=colours)
        for name in self._wanted:
            if name in IMAGE_OUTPUTS:
                made = self._image(name, result)
            elif name == 'segments':
                made = segment_array(self._make, result)
            else:
                made = detection_array(self._make, result, self._output.min_area)
            self._write(writer, name, made, time)
        return True

    def _image(self, name: str, result: FrameResult) -> Any:
        kind = np.float32 if name == 'probability' else np.uint8
        shape = result.rgb.shape if IMAGE_OUTPUTS[name] == 'rgb8' else result.pixels.shape
        pixels = np.empty(shape, kind)
        write_image(name, result, pixels)
        height, width = result.pixels.shape
        return self._make.Image(
            header=result.header,
            height=height,
            width=width,
            encoding=IMAGE_OUTPUTS[name],
            step=pixels.nbytes // height,
            data=pixels.astype(pixels.dtype.newbyteorder('<')).reshape(-1).view(np.uint8),
        )

    def _announce(self, writer: Writer, found: Segmentation, header: Any, time: int) -> None:
        """Write what is latched, before everything else."""
        card = self._segmenter.card
        threshold = card.threshold if self._threshold is None else self._threshold
        own = self._make.Header(stamp=header.stamp)
        prompts = write_messages(self._make.Prompt, self._asked, threshold, card.presence_threshold)
        array = self._make.PromptArray(header=own, model=found.model, prompts=prompts)
        self._write(writer, 'prompts', array, time)
        info = label_info(self._make, self._prompts, threshold, own)
        self._write(writer, 'label_info', info, time)

    def _write(self, writer: Writer, name: str, message: Any, time: int) -> None:
        kind = self._make.type_name(_TYPES.get(name, 'Image'))
        if name not in self._connections:
            self._connections[name] = writer.add_connection(
                f'/{self._output.node.strip("/")}/{name}',
                kind,
                typestore=self._make.store,
                offered_qos_profiles=[_qos(latched=name in _LATCHED)],
            )
        data = self._make.store.serialize_cdr(message, kind)
        writer.write(self._connections[name], time, data)


def _writer(folder: Path, storage: str) -> Writer:
    """Return a writer: that of rosbags takes paths for URIs, and SQLite none above 512 bytes."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

    class PathWriter(Sqlite3Writer):
        def __init__(self, path: Path, _: Any) -> None:
            self.path = path / f'{path.name}.db3'
            self.conn = sqlite3.connect(path.parent.absolute() / 'db3')
            self.conn.executescript(self.SQLITE_SCHEMA)
            self.cursor = self.conn.cursor()

        def close(self, version: int, metadata: str) -> None:
            super().close(version, metadata)
            (self.path.parents[1] / 'db3').rename(self.path)

    # Version 8 is read by every ROS 2 since Humble.
    writer = Writer(folder, version=8, storage_plugin=StoragePlugin[storage.upper()])
    writer.STORAGE_PLUGINS = {**writer.STORAGE_PLUGINS, StoragePlugin.SQLITE3: PathWriter}
    return writer


def _qos(latched: bool) -> Any:
    """Return the node's QoS of an output, which a player then offers too."""
    from rosbags import interfaces as spec

    never = spec.QosTime(2147483647, 4294967295)
    return spec.Qos(
        history=spec.QosHistory.KEEP_LAST,
        depth=1,
        reliability=spec.QosReliability.RELIABLE,
        durability=spec.QosDurability.TRANSIENT_LOCAL if latched else spec.QosDurability.VOLATILE,
        deadline=never,
        lifespan=never,
        liveliness=spec.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )
