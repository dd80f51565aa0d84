"""Why the page of a node does not show what one expects, in words. No ROS in here."""

from __future__ import annotations

from dataclasses import dataclass

from clipseg_ros.console.back_ends.base import Trouble

SILENT = 1.5
"""Seconds without a picture after which the page says so."""

_ERROR = 2
# What the node says of a camera that is silent, some seconds later than this process does.
_OF_SILENCE = ('nobody publishes', 'no image')


@dataclass(frozen=True)
class Seen:
    """What is known of a node and of its camera.

    Attributes:
        node: Name of the node.
        domain: ``ROS_DOMAIN_ID`` of this process.
        known: Whether the node has been there since this process began.
        alive: Whether it says something of itself now.
        level: Of its diagnostics: 0 is fine, 1 a warning, 2 an error.
        message: What it says.
        topic: Of its camera; empty while that is not known, or pictures are not subscribed to.
        publishers: On that topic.
        silent: Seconds since a picture came, or since somebody looks.
    """

    node: str
    domain: str = '0'
    known: bool = False
    alive: bool = False
    level: int = 0
    message: str = ''
    topic: str = ''
    publishers: int = 0
    silent: float = 0.0


def troubles(seen: Seen) -> list[Trouble]:
    """Return what is wrong, the worst first, each with its remedy."""
    if not seen.alive:
        what = 'has ended or hangs' if seen.known else 'is not there'
        return [
            Trouble(
                f'the node {seen.node} {what}: start it (ros2 run clipseg_ros segment), under this '
                f'name and in this ROS_DOMAIN_ID ({seen.domain}); the page goes on by itself'
            )
        ]
    found = []
    silence = _silence(seen)
    if silence:
        found.append(Trouble(silence))
    if seen.level and not (silence and seen.message.startswith(_OF_SILENCE)):
        kind = 'note' if seen.message.startswith('no prompt') else 'warning'
        found.append(Trouble(seen.message, 'error' if seen.level >= _ERROR else kind))
    return found


def _silence(seen: Seen) -> str:
    if not seen.topic or seen.silent < SILENT:
        return ''
    if not seen.publishers:
        return (
            f'nobody publishes on {seen.topic}: start the camera, or let the node read another '
            'topic (--ros-args -r image:=/its/topic)'
        )
    return (
        f'no image on {seen.topic} for {seen.silent:.0f} s, though somebody publishes there: is '
        'the camera running? Large images between processes need config/fastdds.xml on its side'
    )
