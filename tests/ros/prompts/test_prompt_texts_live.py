"""Texts, while the node runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prompt_bench import RGB, Bench, close, flood, support
from ros_peers import (
    stamp_of,
    wait_until,
)
from std_msgs.msg import String

from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model


def test_negative_prompts_compete_and_are_not_reported(bench: Bench, seeing_model: Path) -> None:
    before = bench.show()['labels']
    assert {1, 2} <= set(np.unique(before)), 'the test picture has both'
    line = bench.prompt('the mug; !red bowl', '(negative)')
    assert "2 'red bowl' (negative)" in line
    after = bench.show()
    prompts = [Prompt('the mug'), Prompt('red bowl', negative=True)]
    expected = create_model(seeing_model, 'cpu').segment(RGB, prompts)
    assert 2 not in np.unique(after['labels'])
    assert np.mean(after['labels'] != expected.labels([1])) < 1e-3
    # Random logits change from pixel to pixel of the model, where the competition takes place.
    assert np.mean(after['labels'][before == 1] == 1) > 0.6, 'the mug keeps most of what it won'
    assert np.mean(after['labels'][before == 2] == 0) > 0.99, 'and gets nothing that it lost'
    assert bench.peer.get_parameter('/live/clipseg', 'prompt') == 'the mug; !red bowl'
    bench.prompt('red bowl')
    assert set(np.unique(bench.show()['labels'])) <= {0, 2}, 'and it has its id'


def test_an_update_in_the_middle_of_a_frame(bench: Bench) -> None:
    """Each answer is to the prompts of one moment: never to some old and some new ones."""
    bench.received['labels'].clear()
    expected = {'the mug': 1, 'red bowl': 2}
    for number in range(60):
        text = ('the mug', 'red bowl')[number % 2]
        bench.commands['prompt'].publish(String(data=text))
        for _ in range(3):
            bench.images.publish(bench.peer.stamped(RGB))
            time.sleep(0.02)
    seen = [frozenset(np.unique(message.data)) for message in list(bench.received['labels'])]
    assert len(seen) > 30
    assert set(seen) <= {frozenset({0, 1}), frozenset({0, 2}), frozenset({0, 1, 2})}
    # Both prompts were active before the first update took effect, and never since.
    assert frozenset({0, 1, 2}) not in seen[5:]
    assert set(seen[5:]) == {frozenset({0, number}) for number in expected.values()}


def test_a_flood_of_prompts(bench: Bench) -> None:
    """1,000 a second for 2 s: the last one counts, and the camera is served meanwhile."""
    since = len(bench.node.lines)
    texts = (f'thing {number % 100}: red mug {number}' for number in range(2000))
    answered = flood(bench, 'prompt', (String(data=text) for text in texts))
    bench.commands['prompt'].publish(String(data='last: the mug'))
    # Lines are throttled, so that of the last prompt may not be among them.
    wait_until(lambda: bench.peer.get_parameter('/live/clipseg', 'prompt') == 'last:the mug')
    assert bench.node.count('prompt(s) active', since) < 80, 'not every one took its time'
    served = {stamp_of(message) for message in list(bench.received['mask'])}
    assert len(served & answered) >= 10
    ids = set(np.unique(bench.show()['labels']))
    assert len(ids) == 2, 'nothing and the last prompt'


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('template', 'a photo', 'exactly once'),
        ('template', 'a {} ' + 'mug ' * 40, 'the mug'),
        ('visual_method', 'crop_more', 'crop_blur_10'),
        ('presence_threshold', -0.5, '-0.5'),
        ('presence_hysteresis', 1.5, 'presence_hysteresis'),
        ('min_area', -1, 'min_area'),
        ('smoothing', -0.1, 'smoothing'),
        ('text_weight', 1.5, 'text_weight'),
        ('prompt', '!', 'no phrase'),
        ('prompt', 'mug; !mug', "'mug'"),
    ],
)
def test_values_that_are_refused(bench: Bench, name: str, value: Any, words: str) -> None:
    result = bench.peer.set_parameter('/live/clipseg', name, value)
    assert not result.successful
    assert words in result.reason


def test_254_prompts_leave_no_room_for_a_picture(bench: Bench) -> None:
    bench.send('prompt_image', support(bench.peer)[0], "'example'")
    many = ';'.join(f'thing {n}: mug' for n in range(254))
    result = bench.peer.set_parameter('/live/clipseg', 'prompt', many)
    assert not result.successful
    assert '255 prompts at once' in result.reason


def test_the_same_text_again_changes_nothing(bench: Bench) -> None:
    bench.send('prompt_image', support(bench.peer)[0], "'example'")
    bench.prompt('example: red bowl; the mug', '(words and picture)')
    before = bench.show()['probability']
    bench.set(prompt=bench.peer.get_parameter('/live/clipseg', 'prompt'))
    assert close(bench.show()['probability'], before)
