"""Opening ROS 2 bags, and reading the images of one of their topics."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg_ros.bag.files import ZSTD_MAGIC, bag_files, open_file
from clipseg_ros.bag.messages import message_store
from clipseg_ros.bag.storage import McapFile, SqliteFile, Topic
from clipseg_ros.errors import BagError, ImageConversionError
from clipseg_ros.images.conversion import compressed_to_rgb, image_to_rgb

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

CONVERTERS: dict[str, Callable[[Any], NDArray[np.uint8]]] = {
    'sensor_msgs/msg/Image': image_to_rgb,
    'sensor_msgs/msg/CompressedImage': compressed_to_rgb,
}
"""Type of message → conversion to RGB uint8 (H, W, 3)."""


@dataclass(frozen=True)
class Bag:
    """An open bag: its files and their topics, and what its metadata.yaml counts of each topic."""

    path: Path
    files: list[tuple[McapFile | SqliteFile, list[Topic]]]
    counts: Counter[str]


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag: a folder, or an .mcap or .db3 file; both also compressed with zstd.

    Raises:
        BagError: It is not there, is no ROS 2 bag, lacks files, is damaged, or `rosbags` is not
            installed.
    """
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise BagError(
            'bags are read with the library rosbags, which is not installed: pip install '
            "'clipseg_ros[bag]'"
        ) from error
    paths, counts = bag_files(path)
    with ExitStack() as stack:
        files = [open_file(one, stack) for one in paths]
        yield Bag(path, [(file, file.topics()) for file in files], counts)


@dataclass(frozen=True)
class Camera:
    """An image topic of an open bag.

    Attributes:
        count: How many messages the files, or metadata.yaml where that says more, promise.
    """

    topic: str
    count: int
    files: list[tuple[McapFile | SqliteFile, list[Topic]]]
    store: Typestore

    def messages(self) -> Iterator[tuple[int, str, Any]]:
        """Yield time of recording (ns), type and data of each message, for :meth:`read`.

        Where a message has no valid time, it is 0 and the data is None.

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
            # No message of ROS begins so: a bag may be compressed message by message.
            data = zstd.decompress(data) if data.startswith(ZSTD_MAGIC) else data
            return self.store.deserialize_cdr(data, kind)
        except Exception as error:
            # Whatever it is: it is this message's alone.
            raise ImageConversionError('message', str(error) or type(error).__name__) from error

    @staticmethod
    def _of(file: McapFile | SqliteFile, topics: list[Topic]) -> Iterator[tuple[int, str, Any]]:
        kinds = {topic.id: topic.kind for topic in topics}
        for key, time, data in file.messages(kinds):
            valid = isinstance(time, int) and 0 <= time < 2**63
            yield (time, kinds[key], data) if valid else (0, kinds[key], None)


def find_camera(bag: Bag, topic: str | None) -> Camera:
    """Return an image topic of a bag, the only one where ``topic`` is None.

    Raises:
        BagError: There is none, or none of that name, or more than one to choose from; it has no
            messages, or not those of ROS 2; or a message of clipseg_ros is not installed.
    """
    found = [
        (file, [one for one in topics if one.kind in CONVERTERS]) for file, topics in bag.files
    ]
    names = sorted({one.name for _, topics in found for one in topics})
    listed = ', '.join(names) or 'none'
    if topic is None:
        if len(names) != 1:
            hint = 'name one with --topic' if names else 'record one'
            raise BagError(f'the image topics of the bag are: {listed}; {hint}')
        topic = names[0]
    if topic not in names:
        raise BagError(f'{topic} is not an image topic of the bag; these are: {listed}')
    files = [(file, [one for one in topics if one.name == topic]) for file, topics in found]
    parts = [one for _, topics in files for one in topics]
    store = message_store()
    for part in parts:
        _check(part, store)
    count = max(sum(part.count for part in parts), bag.counts[topic])
    if not count:
        raise BagError(f'{topic} has no messages in {bag.path}: there is nothing to segment')
    return Camera(topic, count, [one for one in files if one[1]], store)


def _check(topic: Topic, store: Typestore) -> None:
    """Check that messages are ROS 2's, and as this package knows them."""
    from rosbags.typesys import get_types_from_msg

    if topic.serialization != 'cdr':
        raise BagError(
            f'the messages of {topic.name} are serialized as {topic.serialization!r}, and only '
            'those of ROS 2, cdr, are read'
        )
    types: Any = {}
    # A definition that cannot be read says nothing against the one that every ROS 2 has.
    with suppress(Exception):
        types = get_types_from_msg(topic.definition, topic.kind) if topic.definition else {}
    for name, (_, fields) in types.items():
        if name in store.fielddefs and store.fielddefs[name][1] != fields:
            raise BagError(f'the bag defines {name} of {topic.name} otherwise than ROS 2 does')
