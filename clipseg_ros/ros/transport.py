"""Whether a camera publishes images in another form than the one that is subscribed to.

Raw and compressed images are different types on different topics, so the middleware never says that
they do not fit: nothing comes, and nobody knows why. The graph does know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_SUFFIX = '/compressed'


def find_transport_problem(node: Any, topic: str, compressed: bool) -> str:
    """Returns what is wrong with the publishers of an image topic, or an empty string.

    Args:
        node: Any node.
        topic: Resolved name of what is subscribed to.
        compressed: Whether CompressedImage messages are expected there, not Image.
    """
    wanted = f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}'
    remedy = f'-p image_transport:={"raw" if compressed else "compressed"}'
    publishers = node.get_publishers_info_by_topic(topic)
    if any(peer.topic_type == wanted for peer in publishers):
        return ''
    if publishers:
        types = ', '.join(sorted({peer.topic_type for peer in publishers}))
        return (
            f'type mismatch on {topic}: {_names(publishers)} publishes {types} and this node reads '
            f'{wanted}. Remedy: remap image to a topic of that type, or start with {remedy}'
        )
    other = topic.removesuffix(_SUFFIX) if compressed else topic + _SUFFIX
    others = node.get_publishers_info_by_topic(other)
    if not others:
        return ''
    return (
        f'transport mismatch on {topic}: nobody publishes there, and {_names(others)} publishes '
        f'{other}. Remedy: start this node with {remedy}, or have the camera publish {topic}'
    )


def _names(peers: Iterable[Any]) -> str:
    return ', '.join(
        sorted({f'{peer.node_namespace.rstrip("/")}/{peer.node_name}' for peer in peers})
    )
