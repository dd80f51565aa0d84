"""Pixels of several masks go to the surest prompt, which a few questions find out."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_ros.console.back_ends.overlaps import surest

SHAPE = (20, 30)


class Node:
    """Answers questions about prompts of random logits as a node does."""

    def __init__(self, count: int) -> None:
        self.logits = np.random.default_rng(count).normal(0.0, 2.0, (count, *SHAPE))
        self.keys = [f'prompt {number}' for number in range(count)]
        self.questions = 0

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        return {key: one > 0 for key, one in zip(self.keys, self.logits, strict=True)}

    def ask(self, keys: Collection[str], others: Collection[str]) -> NDArray[np.bool_]:
        self.questions += 1
        assert keys
        excess = self._highest(others)
        return np.asarray(self._highest(keys) - np.maximum(excess, 0) > 0)

    def _highest(self, keys: Collection[str]) -> NDArray[np.float64]:
        return np.max([self.logits[self.keys.index(key)] for key in keys], axis=0)


@pytest.mark.parametrize(('count', 'questions'), [(1, 0), (2, 1), (3, 2), (5, 3)])
def test_the_surest_prompt_has_the_pixel(count: int, questions: int) -> None:
    node = Node(count)
    expected = np.where(node.logits.max(axis=0) > 0, node.logits.argmax(axis=0) + 1, 0)
    assert np.array_equal(surest(node.masks(), node.ask), expected)
    assert node.questions == questions


def test_masks_that_do_not_overlap_need_no_question() -> None:
    node = Node(2)
    node.logits[1] = -1.0
    surest(node.masks(), node.ask)
    assert node.questions == 0


def test_without_an_answer_the_later_mask_has_the_pixel() -> None:
    node = Node(2)

    def refuse(keys: Collection[str], others: Collection[str]) -> NDArray[np.bool_]:
        raise PromptError('busy')

    first, second = node.masks().values()
    found = surest(node.masks(), refuse)
    assert (found[second] == 2).all()
    assert (found[first & ~second] == 1).all()


def test_a_pixel_is_given_to_nobody_whose_mask_is_off_there() -> None:
    node = Node(3)
    masks = node.masks()
    # Its threshold is higher than those of the others: it is the surest, and off.
    masks['prompt 2'] = node.logits[2] > 3
    found = surest(masks, node.ask)
    on = np.stack([np.zeros(SHAPE, bool), *masks.values()])
    assert np.take_along_axis(on, found[None].astype(int), axis=0)[0][on.any(axis=0)].all()
