"""Support images, alone and mixed with words, while the node runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prompt_bench import Bench, close, probability_of, support

from clipseg_model.prompts import Prompt


def test_a_support_image_and_then_its_mask(bench: Bench, seeing_model: Path) -> None:
    image, marked, rgb, mask = support(bench.peer, stamp=5)
    line = bench.send('prompt_image', image, "'example' (picture)")
    assert "'the mug'" in line, 'the other prompts stay'
    bench.prompt('')
    bench.send('prompt_image', image, "'example' (picture)")
    alone = bench.show()['probability']
    assert close(alone, probability_of(seeing_model, [Prompt(image=rgb)]))
    bench.send('prompt_mask', marked, "'example' (picture)")
    masked = bench.show()['probability']
    assert close(masked, probability_of(seeing_model, [Prompt(image=rgb, mask=mask)]))
    assert not close(alone, masked)


def test_a_mask_and_then_its_support_image(bench: Bench, seeing_model: Path) -> None:
    image, marked, rgb, mask = support(bench.peer, stamp=6)
    bench.prompt('')
    bench.send('prompt_mask', marked, 'waits for its image')
    bench.send('prompt_image', image, "'example' (picture)")
    expected = probability_of(seeing_model, [Prompt(image=rgb, mask=mask)])
    assert close(bench.show()['probability'], expected)


def test_masks_that_do_not_fit_are_refused(bench: Bench, seeing_model: Path) -> None:
    image, marked, rgb, _ = support(bench.peer, stamp=7)
    bench.prompt('')
    bench.send('prompt_image', image, "'example' (picture)")
    for pixels, words in (
        (np.zeros((60, 80), np.uint8), 'the mask is empty'),
        (np.ones((61, 80), np.uint8), 'the mask is 80 px wide and 61 px high'),
    ):
        wrong = bench.peer.stamped(pixels, 'mono8')
        wrong.header.stamp = marked.header.stamp
        bench.send('prompt_mask', wrong, words)
    assert close(bench.show()['probability'], probability_of(seeing_model, [Prompt(image=rgb)]))


def test_words_and_a_picture_of_one_name_are_mixed(bench: Bench, seeing_model: Path) -> None:
    image, _, rgb, _ = support(bench.peer)
    bench.send('prompt_image', image, "'example' (picture)")
    bench.set(text_weight=0.25)
    try:
        line = bench.prompt('example: red bowl', '(words and picture)')
        assert '1 prompt(s)' in line
        mixed = Prompt('red bowl', image=rgb, weight=0.25)
        assert close(bench.show()['probability'], probability_of(seeing_model, [mixed]))
        assert bench.peer.get_parameter('/live/clipseg', 'prompt') == 'example:red bowl'
        assert "'example' (picture)" in bench.prompt('the mug')
    finally:
        bench.set(text_weight=0.5)


def test_text_weight_mixes_what_is_active_anew(bench: Bench, seeing_model: Path) -> None:
    image, _, rgb, _ = support(bench.peer)
    bench.send('prompt_image', image, "'example'")
    bench.prompt('example: red bowl', '(words and picture)')
    try:
        for weight in (0.9, 0.1):
            bench.set(text_weight=weight)
            mixed = Prompt('red bowl', image=rgb, weight=weight)
            assert close(bench.show()['probability'], probability_of(seeing_model, [mixed]))
    finally:
        bench.set(text_weight=0.5)


def test_visual_method(bench: Bench, seeing_model: Path) -> None:
    image, marked, rgb, mask = support(bench.peer, stamp=11)
    bench.prompt('')
    bench.send('prompt_image', image, "'example'")
    bench.send('prompt_mask', marked, "'example'")
    bench.set(visual_method='red_outline')
    try:
        example = Prompt(image=rgb, mask=mask)
        expected = probability_of(seeing_model, [example], visual_method='red_outline')
        assert close(bench.show()['probability'], expected)
        assert not close(expected, probability_of(seeing_model, [example]))
    finally:
        bench.set(visual_method='crop_blur_10')
