"""What commands do to the prompts, also while others do something to them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from console_server import HEIGHT, WIDTH, StandIn, served

from clipseg_ros.console import cards as editing
from clipseg_ros.console.back_ends import models
from clipseg_ros.console.back_ends.base import Choice, ConsoleError, Status
from clipseg_ros.console.commands import Commands
from clipseg_ros.console.hub import Hub
from clipseg_ros.console.shots import Found, Shot
from clipseg_ros.prompts.support_pair import SupportImage

RGB = np.full((HEIGHT, WIDTH, 3), (10, 200, 30), np.uint8)
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[4:20, 4:20] = True


class BusyStandIn(StandIn):
    """Takes a change only when it is free; tells its colours."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.colours: dict[str, str] = {}
        self.changed: Callable[[], Any] = lambda: None

    def status(self) -> Status:
        return replace(super().status(), colours=dict(self.colours))

    def change(self, cards: Sequence[editing.Card]) -> str:
        self.free.wait(10)
        said = super().change(cards)
        self.changed()
        return said

    def set_values(self, values: dict[str, Any]) -> str:
        self.free.wait(10)
        self.colours = values['colours']
        return 'changed'


@pytest.fixture
def back_end() -> BusyStandIn:
    made = BusyStandIn()
    made.change(editing.pictured(editing.added((), 'a mug'), 'thing', SupportImage(RGB)))
    return made


@pytest.fixture
def hub(back_end: BusyStandIn) -> Hub:
    made = Hub(back_end)
    found = [Found(1, 'a mug', 0.8, True, 9)]
    made.shots[1] = Shot(1.0, WIDTH, HEIGHT, lambda: RGB, found=found)
    return made


@pytest.fixture
def commands(hub: Hub) -> Commands:
    return Commands(hub)


def run_while_busy(back_end: BusyStandIn, calls: Sequence[Callable[[], Any]]) -> None:
    """Makes calls in threads, begun one after the other; none ends before all have begun."""
    back_end.free.clear()
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    back_end.free.set()
    for thread in threads:
        thread.join(10)


def names(back_end: BusyStandIn) -> list[str]:
    return [card.name for card in back_end.cards]


EDITS: dict[str, tuple[Callable[[Commands], Any], Callable[[BusyStandIn], bool]]] = {
    'add another': (lambda c: c.all['add']({'text': 'a bowl'}), lambda b: 'a bowl' in names(b)),
    'add': (lambda c: c.all['add']({'text': 'a chair'}), lambda b: 'a chair' in names(b)),
    'edit': (
        lambda c: c.all['edit']({'name': 'a mug', 'changes': {'threshold': 0.2}}),
        lambda b: editing.find(b.cards, 'a mug').threshold == 0.2,
    ),
    'remove': (lambda c: c.all['remove']({'name': 'a mug'}), lambda b: 'a mug' not in names(b)),
    'order': (
        lambda c: c.all['order']({'names': ['thing', 'a mug']}),
        lambda b: names(b)[0] == 'thing',
    ),
    'pick': (
        lambda c: c.all['pick']({'number': 1, 'x': 4, 'y': 4, 'width': 9, 'height': 9}),
        lambda b: 'example' in names(b),
    ),
    'add_example': (
        lambda c: c.add_example('cup', '', SupportImage(RGB)),
        lambda b: 'cup' in names(b),
    ),
    'set_mask': (
        lambda c: c.set_mask('thing', MASK),
        lambda b: getattr(editing.find(b.cards, 'thing').example, 'mask', None) is not None,
    ),
}


@pytest.mark.parametrize('kind', [kind for kind in EDITS if kind != 'add another'])
def test_no_edit_is_lost_to_another(kind: str, commands: Commands, back_end: BusyStandIn) -> None:
    act, is_done = EDITS[kind]
    add = EDITS['add another'][0]
    # Either may come first; the model has something else to do meanwhile.
    for order in ((act, add), (add, act)):
        run_while_busy(back_end, [partial(one, commands) for one in order])
        assert 'a bowl' in names(back_end)
        assert is_done(back_end)
        back_end.change(editing.pictured(editing.added((), 'a mug'), 'thing', SupportImage(RGB)))


def test_no_colour_is_lost_to_another(commands: Commands, back_end: BusyStandIn) -> None:
    wanted = {'a mug': '#010203', 'thing': '#040506'}
    colour = commands.all['colour']
    run_while_busy(
        back_end,
        [partial(colour, {'name': name, 'colour': code}) for name, code in wanted.items()],
    )
    assert back_end.colours == wanted


def test_a_picture_of_another_model_is_not_marked(commands: Commands, hub: Hub) -> None:
    hub.history.add([Found(1, 'a mug', 0.3, True, 9)], time.time(), 'camera large')
    with pytest.raises(ConsoleError, match='another model or camera'):
        commands.all['mark']({'name': 'a mug', 'number': 1, 'right': True})
    assert not hub.history.tracks['a mug'].marks


@pytest.mark.parametrize('changes', [{'name': ' the  cup '}, {'phrase': 'the cup'}])
def test_another_name_keeps_colour_scores_and_marks(
    changes: dict[str, str], commands: Commands, hub: Hub, back_end: BusyStandIn
) -> None:
    commands.all['colour']({'name': 'a mug', 'colour': '#010203'})
    hub.history.add([Found(1, 'a mug', 0.8, True, 9)], time.time())
    commands.all['mark']({'name': 'a mug', 'number': 1, 'right': True})
    told: dict[str, float] = {}
    assert len(hub.scores(told)['a mug']) == 1
    # The page is told as soon as the back end has the new name, before the command is over.
    back_end.changed = lambda: hub.state(True)
    commands.all['edit']({'name': 'a mug', 'changes': changes})
    cup = hub.state(True)['prompts'][0]
    assert (cup['name'], cup['colour'], cup['marks']) == ('the cup', '#010203', 1)
    # A browser gets the scores under the new name, and once.
    assert len(hub.scores(told)['the cup']) == 1
    assert hub.scores(told) == {'the cup': []}


def test_a_name_that_is_refused_changes_nothing(
    commands: Commands, hub: Hub, back_end: BusyStandIn
) -> None:
    hub.history.add([Found(1, 'a mug', 0.8, True, 9)], time.time())
    commands.all['mark']({'name': 'a mug', 'number': 1, 'right': True})

    def refuse() -> None:
        raise ConsoleError('no')

    back_end.changed = refuse
    before = back_end.cards
    with pytest.raises(ConsoleError):
        commands.all['edit']({'name': 'a mug', 'changes': {'name': 'cup'}})
    back_end.cards = before
    assert hub.state(True)['prompts'][0]['marks'] == 1


def test_the_model_to_compare_with_runs_on_the_device_that_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def create(name: str, device: str, threads: int) -> None:
        raise ConsoleError(f'{name} on {device} by {threads}')

    monkeypatch.setattr(models, 'create_model', create)
    monkeypatch.setattr(models, 'model_choices', lambda: (Choice('other', 'other'),))
    back_end = StandIn()
    back_end.change(editing.added((), 'a mug'))
    with served(back_end, device='cuda:3', threads=2) as (client, _):
        back_end.push()
        deadline = time.monotonic() + 5
        while client.ask('/freeze/1')[0] != 200:
            assert time.monotonic() < deadline
        body = json.dumps({'number': 1, 'model': 'other'}).encode()
        status, _, text = client.ask('/compare', 'POST', body)
    assert (status, json.loads(text)['error']) == (400, 'other on cuda:3 by 2')


def test_python_of_a_robot_has_the_thresholds_of_its_node() -> None:
    back_end = StandIn()
    back_end.kind = 'ros'
    back_end.change(editing.added((), 'a mug'))
    status = Status('/clipseg', 'small', threshold=0.31, presence=0.62)
    back_end.status = lambda: status  # type: ignore[method-assign]
    with served(back_end) as (client, _):
        script = json.loads(client.ask('/copy/python')[2])['text']
    assert "Prompt('a mug', threshold=0.31, presence_threshold=0.62)" in script
