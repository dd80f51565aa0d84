from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pixel_model import pixel_segmenter

from clipseg_model.errors import PromptError
from clipseg_model.prompting.competition import compete
from clipseg_model.prompts import Prompt, parse_prompts
from clipseg_model.zoom.refinement import Zoom


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> NDArray[np.uint8]:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = left, right
    return image


def test_the_surer_one_wins_the_pixels() -> None:
    image = halves((250, 200, 0), (200, 250, 0))
    alone = pixel_segmenter().segment(image, ['red'])
    assert alone.results[0].mask.all()
    found = pixel_segmenter().segment(image, ['red', Prompt('green', negative=True)])
    assert [result.prompt.text for result in found.results] == ['red'], 'green is never reported'
    mask = found.results[0].mask
    assert mask[:, :31].all()
    assert not mask[:, 33:].any()
    np.testing.assert_array_equal(found.labels() > 0, mask)


def test_what_a_distractor_takes_wholly_is_absent() -> None:
    image = halves((200, 250, 0), (200, 250, 0))
    segmenter = pixel_segmenter(presence_threshold=0.6)
    assert segmenter.segment(image, ['red']).results[0].presence
    [red] = segmenter.segment(image, ['red', Prompt('green', negative=True)]).results
    assert not red.presence
    assert red.score < 0.5
    assert not red.mask.any()


def test_the_excess_is_taken_off_and_nothing_else() -> None:
    logits = np.array([[[3.0, 3.0, 3.0, -1.0]], [[-2.0, 1.0, 5.0, 2.0]]], np.float32)
    prompts = [Prompt('mug'), Prompt('vase', negative=True)]
    left, asked = compete(logits, prompts, 0.5, 0.0)
    assert asked == prompts[:1]
    assert left.tolist() == [[[3.0, 2.0, -2.0, -3.0]]]


@pytest.mark.parametrize(
    ('prompt', 'presence'),
    [
        (Prompt('vase', negative=True), 0.99),
        (Prompt('vase', negative=True, presence_threshold=0.99), 0.0),
        (Prompt('vase', negative=True, threshold=0.99), 0.0),
    ],
)
def test_an_absent_distractor_takes_nothing(prompt: Prompt, presence: float) -> None:
    logits = np.full((2, 4, 4), 2.0, np.float32)
    left, _ = compete(logits, [Prompt('mug'), prompt], 0.5, presence)
    assert (left == 2.0).all()


def test_without_distractors_nothing_changes() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    left, asked = compete(logits, [Prompt('mug'), Prompt('vase')], 0.5, 0.0)
    assert left is logits
    assert len(asked) == 2


def test_order_is_kept_around_a_distractor() -> None:
    image = halves((250, 0, 0), (0, 0, 250))
    prompts = [Prompt('red'), Prompt('green', negative=True), Prompt('blue')]
    found = pixel_segmenter().segment(image, prompts)
    assert [result.prompt.text for result in found.results] == ['red', 'blue']
    assert set(np.unique(found.labels([7, 9]))) == {7, 9}


def test_only_distractors_are_refused() -> None:
    with pytest.raises(PromptError, match='All 1 prompts are negative'):
        pixel_segmenter().segment(halves((0, 0, 0), (0, 0, 0)), [Prompt('red', negative=True)])


def test_zoom_refuses_distractors() -> None:
    segmenter = pixel_segmenter(Zoom())
    prompts = ['red', Prompt('green', negative=True)]
    with pytest.raises(PromptError, match='zoom'):
        segmenter.segment(halves((0, 0, 0), (0, 0, 0)), prompts)


def test_written_form() -> None:
    mug, vase, ground = parse_prompts('the mug; !vase; ! bg: wooden table')
    assert (mug.text, mug.negative) == ('the mug', False)
    assert (vase.text, vase.label, vase.negative) == ('vase', 'vase', True)
    assert (ground.text, ground.name, ground.negative) == ('wooden table', 'bg', True)
    assert vase != parse_prompts('vase')[0]


@pytest.mark.parametrize(('text', 'words'), [('!', 'no phrase'), ('mug; !mug', "'mug'")])
def test_written_form_refused(text: str, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        parse_prompts(text)


@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan'), 'high'])
def test_presence_threshold_of_a_prompt_is_checked(value: object) -> None:
    with pytest.raises(PromptError, match='presence threshold'):
        Prompt('mug', presence_threshold=value)  # type: ignore[arg-type]


def test_presence_threshold_of_a_prompt_counts() -> None:
    image = halves((150, 0, 0), (150, 0, 0))
    segmenter = pixel_segmenter(presence_threshold=0.5)
    prompts = [Prompt('red'), Prompt('red', name='strict', presence_threshold=0.99)]
    assert [r.presence for r in segmenter.segment(image, prompts).results] == [True, False]
