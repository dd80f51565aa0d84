from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import clipseg_model.segmentation as segmentation_module
from clipseg_model.errors import PromptError
from clipseg_model.outputs import mask_window
from clipseg_model.outputs.frame_outputs import FrameOutputs, Scratch
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box, CloseUp, CloseUps
from clipseg_model.segmentation import PromptResult, Segmentation

HEIGHT, WIDTH = 90, 130
ALL = ('mask', 'labels', 'confidence', 'probability')
TYPES = {'mask': np.uint8, 'labels': np.uint8, 'confidence': np.uint8, 'probability': np.float32}


def result(seed: int, threshold: float = 0.5, presence: bool = True, lift: float = 0.0) -> Any:
    noise = np.random.default_rng(seed).normal(lift, 3, (6, 8)).astype(np.float32)
    logits = np.asarray(cv2.resize(noise, (64, 48), interpolation=cv2.INTER_CUBIC))
    return PromptResult(Prompt(f'thing {seed}'), threshold, 0.9, presence, logits, HEIGHT, WIDTH)


def closer_look(seed: int) -> PromptResult:
    """A result whose whole image is off, and a part of it is on in a close-up."""
    box = Box(20, 10, 60, 50)
    part = CloseUp(box, (box,), np.full((16, 16), 4.0, np.float32))
    off = result(seed, lift=-50)
    return PromptResult(
        off.prompt, 0.5, 0.9, True, off.logits, HEIGHT, WIDTH, CloseUps((part,), 'max')
    )


def spot(
    row: int,
    column: int,
    level: float = 5.0,
    shape: tuple[int, int] = (48, 64),
    threshold: float = 0.5,
) -> PromptResult:
    """On at a few logits alone."""
    logits = np.full(shape, -6, np.float32)
    logits[row : row + 3, column : column + 4] = level
    return PromptResult(Prompt('spot'), threshold, 0.9, True, logits, HEIGHT, WIDTH)


CASES = {
    'one': [result(0)],
    'three': [result(0), result(1), result(2)],
    'equals': [result(0), result(0), result(1)],
    'thresholds': [result(0, 0.3), result(1, 0.7), result(2, 0.5)],
    'absent': [result(0), result(1, presence=False), result(2)],
    'first absent': [result(0, presence=False), result(1)],
    'none': [result(0, presence=False), result(1, presence=False)],
    'far below': [result(0, lift=-50), result(1), result(2, lift=-60)],
    'spots': [spot(10, 20), spot(11, 22, 7), spot(0, 0), spot(45, 60), spot(12, 21, 6)],
    'spots apart': [spot(10, 20, 1, threshold=0.7), spot(30, 50), spot(2, 3, threshold=0.9)],
    'spot in few logits': [spot(2, 1, shape=(5, 7)), spot(0, 6, shape=(5, 7))],
    'spot in many logits': [spot(200, 150, shape=(300, 310)), spot(297, 306, shape=(300, 310))],
    'all far below': [result(0, lift=-50), result(1, lift=-60)],
}


def make(
    results: Sequence[PromptResult],
    ids: Sequence[int],
    wanted: Sequence[str],
    scratch: Scratch | None = None,
) -> dict[str, NDArray[Any]]:
    found = Segmentation(HEIGHT, WIDTH, list(results), 'tiny')
    outputs = FrameOutputs(found, ids, wanted, scratch or Scratch())
    arrays = {name: np.full((HEIGHT, WIDTH), 77, TYPES[name]) for name in wanted}
    for name, array in arrays.items():
        getattr(outputs, name)(array)
    return arrays


def expected(results: Sequence[PromptResult], ids: Sequence[int]) -> dict[str, NDArray[Any]]:
    found = Segmentation(HEIGHT, WIDTH, list(results), 'tiny')
    return {
        'mask': found.mask(),
        'labels': found.labels(ids),
        'confidence': found.confidence(),
        'probability': found.probability(),
    }


@pytest.mark.parametrize('wanted', [ALL, ALL[:3], ('labels',), ('mask',), ('probability',)])
@pytest.mark.parametrize('name', [*CASES, 'close-up'])
def test_every_output_is_that_of_the_segmentation(name: str, wanted: Sequence[str]) -> None:
    results = [closer_look(0), result(1)] if name == 'close-up' else CASES[name]
    # Ids that fall while the numbers of the prompts rise.
    ids = [200 - 7 * number for number in range(len(results))]
    right = expected(results, ids)
    for output, array in make(results, ids, wanted).items():
        np.testing.assert_array_equal(array, right[output], err_msg=output)


@pytest.mark.parametrize('wanted', [ALL, ALL[:3], ('labels',), ('mask',), ('probability',)])
@pytest.mark.parametrize('name', [*CASES, 'close-up'])
def test_in_a_region_of_a_larger_image(name: str, wanted: Sequence[str]) -> None:
    results = [closer_look(0), result(1)] if name == 'close-up' else CASES[name]
    ids = [200 - 7 * number for number in range(len(results))]
    region, shape = Box(23, 11, 23 + WIDTH, 11 + HEIGHT), (HEIGHT + 40, WIDTH + 50)
    part = Segmentation(HEIGHT, WIDTH, list(results), 'tiny')
    outputs = FrameOutputs(part.within(region, *shape), ids, wanted, Scratch())
    alone = make(results, ids, wanted)
    for output in wanted:
        array = np.full(shape, 77, TYPES[output])
        getattr(outputs, output)(array)
        right = np.zeros(shape, TYPES[output])
        right[region.slices] = alone[output]
        np.testing.assert_array_equal(array, right, err_msg=output)
    index = np.flatnonzero(outputs.labels())
    if 'confidence' in wanted and index.size:
        inside = part.probability().ravel()[np.flatnonzero(part.labels())]
        np.testing.assert_array_equal(outputs.probability_at(index), inside)


def test_scratch_of_another_frame_and_size_leaves_no_trace() -> None:
    scratch = Scratch()
    make(CASES['three'], [1, 2, 3], ALL, scratch)
    again = make(CASES['thresholds'], [4, 5, 6], ALL, scratch)
    for output, right in expected(CASES['thresholds'], [4, 5, 6]).items():
        np.testing.assert_array_equal(again[output], right)
    memory = scratch.floats('logits', (HEIGHT, WIDTH))
    assert np.shares_memory(scratch.floats('logits', (HEIGHT, WIDTH)), memory)
    assert scratch.floats('logits', (3, 4)).shape == (3, 4)


@pytest.mark.parametrize('wanted', [('confidence',), ('labels', 'confidence', 'probability')])
@pytest.mark.parametrize('name', [name for name in CASES if name not in ('none', 'all far below')])
def test_probability_at_labelled_pixels(name: str, wanted: Sequence[str]) -> None:
    results = CASES[name]
    found = Segmentation(HEIGHT, WIDTH, list(results), 'tiny')
    outputs = FrameOutputs(found, range(1, len(results) + 1), wanted, Scratch())
    index = np.flatnonzero(outputs.labels())
    assert index.size
    right = found.probability().ravel()[index]
    np.testing.assert_array_equal(outputs.probability_at(index), right)
    if 'probability' in wanted:
        outputs.probability(np.empty((HEIGHT, WIDTH), np.float32))
        np.testing.assert_array_equal(outputs.probability_at(index), right)


def test_probability_at_no_pixels() -> None:
    found = Segmentation(HEIGHT, WIDTH, CASES['none'], 'tiny')
    outputs = FrameOutputs(found, [1, 2], ('confidence',), Scratch())
    nothing = outputs.probability_at(np.flatnonzero(outputs.labels()))
    assert nothing.shape == (0,)
    assert nothing.dtype == np.float32


def test_labels_without_memory_are_the_winners() -> None:
    found = Segmentation(HEIGHT, WIDTH, CASES['three'], 'tiny')
    outputs = FrameOutputs(found, [1, 2, 3], ('mask', 'labels'), Scratch())
    np.testing.assert_array_equal(outputs.labels(), found.labels())


@pytest.mark.parametrize(
    ('name', 'wanted', 'resizes'),
    [
        ('three', ALL, 3),
        ('three', ('mask',), 3),
        ('absent', ALL[:3], 2),
        ('far below', ALL[:3], 1),
        ('all far below', ('mask',), 0),
        ('none', ALL[:3], 0),
        ('three', (), 0),
    ],
)
def test_logits_are_resized_once_and_only_where_they_can_matter(
    name: str, wanted: Sequence[str], resizes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = CASES[name]
    calls: list[int] = []

    def resize(logits: Any, *arguments: Any, **options: Any) -> Any:
        calls.extend(n for n, r in enumerate(results) if np.shares_memory(logits, r.logits))
        return cv2.resize(logits, *arguments, **options)

    for module in (segmentation_module, mask_window):
        monkeypatch.setattr(module, 'cv2', SimpleNamespace(**{**vars(cv2), 'resize': resize}))
    make(results, range(1, 1 + len(results)), wanted)
    assert len(calls) == len(set(calls)) == resizes


@pytest.mark.parametrize(
    ('ids', 'words'), [([1, 2], 'not 2'), ([1, 2, 255], '1…254'), ([0, 1, 2], '1…254')]
)
def test_ids_that_do_not_fit(ids: list[int], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        make(CASES['three'], ids, ALL)
