from __future__ import annotations

import numpy as np
import pytest

from clipseg_model.errors import ImageError, PromptError
from clipseg_model.prompts import MAX_PROMPT_CHARS, MAX_PROMPTS, Prompt, as_prompts, parse_prompts

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
MASK = np.zeros((4, 5), bool)
MASK[1, 2] = True


class TestPrompt:
    def test_white_space_is_tidied(self) -> None:
        assert Prompt('  the \t red\u00a0 mug \n').text == 'the red mug'

    @pytest.mark.parametrize(
        ('prompt', 'label'),
        [
            (Prompt('short green grass', name='grass'), 'grass'),
            (Prompt('grass'), 'grass'),
            (Prompt(image=IMAGE), 'example image'),
            (Prompt(image=IMAGE, name='my cup'), 'my cup'),
        ],
    )
    def test_label(self, prompt: Prompt, label: str) -> None:
        assert prompt.label == label

    @pytest.mark.parametrize(
        'text',
        ['茶碗', 'кружка', 'tasse à café', '☕ \U0001f469\u200d\U0001f373', 'x' * 1000],
    )
    def test_any_script_is_a_prompt(self, text: str) -> None:
        assert Prompt(text).text == text

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            ({}, 'needs a text, an image, or both'),
            ({'text': ''}, 'blank'),
            ({'text': ' \t\n'}, 'blank'),
            ({'text': 'x' * 10_000}, f'10000 characters, and at most {MAX_PROMPT_CHARS}'),
            ({'text': 'mug\x00'}, 'control characters'),
            ({'text': 'mug \ud800'}, 'broken Unicode'),
            ({'text': b'mug'}, 'not bytes'),
            ({'text': 'mug', 'name': ' '}, 'name is blank'),
            ({'text': 'mug', 'threshold': 0}, 'between 0 and 1, not 0'),
            ({'text': 'mug', 'threshold': 1.0}, 'between 0 and 1'),
            ({'text': 'mug', 'threshold': float('nan')}, 'between 0 and 1, not nan'),
            ({'text': 'mug', 'threshold': 'high'}, "not 'high'"),
            ({'text': 'mug', 'weight': 1.5}, 'weight must be in 0…1'),
            ({'text': 'mug', 'weight': float('nan')}, 'weight'),
            ({'text': 'mug', 'mask': MASK}, 'mask and no image'),
            ({'image': IMAGE, 'mask': MASK[:2]}, r'\(4, 5\), not \(2, 5\): resize it'),
            ({'image': IMAGE, 'mask': MASK.astype(float)}, 'not float64'),
            ({'image': IMAGE, 'mask': MASK.tolist()}, 'not list'),
            ({'image': IMAGE, 'mask': np.zeros_like(MASK)}, 'empty'),
        ],
    )
    def test_what_is_not_a_prompt(self, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(PromptError, match=message):
            Prompt(**arguments)  # type: ignore[arg-type]

    def test_a_long_prompt_is_quoted_in_part_only(self) -> None:
        with pytest.raises(PromptError) as caught:
            Prompt('mug ' * 2500)
        assert len(str(caught.value)) < 250

    def test_an_image_must_be_an_image(self) -> None:
        with pytest.raises(ImageError, match='float64'):
            Prompt(image=IMAGE.astype(float))  # type: ignore[arg-type]

    def test_later_changes_of_the_arrays_do_not_reach_it(self) -> None:
        image, mask = IMAGE.copy(), MASK.copy()
        prompt = Prompt(image=image, mask=mask)
        key = prompt.image_key
        image[:] = 0
        mask[:] = True
        again = Prompt(image=IMAGE, mask=MASK)
        assert prompt == again
        assert hash(prompt) == hash(again)
        assert prompt.image_key == key
        assert prompt.image is not None
        with pytest.raises(ValueError, match='read-only'):
            prompt.image[0] = 0

    def test_identity_is_content(self) -> None:
        prompts = [
            Prompt('mug'),
            Prompt('mug', name='cup'),
            Prompt('mug', threshold=0.4),
            Prompt('mug', image=IMAGE),
            Prompt('mug', image=IMAGE, weight=0.2),
            Prompt(image=IMAGE),
            Prompt(image=IMAGE, mask=MASK),
            Prompt(image=IMAGE, mask=~MASK),
            Prompt(image=IMAGE[::-1]),
            Prompt(image=IMAGE.reshape(5, 4, 3)),
        ]
        assert len(set(prompts)) == len(prompts)
        assert Prompt('mug') == Prompt(' mug ')
        assert Prompt('mug') != 'mug'

    def test_a_mask_of_any_value_is_a_mask(self) -> None:
        values = MASK.astype(np.uint8) * 255
        assert Prompt(image=IMAGE, mask=values) == Prompt(image=IMAGE, mask=MASK)


class TestParsing:
    @pytest.mark.parametrize(
        ('text', 'expected'),
        [
            ('', []),
            (' ; \n;; ', []),
            ('the mug', [('the mug', None)]),
            ('mug; cup\nbowl\r\nplate;', [(x, None) for x in ('mug', 'cup', 'bowl', 'plate')]),
            ('grass: short green grass', [('short green grass', 'grass')]),
            ('grass:short grass', [('short grass', 'grass')]),
            ('seat : a : b', [('a : b', 'seat')]),
            ('a clock that shows 12:30', [('a clock that shows 12:30', None)]),
            ('clock: shows 12:30', [('shows 12:30', 'clock')]),
            ('mug; Mug ;MUG', [('mug', None)]),
            ('cup: mug; cup: mug', [('mug', 'cup')]),
            ('mug; cup: mug', [('mug', None), ('mug', 'cup')]),
            ('茶碗；茶', [('茶碗；茶', None)]),
        ],
    )
    def test_what_people_write(self, text: str, expected: list[tuple[str, str | None]]) -> None:
        assert [(prompt.text, prompt.name) for prompt in parse_prompts(text)] == expected

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('mug:', '"name: phrase", unlike \'mug:\''),
            (': mug', 'name: phrase'),
            ('cup: red mug; cup: blue mug', "'red mug' and 'blue mug'"),
            ('mug; mug: a blue one', "called 'mug'"),
            ('mug; ' + 'x' * 1001, '1001 characters'),
            (';'.join(f'thing {number}' for number in range(255)), 'At most 254'),
        ],
    )
    def test_what_is_contradictory(self, text: str, message: str) -> None:
        with pytest.raises(PromptError, match=message):
            parse_prompts(text)

    def test_text_only(self) -> None:
        with pytest.raises(PromptError, match='not list'):
            parse_prompts(['mug'])  # type: ignore[arg-type]

    def test_two_hundred_are_fine(self) -> None:
        prompts = parse_prompts(';'.join(f'thing {number}' for number in range(200)))
        assert [prompt.text for prompt in prompts] == [f'thing {n}' for n in range(200)]


class TestLists:
    def test_phrases_become_prompts(self) -> None:
        given = Prompt('mug', threshold=0.3)
        made = as_prompts(['cup', given])
        assert made[0] == Prompt('cup')
        assert made[1] is given

    @pytest.mark.parametrize(
        ('prompts', 'message'),
        [
            ([], 'no prompts'),
            ('mug', r'list, even a single one: \[prompt\]'),
            (Prompt('mug'), 'list'),
            ([3], 'not int'),
            (['mug', ''], 'blank'),
            (['mug'] * (MAX_PROMPTS + 1), '254 prompts'),
        ],
    )
    def test_what_is_no_list_of_prompts(self, prompts: object, message: str) -> None:
        with pytest.raises(PromptError, match=message):
            as_prompts(prompts)  # type: ignore[arg-type]
