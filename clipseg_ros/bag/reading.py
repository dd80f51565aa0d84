"""Opening ROS 2 bags, and reading the images of one of their topics."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipseg_ros.bag import storage
from clipseg_ros.bag.messages import message_store
from clipseg_ros.errors import BagError, ImageConversionError
from clipseg_ros.images.conversion import compressed_to_rgb, image_to_rgb

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

CONVERTERS: dict[str, Callable[[Any, int], NDArray[np.uint8]]] = {
    'sensor_msgs/msg/Image': image_to_rgb,
    'sensor_msgs/msg/CompressedImage': compressed_to_rgb,
}
"""Type of message → conversion of one, of so many pixels at most, to RGB uint8 (H, W, 3)."""


class Camera(NamedTuple):
    """An image topic of an open bag, of which files or metadata.yaml count so many messages."""

    topic: str
    total: int
    files: list[tuple[Path, storage.BagFile]]
    store: Typestore

    def messages(self) -> Iterator[tuple[int, str, Any]]:
        """Yield time of recording (ns), type and data of each message, for :meth:`read`.

        Raises:
            BagError: A file is damaged.
        """
        yield from heapq.merge(*(self._of(*one) for one in self.files), key=lambda one: one[0])

    def read(self, kind: str, data: Any) -> Any:
        """Return a message, an image; raises an ImageConversionError if it is damaged."""
        from rosbags.rosbag2.reader import zstd

        if not isinstance(data, bytes):
            raise ImageConversionError('message', 'it has no time of recording, or no data')
        try:
            # No message of ROS begins so: it is compressed, of an image below 512 MiB.
            if data.startswith(storage.ZSTD_MAGIC):
                data = zstd.ZstdDecompressor().decompress(data, max_length=storage.MAX_CHUNK)
            return self.store.deserialize_cdr(data, kind)
        except Exception as error:
            # Whatever it is, it is this message's alone.
            raise ImageConversionError('message', str(error) or type(error).__name__) from error

    def _of(self, path: Path, file: storage.BagFile) -> Iterator[tuple[int, str, Any]]:
        topics = [one for one in file.topics if one.name == self.topic]
        kinds = {one.id: one.kind for one in topics if one.kind in CONVERTERS}
        with storage.damage(path):
            for key, time, data in file.messages(kinds):
                valid = isinstance(time, int) and 0 <= time < 2**63
                yield (time, kinds[key], data) if valid else (0, kinds[key], None)


@contextmanager
def open_camera(path: Path, topic: str | None) -> Iterator[Camera]:
    """Open an image topic of a bag, the only one where ``topic`` is None.

    A bag is a folder, or an .mcap or .db3 file; files may be compressed with zstd.

    Raises:
        BagError: The bag is not there, is no ROS 2 bag, lacks files or is damaged; it has no such
            topic, or more than one to choose from; the topic has no messages, or not those of
            ROS 2; `rosbags` or a message of clipseg_ros is not installed.
    """
    if find_spec('rosbags') is None:
        raise BagError(
            'bags are read with the library rosbags, which is not installed: pip install '
            "'clipseg_ros[bag]'"
        )
    if not path.exists():
        raise BagError(f'{path}: there is no such bag')
    paths, counts = storage.bag_files(path)
    with ExitStack() as stack:
        files = [(one, storage.open_file(one, stack)) for one in paths]
        images = [one for _, file in files for one in file.topics if one.kind in CONVERTERS]
        names = sorted({one.name for one in images})
        listed = ', '.join(names) or 'none'
        if topic is None:
            if len(names) != 1:
                hint = 'name one with --topic' if names else 'record one'
                raise BagError(f'the image topics of the bag are: {listed}; {hint}')
            (topic,) = names
        if topic not in names:
            raise BagError(f'{topic} is not an image topic of the bag; these are: {listed}')
        images = [one for one in images if one.name == topic]
        if foreign := {one.serialization for one in images} - {'cdr'}:
            raise BagError(f'messages of {topic} are serialized as {foreign}, and only cdr is read')
        total = max(sum(one.total for one in images), counts[topic])
        if not total:
            raise BagError(f'{topic} has no messages in the bag: there is nothing to segment')
        # Images are defined alike in every ROS 2: definitions in the bag may be missing or damaged.
        yield Camera(topic, total, files, message_store())
