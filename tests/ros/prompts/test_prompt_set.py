from __future__ import annotations

import pytest

from clipseg_model.errors import PromptError
from clipseg_model.prompts import Prompt
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.prompts.text import read_prompts, survive_yaml, write_prompts
from clipseg_ros.segment.parameters import DECLARATIONS
from tests.fuzz.hostile import MERGES
from tests.fuzz.mutations import guarded


def replace(prompts: PromptSet, text: str) -> dict[str, int]:
    active = prompts.replace([PromptRequest(prompt) for prompt in read_prompts(text)])
    return {entry.name: entry.id for entry in active}


def test_ids_start_at_one_in_the_order_given() -> None:
    assert replace(PromptSet(), 'mug; bowl; grass: short green grass') == {
        'mug': 1,
        'bowl': 2,
        'grass': 3,
    }


def test_what_stays_keeps_its_id() -> None:
    prompts = PromptSet()
    replace(prompts, 'mug; bowl; chair')
    assert replace(prompts, 'chair; pen; bowl') == {'bowl': 2, 'chair': 3, 'pen': 4}
    assert replace(prompts, 'bowl') == {'bowl': 2}


def test_what_comes_back_gets_its_old_id() -> None:
    prompts = PromptSet()
    replace(prompts, 'mug; bowl')
    replace(prompts, '')
    assert prompts.active == ()
    assert replace(prompts, 'pen; bowl') == {'pen': 3, 'bowl': 2}


def test_an_id_belongs_to_the_name_not_to_the_phrase() -> None:
    prompts = PromptSet()
    replace(prompts, 'grass: short green grass; mug')
    assert replace(prompts, 'mug; grass: long yellow grass') == {'grass': 1, 'mug': 2}
    assert replace(prompts, 'Grass: lawn') == {'Grass': 1}


def test_active_is_ordered_by_id_and_never_changed_in_place() -> None:
    prompts = PromptSet()
    replace(prompts, 'mug; bowl; pen')
    before = prompts.active
    replace(prompts, 'pen; cup; mug')
    assert [entry.id for entry in before] == [1, 2, 3]
    assert [entry.id for entry in prompts.active] == [1, 3, 4]


def test_disabled_prompts_keep_their_id_and_take_no_part() -> None:
    prompts = PromptSet()
    prompts.replace([PromptRequest(Prompt('mug'), enabled=False), PromptRequest(Prompt('bowl'))])
    assert [(entry.id, entry.enabled) for entry in prompts.active] == [(1, False), (2, True)]
    assert [entry.name for entry in prompts.enabled] == ['bowl']


def test_254_prompts_fit_and_never_use_255() -> None:
    prompts = PromptSet()
    ids = replace(prompts, ';'.join(f'thing {n}' for n in range(254)))
    assert sorted(ids.values()) == list(range(1, 255))


def test_255_prompts_are_refused_and_nothing_changes() -> None:
    prompts = PromptSet()
    replace(prompts, 'mug')
    with pytest.raises(PromptError, match='254'):
        replace(prompts, ';'.join(f'thing {n}' for n in range(255)))
    requests = [PromptRequest(Prompt(f'thing {n}')) for n in range(255)]
    with pytest.raises(PromptError, match='255 prompts at once, and at most 254'):
        prompts.replace(requests)
    assert [entry.name for entry in prompts.active] == ['mug']


def test_when_all_ids_were_given_out_the_longest_unused_is_taken_over() -> None:
    prompts = PromptSet()
    for number in range(254):
        replace(prompts, f'keep; thing {number}' if number else 'keep')
    assert replace(prompts, 'keep; thing 253')['thing 253'] == 254
    assert replace(prompts, 'keep; new') == {'keep': 1, 'new': 2}
    assert replace(prompts, 'keep; newer') == {'keep': 1, 'newer': 3}
    # What the id was taken from has to begin anew, and does not take it back.
    assert replace(prompts, 'keep; new; thing 1') == {'keep': 1, 'new': 2, 'thing 1': 4}


def test_asked_for_ids() -> None:
    prompts = PromptSet()
    active = prompts.replace([PromptRequest(Prompt('mug'), id=7), PromptRequest(Prompt('bowl'))])
    assert {entry.name: entry.id for entry in active} == {'mug': 7, 'bowl': 1}
    active = prompts.replace([PromptRequest(Prompt('mug'), id=7), PromptRequest(Prompt('pen'))])
    assert {entry.name: entry.id for entry in active} == {'mug': 7, 'pen': 2}


@pytest.mark.parametrize(
    ('requests', 'words'),
    [
        ([PromptRequest(Prompt('pen'), id=1)], ["'pen'", 'id 1', "'mug'"]),
        ([PromptRequest(Prompt('mug'), id=9)], ["'mug'", 'id 9', 'has had 1']),
        ([PromptRequest(Prompt('pen'), id=255)], ['255', '254']),
        ([PromptRequest(Prompt('pen'), id=-1)], ['-1']),
        ([PromptRequest(Prompt('pen')), PromptRequest(Prompt('a pen', name='Pen'))], ["'Pen'"]),
        (
            [PromptRequest(Prompt('pen'), id=5), PromptRequest(Prompt('cup'), id=5)],
            ["'pen'", "'cup'", 'id 5'],
        ),
    ],
)
def test_impossible_requests(requests: list[PromptRequest], words: list[str]) -> None:
    prompts = PromptSet()
    replace(prompts, 'mug')
    with pytest.raises(PromptError) as caught:
        prompts.replace(requests)
    for word in words:
        assert word in str(caught.value)
    assert [entry.name for entry in prompts.active] == ['mug']


def test_lists_and_texts_read_alike() -> None:
    one = read_prompts('mug; grass: short green grass')
    assert read_prompts(['mug', 'grass: short green grass']) == one
    assert read_prompts(['mug; grass: short green grass', '']) == one
    assert read_prompts(' ; \n') == []


@pytest.mark.parametrize('text', ['mug', 'mug; bowl', 'grass:short green grass; a clock at 12:30'])
def test_written_prompts_read_back(text: str) -> None:
    assert write_prompts(read_prompts(text)) == text


@pytest.mark.parametrize(
    ('text', 'written'),
    [
        ('!the vase; the mug', ';!the vase; the mug'),
        ('!vase', ';!vase'),
        ('grass: short green grass', 'grass:short green grass'),
        ('!seat: a chair; 12: 30 mugs', ';!seat:a chair; 12 :30 mugs'),
        ('the mug\n a chair \n', 'the mug; a chair'),
        ('- a; *b', ';- a; *b'),
        ('"the mug"', ';"the mug"'),
        ('@home; %5', ';@home; %5'),
        ('{cup}', ';{cup}'),
        ('2024-01-01', ';2024-01-01'),
        # These are themselves to YAML, or what they are cannot be written in another way.
        ('the mug; !the vase', 'the mug; !the vase'),
        (' the mug', ' the mug'),
        ('7', '7'),
        ('no', 'no'),
        ('', ''),
        ('mug #3', 'mug #3'),
        ('a: b: c: ', 'a: b: c: '),
    ],
)
def test_prompts_in_a_parameter_survive_yaml(text: str, written: str) -> None:
    assert survive_yaml(text) == written
    assert survive_yaml(written) == written
    if text[-1:] != ' ':
        assert read_prompts(written) == read_prompts(text)


@pytest.mark.parametrize(
    ('text', 'refused'),
    [
        ('[' * 3000, 'at most 1000 are'),
        ('[' * 500_000, 'at most 1000 are'),
        ('[' + 'a,' * 50_000 + ']', 'at most 1000 are'),
        (f'{MERGES}]', ''),
        ('9' * 5000, 'at most 1000 are'),
        ('a: b\n' * 50_000, ''),
        ('---\n' * 80_000, ''),
        ('x: !!bool maybe', ''),
        ('!!timestamp maybe', ''),
        ('2020-13-45', ''),
        ('mug\n' * 5_000_000, 'longer than any of 254 prompts'),
    ],
    ids=lambda value: value[:20],
)
def test_a_text_of_a_peer_is_read_or_refused_at_once(text: str, refused: str) -> None:
    # Nothing else is done while a parameter is set.
    with guarded(2, 300 << 20):
        typed = DECLARATIONS['prompt'].typed(text)
        if not refused:
            assert len(read_prompts(typed)) == 1
            return
        with pytest.raises(PromptError, match=refused) as caught:
            read_prompts(typed)
        assert len(str(caught.value)) < 300


def test_a_pure_image_prompt_is_not_written() -> None:
    import numpy as np

    example = Prompt(image=np.zeros((4, 4, 3), np.uint8), name='example')
    assert write_prompts([Prompt('mug'), example]) == 'mug'
