"""Cards, history, words and exports: what the page edits, remembers and gives away."""

from __future__ import annotations

import ast
import io
import shlex
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clipseg_model.errors import PromptError
from clipseg_ros.console import cards as editing
from clipseg_ros.console import exports
from clipseg_ros.console.back_ends.base import ConsoleError
from clipseg_ros.console.cards import Card
from clipseg_ros.console.history import History, suggest
from clipseg_ros.console.shots import Found, Shot, encode_values, fold_instances, message
from clipseg_ros.console.streaming import Quality
from clipseg_ros.console.words import without_folders
from clipseg_ros.prompts.file import load_prompts
from clipseg_ros.prompts.support_pair import SupportImage

RGB = np.arange(48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)
MASK = np.zeros((48, 64), bool)
MASK[10:20, 10:30] = True


def test_adding() -> None:
    cards = editing.added((), 'the mug; grass: short green grass; !plate')
    assert [(card.name, card.phrase, card.negative) for card in cards] == [
        ('the mug', 'the mug', False),
        ('grass', 'short green grass', False),
        ('plate', 'plate', True),
    ]
    # A name that is there gets the new words, and keeps the rest.
    cards = editing.edited(cards, 'grass', {'threshold': 0.3, 'enabled': False})
    cards = editing.added(cards, 'Grass: long grass')
    assert [card.name for card in cards] == ['the mug', 'grass', 'plate']
    assert cards[1].phrase == 'long grass'
    assert cards[1].threshold == 0.3
    assert cards[1].enabled
    for text in ('', ' ; ', 'a: ', 'x' * 1001):
        with pytest.raises(PromptError):
            editing.added(cards, text)


def test_editing_and_order() -> None:
    cards = editing.added((), 'a mug; a bowl; a chair')
    cards = editing.edited(cards, 'A MUG', {'name': 'cup', 'weight': 0.25})
    assert cards[0].name == 'cup'
    assert cards[0].phrase == 'a mug'
    # Words that are the name as well stay both.
    cards = editing.edited(cards, 'a bowl', {'phrase': 'the blue bowl'})
    assert (cards[1].name, cards[1].phrase) == ('the blue bowl', 'the blue bowl')
    cards = editing.ordered(cards, ['a chair', 'cup'])
    assert [card.name for card in cards] == ['a chair', 'cup', 'the blue bowl']
    assert [card.name for card in editing.without(cards, 'cup')] == ['a chair', 'the blue bowl']
    for name, changes, word in (
        ('cup', {'threshold': 0.0}, 'threshold'),
        ('cup', {'threshold': float('nan')}, 'threshold'),
        ('cup', {'presence': 1.5}, 'presence'),
        # In a message of the node, 0 stands for no threshold of its own.
        ('cup', {'presence': 0.0}, 'presence'),
        ('cup', {'weight': None}, 'weight'),
        ('cup', {'enabled': 1}, 'true or false'),
        ('cup', {'name': 'a chair'}, 'another name'),
        ('cup', {'phrase': ''}, 'needs words'),
        ('cup', {'id': 7}, 'no field'),
        ('cup', {'name': 'a;b'}, 'separates'),
        ('spoon', {}, 'another browser'),
    ):
        with pytest.raises(PromptError, match=word):
            editing.edited(cards, name, changes)


def test_a_picture_that_only_the_node_has_keeps_its_name() -> None:
    cards = Card('thing', pictured=True), Card('a cup', 'a cup', pictured=True)
    for name in ('thing', 'a cup'):
        with pytest.raises(PromptError, match='at the node alone'):
            editing.edited(cards, name, {'name': 'other'})
    # Letter case makes no other name.
    assert editing.edited(cards, 'thing', {'name': 'Thing'})[0].name == 'Thing'
    # Nor does the name follow the words.
    assert editing.edited(cards, 'a cup', {'phrase': 'a mug'})[1].name == 'a cup'


def test_colours() -> None:
    first, second = editing.colour(Card('a', id=1), {}), editing.colour(Card('b', id=2), {})
    assert first != second
    assert editing.colour(Card('B', id=2), {'b': '#010203'}) == '#010203'


def test_a_threshold_is_suggested_by_marks() -> None:
    assert suggest([]) is None
    assert suggest([(0.9, True)]) is None
    assert suggest([(0.9, True), (0.8, True), (0.2, False)]) == pytest.approx(0.5)
    # One mark contradicts: the fewest errors count.
    marks = [(0.9, True), (0.8, True), (0.7, True), (0.75, False), (0.1, False), (0.2, False)]
    assert suggest(marks) == pytest.approx(0.45)
    # No threshold helps; there is one all the same, within the scores' range.
    assert 0 <= (suggest([(0.2, True), (0.9, False)]) or 0) <= 1


def test_history_keeps_a_minute_and_marks() -> None:
    history = History()

    def add(score: float, presence: bool, at: float) -> None:
        history.add([Found(1, 'mug', score, presence, 5)], at)

    for second in range(90):
        add(0.5 + second / 1000, True, float(second))
    track = history.tracks['mug']
    assert track.scores[0][0] == 29.0
    assert len(track.scores) == 61
    # What is shown as present, and wrongly so, is not there.
    history.mark(Found(1, 'mug', 0.6, True, 5), right=False)
    add(0.2, False, 90.0)
    history.mark(Found(1, 'mug', 0.2, False, 5), right=False)
    assert [there for _, there in track.marks] == [False, True]
    assert history.suggestion('mug') is not None
    with history.renaming('mug', 'cup'):
        # The page may be told of it before it is done.
        history.keep(lambda: ['cup'])
    assert history.suggestion('cup') is not None
    history.clear_marks('cup')
    assert history.suggestion('cup') is None
    history.keep(lambda: ['bowl'])
    assert not history.tracks


def test_scores_of_another_model_are_not_mixed_in() -> None:
    history = History()
    history.add([Found(1, 'mug', 0.9, True, 5)], 1.0, 'front small')
    history.mark(Found(1, 'mug', 0.9, True, 5), right=True)
    history.add([Found(1, 'mug', 0.1, True, 5)], 2.0, 'front large')
    track = history.tracks['mug']
    assert list(track.scores) == [(2.0, 0.1)]
    assert not track.marks


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('/srv/robot/models/my.pt is damaged', 'my.pt is damaged'),
        ("folder '/tmp/x/y z' is", "folder 'y z' is"),
        ('nobody publishes on /clipseg/mask', 'nobody publishes on /clipseg/mask'),
        ('no image on /camera/color/image_raw', 'no image on /camera/color/image_raw'),
        ('publish on ~/prompt', 'publish on ~/prompt'),
        ('~/models/my.safetensors', 'my.safetensors'),
        ('config/fastdds.xml', 'config/fastdds.xml'),
        ('23.5 frames/s', '23.5 frames/s'),
        ('/dev/video0 gives no picture', '/dev/video0 gives no picture'),
    ],
)
def test_folders_of_this_machine_are_not_told(text: str, expected: str) -> None:
    if 'y z' in expected:
        # A blank ends a path: what is left names no folder above.
        assert '/tmp' not in without_folders(text)
        return
    assert without_folders(text) == expected


def test_the_file_that_a_node_loads(tmp_path: Path) -> None:
    cards = editing.added((), 'the mug; grass: short green grass; !plate')
    cards = editing.edited(cards, 'grass', {'threshold': 0.3, 'presence': 0.6, 'enabled': False})
    data, name, left_out = exports.prompt_file(cards)
    assert (name, left_out) == ('prompts.yaml', '')
    (tmp_path / name).write_bytes(data)
    requests = load_prompts(tmp_path / name)
    assert [one.prompt for one in requests] == [card.request().prompt for card in cards]
    assert [one.enabled for one in requests] == [True, False, True]


def test_the_file_with_pictures(tmp_path: Path) -> None:
    cards = editing.pictured((), 'thing', SupportImage(RGB, MASK))
    cards = (*cards, Card('elsewhere', pictured=True), Card('mixed', 'a cup', pictured=True))
    data, name, left_out = exports.prompt_file(cards)
    assert name == 'prompts.zip'
    assert 'elsewhere, mixed' in left_out
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        packed.extractall(tmp_path)
    thing, mixed = load_prompts(tmp_path / 'prompts.yaml')
    assert np.array_equal(thing.prompt.image, RGB)
    assert np.array_equal(thing.prompt.mask, MASK)
    assert mixed.prompt.text == 'a cup'
    with pytest.raises(ConsoleError, match='no prompt'):
        exports.prompt_file(())


def test_copies_are_commands_that_can_be_read() -> None:
    cards = editing.added((), "the child's mug; grass: short green grass")
    cards = editing.edited(cards, 'grass', {'threshold': 0.3})
    command, said = exports.as_command(cards, '/robot/clipseg')
    words = shlex.split(command)
    assert words[:5] == ['ros2', 'service', 'call', '/robot/clipseg/set_prompts',
                         'clipseg_ros/srv/SetPrompts']  # fmt: skip
    assert yaml.safe_load(words[5]) == {
        'prompts': [
            {'phrase': "the child's mug"},
            {'phrase': 'short green grass', 'name': 'grass', 'threshold': 0.3},
        ]
    }
    assert said == ''
    script, _ = exports.as_python(cards, 'everyday')
    tree = ast.parse(script)
    assert sum(isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'Prompt'
               for node in ast.walk(tree)) == 2  # fmt: skip
    pictured = (*cards, Card('thing', example=SupportImage(RGB), pictured=True))
    assert 'thing' in exports.as_command(pictured, '/clipseg')[1]
    script, said = exports.as_python(pictured, 'everyday')
    ast.parse(script)
    assert 'prompts.yaml' in said


def test_a_script_has_the_thresholds_of_the_robot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = editing.edited(editing.added((), 'mug; bowl'), 'bowl', {'threshold': 0.7})
    pictured = editing.pictured(cards, 'thing', SupportImage(RGB))
    data, _, _ = exports.prompt_file(pictured)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        packed.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    for shown in (cards, pictured):
        script, _ = exports.as_python(shown, 'everyday', 0.3, 0.6)
        found: dict[str, Any] = {}
        exec(script.partition('segmenter =')[0], found)
        thresholds = [prompt.threshold for prompt in found['prompts']]
        assert thresholds == [0.3, 0.7, 0.3][: len(shown)]
        assert {prompt.presence_threshold for prompt in found['prompts']} == {0.6}


def test_a_message_of_a_shot() -> None:
    labels = np.zeros((48, 64), np.uint8)
    found = [Found(1, 'mug', 0.5, True, 9)]
    shot = Shot(1.5, 64, 48, lambda: RGB, {'labels': encode_values(labels)}, found, segmented=True)
    data = message(shot, 7, ['labels', 'heat'], 0, {'sent': 2.0})
    length = int.from_bytes(data[:4], 'little')
    header = yaml.safe_load(data[4 : 4 + length])
    assert header['number'] == 7
    assert header['found'][0]['name'] == 'mug'
    assert [name for name, _ in header['parts']] == ['labels', 'picture']
    sizes = sum(size for _, size in header['parts'])
    assert len(data) == 4 + length + sizes
    # A slow browser gets less.
    assert len(shot.picture(5)) < len(shot.picture(0)) / 2


def test_quality_follows_the_browser() -> None:
    quality = Quality()
    quality.took(0.4)
    assert quality.level == 1
    quality.took(2.0)
    assert quality.level == 3
    for _ in range(20):
        quality.took(5.0)
    assert quality.level == 5
    for _ in range(100):
        quality.took(0.05)
    assert quality.level == 0


def test_things_are_numbered_in_a_byte() -> None:
    folded = fold_instances(np.array([[0, 1, 254, 255, 70_000]], np.int32))
    assert folded.dtype == np.uint8
    assert folded[0, 0] == 0
    assert folded[0, 1:].min() >= 1
    assert folded[0, 3] == 1
