"""What the console says to a node, and how it understands what the node says, without a browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_peers import NodeProcess, Peer, running_node, wait_until

from clipseg_model import Prompt, create_model
from clipseg_ros.console import cards as editing
from clipseg_ros.console.back_ends import messages
from clipseg_ros.console.back_ends.node_parameters import NodeParameters
from clipseg_ros.console.back_ends.ros import RosBackEnd
from clipseg_ros.console.cards import Card
from clipseg_ros.prompts.set import key_of
from clipseg_ros.prompts.support_pair import SupportImage
from clipseg_ros.ros.interfaces import load_interfaces

NODE = '/clipseg'
RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
PICTURE = SupportImage(RGB)

INTERFACES: Any = load_interfaces()
if INTERFACES is None:
    pytest.skip(
        'the messages of clipseg_ros are not built (make interfaces)', allow_module_level=True
    )


def started(back_end: RosBackEnd) -> RosBackEnd:
    back_end.start(lambda _: None, lambda: None)
    wait_until(lambda: back_end.cards, what='the prompts of the node')
    wait_until(lambda: back_end.status().model, what='its diagnostics')
    return back_end


@pytest.fixture(scope='module')
def node(own_domain: int, built: dict[str, str], tiny_model: Path) -> Iterator[NodeProcess]:
    parameters = {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': 'the mug'}
    environment = {**built, 'ROS_DOMAIN_ID': str(own_domain)}
    with running_node('clipseg_ros.segment_node', parameters, environment=environment) as made:
        yield made


@pytest.fixture(scope='module')
def other(own_domain: int) -> Iterator[Peer]:
    """Somebody else who talks to the node."""
    made = Peer(own_domain)
    yield made
    made.close()


@pytest.fixture
def back_end(node: NodeProcess, own_domain: int, other: Peer) -> Iterator[RosBackEnd]:
    made = RosBackEnd([NODE], domain_id=own_domain)
    yield started(made)
    other.set_parameter(NODE, 'threshold', -1.0)
    made.change(editing.added((), 'the mug'))
    made.close()


def said(card: Card) -> Any:
    return messages.prompt_message(INTERFACES.Prompt, card)


def test_a_picture_is_mixed_with_words_evenly(back_end: RosBackEnd) -> None:
    back_end.change(editing.pictured(editing.added((), 'the mug'), 'example', PICTURE))
    # A picture for words that are active, and words for a picture that is.
    cards = editing.pictured(back_end.cards, 'the mug', PICTURE)
    back_end.change(editing.edited(cards, 'example', {'phrase': 'a bowl'}))
    assert [(card.phrase, card.pictured, card.weight) for card in back_end.cards] == [
        ('the mug', True, 0.5),
        ('a bowl', True, 0.5),
    ]
    assert [said(card).weight for card in back_end.cards] == [0.5, 0.5]
    # What was chosen stays, and comes back with the words.
    back_end.change(editing.edited(back_end.cards, 'example', {'weight': 0.25}))
    back_end.change(editing.edited(back_end.cards, 'example', {'phrase': ''}))
    back_end.change(editing.edited(back_end.cards, 'example', {'phrase': 'a cup'}))
    assert editing.find(back_end.cards, 'example').weight == 0.25
    # The words alone are a choice, too; then the node has no picture, and this process keeps it.
    back_end.change(editing.edited(back_end.cards, 'example', {'weight': 1.0}))
    card = editing.find(back_end.cards, 'example')
    assert (card.weight, card.example is not None) == (1.0, True)


def test_a_picture_that_somebody_else_takes_away_is_gone(back_end: RosBackEnd, other: Peer) -> None:
    back_end.change(editing.pictured(editing.added((), 'the mug'), 'the mug', PICTURE))
    request = INTERFACES.SetPrompts.Request(prompts=[INTERFACES.Prompt(phrase='the mug')])
    assert other.call(INTERFACES.SetPrompts, f'{NODE}/set_prompts', request).success
    wait_until(lambda: not back_end.cards[0].pictured, what='words alone')
    assert back_end.cards[0].weight == 0.5


def test_no_presence_threshold_is_sent_as_none() -> None:
    assert said(Card('mug', 'mug', presence=0.0)).presence_threshold > 0
    assert said(Card('mug', 'mug')).presence_threshold == 0


def test_a_threshold_that_others_set_is_that_of_all(back_end: RosBackEnd, other: Peer) -> None:
    back_end.change(editing.added((), 'the mug; a bowl'))
    back_end.change(editing.edited(back_end.cards, 'a bowl', {'threshold': 0.9}))
    assert other.set_parameter(NODE, 'threshold', 0.375).successful
    wait_until(lambda: back_end.status().threshold == 0.375, what='the new threshold')
    wait_until(
        lambda: [card.threshold for card in back_end.cards] == [None, 0.9],
        what='no prompt with a threshold of its own but one',
    )


def test_parameters_are_read_again_after_silence(
    back_end: RosBackEnd, other: Peer, own_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the node had been started anew, which nobody heard.
    monkeypatch.setattr(NodeParameters, '_on_event', lambda *_: None)
    assert other.set_parameter(NODE, 'threshold', 0.625).successful
    deaf = started(RosBackEnd([NODE], domain_id=own_domain))
    try:
        wait_until(lambda: deaf.status().threshold == 0.625, what='the threshold of before')
        # What is read at the start has been read.
        time.sleep(0.5)
        assert other.set_parameter(NODE, 'threshold', 0.375).successful
        _, status = deaf._diagnostics[NODE]
        deaf._diagnostics[NODE] = (time.monotonic() - 60, status)
        wait_until(lambda: deaf.status().threshold == 0.375, what='the new threshold')
    finally:
        deaf.close()


def test_the_image_topic_is_that_of_the_first_node(node: NodeProcess, own_domain: int) -> None:
    back_end = RosBackEnd(['/absent', NODE], '/given', own_domain)
    back_end.start(lambda _: None, lambda: None)
    try:
        back_end.watch(frozenset({'labels'}))
        wait_until(lambda: back_end._camera[0] == '/given', what='the topic that is given')
        back_end.choose('source', NODE)
        wait_until(lambda: back_end._camera[0] == '/image', what="the other node's own topic")
    finally:
        back_end.close()


def test_a_frozen_picture_has_the_labels_of_the_model(
    back_end: RosBackEnd, tiny_model: Path
) -> None:
    names = ('the mug', 'red bowl', 'blue chair')
    cards = editing.added((), '; '.join(names))
    for name in names:
        cards = editing.edited(cards, name, {'threshold': 0.01, 'presence': 0.001})
    back_end.change(cards)
    model = create_model(tiny_model, 'cpu', threads=1)
    prompts = [Prompt(name, threshold=0.01, presence_threshold=0.001) for name in names]
    found = model.segment(RGB, prompts)
    ids = {card.key: card.id for card in back_end.cards}
    expected = found.labels([ids[key_of(name)] for name in names])
    answer = back_end.answer(RGB, back_end.cards)
    wrong = (answer.labels != expected).mean()
    by_score = np.zeros_like(expected)
    for result in sorted(found.results, key=lambda one: one.score):
        by_score[result.mask] = ids[key_of(result.prompt.label)]
    # In these masks of noise, much is the border between two prompts, where rounding decides.
    assert wrong < 0.15
    assert (by_score != expected).mean() > 3 * wrong
