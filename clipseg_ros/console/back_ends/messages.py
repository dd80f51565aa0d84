"""From the messages of the node to what the page shows, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clipseg_ros.console.back_ends.base import Answer, ConsoleError
from clipseg_ros.console.back_ends.overlaps import Ask, surest
from clipseg_ros.console.cards import LEAST_PRESENCE, Card
from clipseg_ros.console.shots import Found, Shot, encode_heat, encode_values, fold_instances
from clipseg_ros.images.conversion import (
    array_to_image,
    compressed_to_rgb,
    image_to_array,
    image_to_rgb,
)
from clipseg_ros.prompts.set import key_of

_LEAST_PART = 20
"""Pixels of a part of a mask that is a thing."""


def prompt_message(kind: Any, card: Card, number: int = 0) -> Any:
    """Return a ``clipseg_ros/Prompt`` of a card, with its picture where this process has it.

    ``number`` is the id that is asked for; 0 leaves the choice to the node.
    """
    mixed = card.pictured and bool(card.phrase)
    weight = card.weight if mixed else float(bool(card.phrase))
    message = kind(
        id=number,
        name='' if card.name == card.phrase else card.name,
        phrase=card.phrase,
        threshold=card.threshold or 0.0,
        presence_threshold=0.0 if card.presence is None else max(card.presence, LEAST_PRESENCE),
        enabled=card.enabled,
        negative=card.negative,
        weight=weight,
    )
    # With weight 1 the words alone count, and the node takes no picture.
    if card.example is not None and weight < 1.0:
        message.image = image_message(card.example.image)
        if card.example.mask is not None:
            mask = card.example.mask.astype(np.uint8) * np.uint8(255)
            message.mask = array_to_image(mask, 'mono8', Header())
    return message


def image_message(rgb: NDArray[np.uint8]) -> Image:
    """Return a picture, RGB uint8 (H, W, 3), as a message."""
    return array_to_image(np.ascontiguousarray(rgb), 'rgb8', Header())


def card_of(message: Any, defaults: tuple[float, float], known: Mapping[str, Card]) -> Card:
    """Return the card of a ``clipseg_ros/Prompt``.

    ``defaults`` are the thresholds of prompts without their own, and ``known`` are cards whose
    pictures this process has, by their keys.
    """
    before = known.get(key_of(message.name))
    words, weight = bool(message.phrase), round(float(message.weight), 5)
    if before is not None and words and weight == 1.0 and before.weight < 1.0:
        # Somebody else has taken the picture away.
        before = None
    # A picture that does not count for now, with weight 1, is kept here.
    pictured = weight < 1.0 or before is not None
    if not (words and pictured):
        # Words alone have weight 1 there, and a picture alone has 0: nobody chose that.
        weight = Card.weight if before is None else before.weight
    return Card(
        name=message.name,
        phrase=message.phrase,
        id=int(message.id),
        threshold=own(float(message.threshold), defaults[0]),
        presence=own(float(message.presence_threshold), defaults[1]),
        enabled=bool(message.enabled),
        negative=bool(message.negative),
        weight=weight,
        example=None if before is None else before.example,
        pictured=pictured,
    )


def own(value: float | None, default: float) -> float | None:
    """Return a threshold unless it is the default, as far as a float of 32 bits can tell."""
    return None if value is None or abs(value - default) < 1e-5 else round(value, 5)


def read_chosen(value: Any) -> dict[str, str]:
    """Return the colours that the parameter ``overlay_colors`` gives to names."""
    text = value if isinstance(value, str) else '; '.join(value or ())
    found = {}
    for part in re.split(r'[;\r\n]', text):
        name, _, colour = (word.strip() for word in part.rpartition('='))
        if name and re.fullmatch('#[0-9a-fA-F]{6}', colour) and not name.isdecimal():
            found[key_of(' '.join(name.split()))] = colour.lower()
    return found


def masks_of(answer: Any) -> dict[str, NDArray[np.bool_]]:
    """Return the masks of an answer of ``~/segment_once``, by keys of names, low scores first."""
    entries = sorted(answer.masks, key=lambda one: one.score)
    return {key_of(entry.name): image_to_array(entry.mask) > 0 for entry in entries}


def answer_of(answer: Any, ask: Ask) -> Answer:
    """Return what ``~/segment_once`` answers; where masks overlap, the surest prompt wins."""
    masks = masks_of(answer)
    ids = {key_of(entry.name): entry.id for entry in answer.masks}
    table = np.array([0, *(ids[key] for key in masks)], np.uint8)
    labels: NDArray[np.uint8] = table[surest(masks, ask)]
    found = tuple(
        Found(one.id, one.name, float(one.score), bool(one.presence), int(one.area))
        for one in answer.segments.segments
    )
    parts = partial(_parts, tuple(masks.values()), labels.shape)
    return Answer(labels, found, {'instances': parts})


def make_shot(
    stamp: int, picture: Any, layers: dict[str, Any], found: Sequence[Found], segmented: bool
) -> Shot | None:
    """Return a shot of messages; None where there is no picture in them at all."""
    made: dict[str, Any] = {}
    for name, message in layers.items():
        if name in ('labels', 'overlay'):
            made[name] = bytes(message.data)
        elif name == 'heat':
            made[name] = partial(_heat, message)
        elif name == 'instances':
            made[name] = partial(_instances, message)
    seconds = stamp / 1e9
    if picture is None:
        return Shot(seconds, 0, 0, _no_picture, made, found, segmented=segmented)
    if isinstance(picture, Image):
        width, height = picture.width, picture.height
        return Shot(
            seconds, width, height, lambda: image_to_rgb(picture), made, found, segmented=segmented
        )
    data = bytes(picture.data)
    jpeg = data if data.startswith(b'\xff\xd8') else None
    return Shot(seconds, 0, 0, lambda: compressed_to_rgb(picture), made, found, jpeg, segmented)


def _no_picture() -> NDArray[np.uint8]:
    raise ConsoleError(
        "of this picture there is the node's own drawing alone: switch that off, and try again"
    )


def _parts(masks: Sequence[NDArray[np.bool_]], shape: Sequence[int]) -> bytes:
    """Return the connected parts of masks as things, since ``~/segment_once`` tells of none."""
    ids: NDArray[np.int32] = np.zeros(tuple(shape), np.int32)
    for mask in masks:
        count, parts, facts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
        for part in range(1, count):
            if facts[part, cv2.CC_STAT_AREA] >= _LEAST_PART:
                ids[parts == part] = ids.max() + 1
    return encode_values(fold_instances(ids))


def _heat(message: Image) -> bytes:
    return encode_heat(image_to_array(message))


def _instances(message: Image) -> bytes:
    return encode_values(fold_instances(image_to_array(message)))
