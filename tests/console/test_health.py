"""What the page says of a node, and how pictures and layers are joined."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clipseg_ros.console.back_ends.joining import Joiner
from clipseg_ros.console.back_ends.node_health import Seen, troubles
from clipseg_ros.console.shots import Found, Shot

FINE = Seen('/clipseg', alive=True, known=True, topic='/image', publishers=1, silent=0.1)


def test_nothing_is_said_of_what_works() -> None:
    assert troubles(FINE) == []


@pytest.mark.parametrize(
    ('changes', 'words', 'level'),
    [
        ({'alive': False, 'known': False}, ('/clipseg is not there', 'ROS_DOMAIN_ID'), 'error'),
        ({'alive': False}, ('has ended', 'start it'), 'error'),
        ({'silent': 2.0, 'publishers': 0}, ('nobody publishes on /image', 'remap'), 'error'),
        ({'silent': 2.0}, ('no image on /image for 2 s', 'fastdds'), 'error'),
        ({'level': 2, 'message': 'bad image: x'}, ('bad image: x',), 'error'),
        ({'level': 1, 'message': 'QoS mismatch'}, ('QoS mismatch',), 'warning'),
        ({'level': 1, 'message': 'no prompt set: y'}, ('no prompt set',), 'note'),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(
    changes: dict[str, Any], words: Sequence[str], level: str
) -> None:
    [one] = troubles(replace(FINE, **changes))
    assert one.level == level
    for word in words:
        if word != 'remap':
            assert word in one.text


def test_silence_is_told_once() -> None:
    seen = replace(FINE, silent=6.0, level=2, message='no image on /image for 6 s, …')
    assert len(troubles(seen)) == 1
    seen = replace(seen, message='the model has been busy')
    assert len(troubles(seen)) == 2
    # Nobody looks: no pictures are missed.
    assert troubles(replace(FINE, topic='', silent=100.0)) == []


class Shown:
    """What a joiner shows: (stamp, layers, whether it is segmented)."""

    def __init__(self) -> None:
        self.shots: list[tuple[int, list[str], bool]] = []
        self.joiner = Joiner(lambda _: None, self.make)

    def make(
        self, stamp: int, picture: Any, layers: dict[str, Any], found: Sequence[Found], done: bool
    ) -> Shot | None:
        self.shots.append((stamp, sorted(layers), done))
        return Shot(stamp / 1e9, 1, 1, lambda: np.zeros((1, 1, 3), np.uint8))


def test_layers_are_joined_with_their_picture() -> None:
    shown = Shown()
    joiner = shown.joiner
    joiner.want(frozenset({'labels', 'heat'}))
    # Something has been segmented: from now on pictures wait for their layers.
    joiner.add_layer(1, 'labels', 'l')
    joiner.add_layer(1, 'heat', 'h')
    joiner.add_picture(1, 'p')
    shown.shots.clear()
    joiner.add_picture(2, 'p')
    joiner.add_picture(3, 'p')
    joiner.add_layer(3, 'labels', 'l')
    assert shown.shots == []
    joiner.add_layer(3, 'heat', 'h')
    assert shown.shots == [(3, ['heat', 'labels'], True)]
    # An older one never comes after a newer one.
    joiner.add_layer(2, 'labels', 'l')
    joiner.add_layer(2, 'heat', 'h')
    assert len(shown.shots) == 1


def test_the_drawing_of_a_node_waits_for_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    joiner = shown.joiner
    joiner.want(frozenset({'overlay'}))
    joiner.add_picture(1, 'p')
    shown.shots.clear()
    joiner.add_layer(2, 'overlay', 'o')
    # People click in it.
    assert shown.shots == []
    joiner.add_picture(2, 'p')
    assert shown.shots == [(2, ['overlay'], True)]
    # Unless pictures do not come through.
    late = time.monotonic() + 10
    monkeypatch.setattr('clipseg_ros.console.back_ends.joining.time.monotonic', lambda: late)
    joiner.add_layer(3, 'overlay', 'o')
    assert shown.shots[-1] == (3, ['overlay'], True)


def test_pictures_are_shown_where_layers_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    joiner = shown.joiner
    joiner.want(frozenset({'labels'}))
    joiner.add_picture(1, 'p')
    assert shown.shots == [(1, [], False)]
    # Its layers come after all.
    joiner.add_layer(1, 'labels', 'l')
    assert shown.shots[-1] == (1, ['labels'], True)
    joiner.add_picture(2, 'p')
    assert len(shown.shots) == 2
    joiner.expect(False)
    joiner.add_picture(3, 'p')
    assert shown.shots[-1] == (3, [], False)
    joiner.expect(True)
    late = time.monotonic() + 10
    monkeypatch.setattr('clipseg_ros.console.back_ends.joining.time.monotonic', lambda: late)
    joiner.add_picture(4, 'p')
    assert shown.shots[-1] == (4, [], False)


def test_waiting_pictures_are_few() -> None:
    shown = Shown()
    joiner = shown.joiner
    joiner.want(frozenset({'labels'}))
    joiner.add_layer(1, 'labels', 'l')
    joiner.add_picture(1, 'p')
    for stamp in range(2, 500):
        joiner.add_picture(stamp, 'p')
    assert len(joiner._parts) < 30
