"""Segments every image of a ROS 2 bag and writes another bag; needs no ROS.

The topics, types, headers and pixels are those of the node ``segment``: what replays the result
cannot tell it from a recording of the node, except that no image is missing.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.outputs.frame_outputs import Scratch
from clipseg_model.outputs.palette import Colours, check_used
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.video.steadying import Steadier, Steadying
from clipseg_ros.bag.messages import MessageFactory, message_store
from clipseg_ros.errors import BagError, ImageConversionError
from clipseg_ros.images.conversion import compressed_to_rgb, image_to_rgb
from clipseg_ros.outputs.messages import detection_array, label_info, segment_array
from clipseg_ros.outputs.result import (
    IMAGE_OUTPUTS,
    FrameResult,
    Look,
    compute_pixels,
    write_image,
)
from clipseg_ros.prompts.messages import write_messages
from clipseg_ros.prompts.set import PromptRequest, PromptSet, reported

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer

OUTPUTS = (*IMAGE_OUTPUTS, 'segments', 'detections')
"""What can be asked for; ``prompts`` and ``label_info`` are always there."""

STORAGES = ('mcap', 'sqlite3')

_TYPES = {'segments': 'SegmentArray', 'detections': 'Detection2DArray', 'prompts': 'PromptArray',
          'label_info': 'LabelInfo'}  # fmt: skip
_LATCHED = ('prompts', 'label_info')
_CONVERTERS: dict[str, Callable[[Any], NDArray[np.uint8]]] = {
    'sensor_msgs/msg/Image': image_to_rgb,
    'sensor_msgs/msg/CompressedImage': compressed_to_rgb,
}


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """Opens a bag: a folder with metadata.yaml, or an .mcap or .db3 file.

    Raises:
        BagError: It is not there, is no ROS 2 bag, is damaged, or `rosbags` is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
    except ImportError as error:
        raise BagError(
            'bags are read with the library rosbags, which is not installed: pip install '
            "'clipseg_ros[bag]'"
        ) from error
    if not path.exists():
        raise BagError(f'{path}: there is no such bag')
    if path.suffix == '.bag':
        raise BagError(
            f'{path} is a bag of ROS 1: convert it first, `rosbags-convert --src {path}`'
        )
    try:
        with AnyReader([path], default_typestore=message_store()) as reader:
            yield reader
    except (AnyReaderError, FileNotFoundError) as error:
        raise BagError(
            f'{path} cannot be read as a ROS 2 bag (a folder with metadata.yaml, or an .mcap or '
            f'.db3 file): {error}'
        ) from error


def find_camera(reader: AnyReader, topic: str | None) -> list[Connection]:
    """Returns the connections of the image topic of a bag.

    Args:
        reader: The bag.
        topic: Name; where None, the only image topic.

    Raises:
        BagError: There is none, or none of that name, or more than one to choose from.
    """
    cameras: dict[str, list[Connection]] = {}
    for connection in reader.connections:
        if connection.msgtype in _CONVERTERS:
            cameras.setdefault(connection.topic, []).append(connection)
    listed = ', '.join(sorted(cameras)) or 'none'
    if topic is None:
        if len(cameras) == 1:
            return next(iter(cameras.values()))
        hint = 'name one with --topic' if cameras else 'record one'
        raise BagError(f'the image topics of the bag are: {listed}; {hint}')
    if topic not in cameras:
        raise BagError(f'{topic} is not an image topic of the bag; these are: {listed}')
    return cameras[topic]


class BagRunner:
    """Segments the images of one topic of a bag.

    Args:
        segmenter: The model.
        prompts: What to look for; ids 1, 2, 3 … as the node gives them.
        output: Folder of the new bag; may not exist.
        outputs: Some of :data:`OUTPUTS`.
        threshold: As :meth:`Segmenter.predict` takes it.
        node: Name of the node whose topics are written, with its namespace.
        storage: One of :data:`STORAGES`.
        min_area: Least area of a detection, pixels.
        colours: Those of prompts on the overlay, by name or id, in place of the palette's.

    Attributes:
        problems: What was wrong with images that could not be read, and how often.

    Raises:
        BagError: The folder exists, or an output or the storage has another name; colours are
            given, and no overlay is asked for.
        ColourError: A colour is that of no prompt.
        PromptError: Two prompts have one name.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: Sequence[Prompt],
        output: Path,
        outputs: Sequence[str] = ('mask', 'labels', 'confidence', 'segments'),
        threshold: float | None = None,
        node: str = '/clipseg',
        storage: str = 'mcap',
        min_area: int = 100,
        colours: Colours = (),
    ) -> None:
        unknown = sorted(set(outputs) - set(OUTPUTS))
        if unknown or not outputs:
            raise BagError(
                f'the outputs are some of {", ".join(OUTPUTS)}, not {", ".join(unknown) or "none"}'
            )
        if storage not in STORAGES:
            raise BagError(f'the storage is one of {", ".join(STORAGES)}, not {storage!r}')
        if colours and 'overlay' not in outputs:
            raise BagError(
                'colours are for the output overlay, which is not asked for: add it (--outputs), '
                'or leave the colours out'
            )
        if output.exists():
            raise BagError(f'{output} exists already: name another folder, or remove it')
        self.problems: Counter[str] = Counter()
        self._segmenter, self._output, self._storage = segmenter, output, storage
        self._threshold = threshold
        self._asked = PromptSet().replace([PromptRequest(prompt) for prompt in prompts])
        self._prompts = reported(self._asked)
        check_used(colours, [(entry.id, entry.name) for entry in self._prompts])
        self._look = Look(colours=colours)
        # As a node with the parameters that it has by default.
        self._steadier, self._steadying = Steadier(), Steadying()
        self._wanted = [name for name in OUTPUTS if name in outputs]
        self._node = f'/{node.strip("/")}'
        self._min_area = min_area
        self._make = MessageFactory(message_store())
        self._scratch = Scratch()
        self._connections: dict[str, Connection] = {}

    def run(
        self, reader: AnyReader, cameras: Sequence[Connection], tick: Callable[[], None]
    ) -> int:
        """Segments every image; what is written has its name when all of it is there.

        Args:
            reader: The bag.
            cameras: Of :func:`find_camera`.
            tick: Called after each image.

        Returns:
            How many images were segmented.

        Raises:
            BagError: The bag is damaged, or the new one cannot be written.
            ClipsegError: The model refuses an image or a prompt.
        """
        from rosbags.highlevel import AnyReaderError
        from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

        self._connections = {}
        part = self._output.with_name(f'{self._output.name}.part')
        done = 0
        try:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            plugin = StoragePlugin[self._storage.upper()]
            # Version 8 is read by every ROS 2 since Humble.
            with Writer(part, version=8, storage_plugin=plugin) as writer:
                for camera, time, data in reader.messages(connections=cameras):
                    message = reader.deserialize(data, camera.msgtype)
                    done += self._segment(writer, message, camera.msgtype, time)
                    tick()
            # The file was named after the folder, and metadata.yaml names the file.
            self._rename(part)
        except (AnyReaderError, WriterError, OSError) as error:
            raise BagError(
                f'{self._output} cannot be written, or the bag is damaged: {error}'
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return done

    def _rename(self, part: Path) -> None:
        for path in part.iterdir():
            if path.stem == part.name:
                path.rename(path.with_name(f'{self._output.name}{path.suffix}'))
        metadata = part / 'metadata.yaml'
        text = metadata.read_text(encoding='utf-8')
        metadata.write_text(text.replace(part.name, self._output.name), encoding='utf-8')
        part.rename(self._output)

    def _segment(self, writer: Writer, message: Any, kind: str, time: int) -> bool:
        try:
            rgb = _CONVERTERS[kind](message)
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
        result = FrameResult(message.header, rgb, self._prompts, found, pixels)
        for name in self._wanted:
            if name in IMAGE_OUTPUTS:
                made = self._image(name, result)
            elif name == 'segments':
                made = segment_array(self._make, result)
            else:
                made = detection_array(self._make, result, self._min_area)
            self._write(writer, name, made, time)
        return True

    def _image(self, name: str, result: FrameResult) -> Any:
        kind = np.float32 if name == 'probability' else np.uint8
        shape = result.rgb.shape if name == 'overlay' else result.pixels.shape
        pixels = np.empty(shape, kind)
        write_image(name, result, pixels, self._look)
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
        """Writes what is latched, before everything else."""
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
                f'{self._node}/{name}',
                kind,
                typestore=self._make.store,
                offered_qos_profiles=[_qos(latched=name in _LATCHED)],
            )
        data = self._make.store.serialize_cdr(message, kind)
        writer.write(self._connections[name], time, data)


def _qos(latched: bool) -> Any:
    """The node's profile of an output, so that a player offers it too."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    never = QosTime(2147483647, 4294967295)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=never,
        lifespan=never,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )
