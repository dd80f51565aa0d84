"""Images of several nodes that wait for one model at the same time go through it together."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ros_peers import picture

from clipseg_model.cuda_streams import StreamedSegmenter
from clipseg_model.errors import ClipsegError, DeviceMemoryError, ImageError, PromptError
from clipseg_model.modeling.base import ImageFeatures
from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.segmentation import Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_model.zoom.refinement import Zoom
from clipseg_ros.segment.shared_model import AUTOMATIC_BATCH, SharedModels, SharedSegmenter
from clipseg_ros.segment.turns import Turns

PICTURES = [picture(60, 80, seed) for seed in range(4)]
POISON = 1e4


@pytest.fixture
def segmenters(tiny_model: Path) -> list[SharedSegmenter]:
    models = SharedModels()
    return [models.load(str(tiny_model), 'cpu', None) for _ in PICTURES]


class Spy:
    """Counts the images of each call of a model's encoder and decoder."""

    def __init__(self, segmenter: SharedSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoded: list[int] = []
        self.decoded: list[int] = []
        self.most = 99
        runtime = segmenter.runtime
        encode, decode = runtime.encode_image, runtime.decode

        def encode_image(pixels: torch.Tensor) -> ImageFeatures:
            self.encoded.append(len(pixels))
            if len(pixels) > self.most:
                raise DeviceMemoryError('not enough memory')
            if float(pixels.max()) > POISON / 2:
                raise ClipsegError('this image is at fault')
            return encode(pixels)

        def decode_prompts(features: ImageFeatures, prompts: Any) -> torch.Tensor:
            self.decoded.append(len(features.taps[0]))
            return decode(features, prompts)

        monkeypatch.setattr(runtime, 'encode_image', encode_image)
        monkeypatch.setattr(runtime, 'decode', decode_prompts)


@pytest.fixture
def spy(segmenters: list[SharedSegmenter], monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(segmenters[0], monkeypatch)


@contextmanager
def gathered(turns: Turns[Any], *work: Callable[[], None]) -> Iterator[None]:
    """Runs calls at once: all wait, in their order, until the model is free."""
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    with turns.mine():
        for number, thread in enumerate(threads, start=1):
            thread.start()
            deadline = time.monotonic() + 20
            while len(turns._waiting) < number and time.monotonic() < deadline:
                time.sleep(0.001)
        yield
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def segment_at_once(
    segmenters: list[SharedSegmenter],
    prompts: list[list[str]],
    pictures: list[NDArray[np.uint8]] = PICTURES,
    settings: Sequence[SegmentSettings | None] = (None,) * len(PICTURES),
) -> list[Segmentation | Exception]:
    """What each segmenter says of its picture where all of them wait at the same time."""
    answers: dict[int, Segmentation | Exception] = {}

    def work(number: int) -> None:
        try:
            answers[number] = segmenters[number].segment(
                pictures[number], prompts[number], 0.3, settings[number]
            )
        except Exception as error:
            answers[number] = error

    numbers = range(len(prompts))
    turns = segmenters[0]._queue.turns
    with gathered(turns, *(lambda number=number: work(number) for number in numbers)):
        pass
    return [answers[number] for number in numbers]


def check_same(found: Segmentation | Exception, expected: Segmentation) -> None:
    assert isinstance(found, Segmentation), found
    assert (found.height, found.width) == (expected.height, expected.width)
    for one, other in zip(found.results, expected.results, strict=True):
        assert one.prompt == other.prompt
        assert one.threshold == other.threshold
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_the_model_is_loaded_once_and_freed_with_its_last_user(tiny_model: Path) -> None:
    models = SharedModels()
    first = models.load(str(tiny_model), 'cpu', None)
    second = models.load(str(tiny_model), 'cpu', None)
    assert first is not second
    assert first.runtime is second.runtime
    assert first.card == second.card
    model = weakref.ref(first.runtime.model)
    del first
    gc.collect()
    third = models.load(str(tiny_model), 'cpu', None)
    assert third.runtime is second.runtime
    del second, third
    gc.collect()
    assert model() is None
    assert models.load(str(tiny_model), 'cpu', None).card.name == 'tiny'


def test_each_segmenter_has_images_of_its_own(
    segmenters: list[SharedSegmenter], tiny_model: Path
) -> None:
    alone = create_model(tiny_model, 'cpu')
    prompts = [['the mug'], ['red bowl', 'the mug'], ['the mug'], ['a chair']]
    pairs = list(zip(PICTURES, prompts, strict=True))
    expected = [alone.segment(rgb, wanted, 0.3) for rgb, wanted in pairs]
    wrong: list[str] = []

    def work(number: int) -> None:
        for _ in range(10):
            found = segmenters[number].segment(*pairs[number], 0.3)
            try:
                check_same(found, expected[number])
            except AssertionError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_images_that_wait_go_through_the_model_in_one_call(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path
) -> None:
    alone = create_model(tiny_model, 'cpu')
    # As many prompts, not the same, and frames of several sizes.
    prompts = [['the mug', 'red bowl'], ['a chair', 'the mug'], ['the mug', 'red bowl']]
    pictures = [PICTURES[0], picture(90, 90, 1), PICTURES[2]]
    found = segment_at_once(segmenters, prompts, pictures)
    assert (spy.encoded, spy.decoded) == ([3], [3])
    for rgb, wanted, one in zip(pictures, prompts, found, strict=True):
        check_same(one, alone.segment(rgb, wanted, 0.3))


def test_prompts_of_other_number_are_decoded_apart(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path
) -> None:
    alone = create_model(tiny_model, 'cpu')
    prompts = [['the mug'], ['a chair', 'the mug'], ['red bowl'], ['a chair', 'red bowl']]
    found = segment_at_once(segmenters, prompts)
    assert (spy.encoded, spy.decoded) == ([4], [2, 2])
    for rgb, wanted, one in zip(PICTURES, prompts, found, strict=True):
        check_same(one, alone.segment(rgb, wanted, 0.3))


def test_a_camera_that_reuses_encodings_keeps_its_own(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path
) -> None:
    alone = create_model(tiny_model, 'cpu')
    settings = [SegmentSettings(reuse_below=5.0), None, None]
    segment_at_once(segmenters, [['the mug']] * 3, settings=settings)
    assert sorted(spy.encoded) == [1, 2]
    spy.encoded.clear()
    found = segment_at_once(segmenters, [['red bowl']] * 3, settings=settings)
    # The first camera's picture is encoded already.
    assert spy.encoded == [2]
    assert isinstance(found[0], Segmentation)
    assert found[0].reused
    for rgb, one in zip(PICTURES, found, strict=False):
        check_same(one, alone.segment(rgb, ['red bowl'], 0.3))


def test_a_camera_whose_memory_is_short_goes_alone(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path
) -> None:
    prompts = [['the mug', 'red bowl']] * 3
    settings = [None, SegmentSettings(prompts_at_once=1), None]
    found = segment_at_once(segmenters, prompts, settings=settings)
    assert sorted(spy.encoded) == [1, 2]
    assert sorted(spy.decoded) == [1, 1, 2]
    check_same(found[1], create_model(tiny_model, 'cpu').segment(PICTURES[1], prompts[1], 0.3))


def test_infer_of_those_who_wait_is_one_call(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path
) -> None:
    alone = create_model(tiny_model, 'cpu')
    wanted = alone.prepare(['the mug'])
    pixels = [torch.from_numpy(rgb).permute(2, 0, 1)[None] for rgb in PICTURES[:2]]
    answers: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        answers[number] = segmenters[number].infer(pixels[number], wanted)

    with gathered(segmenters[0]._queue.turns, lambda: work(0), lambda: work(1)):
        pass
    assert spy.encoded == [2]
    for number in range(2):
        torch.testing.assert_close(
            answers[number], alone.infer(pixels[number], wanted), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize(('most', 'calls'), [(1, [1] * 4), (3, [3, 1]), (0, [4])])
def test_max_batch(
    most: int, calls: list[int], segmenters: list[SharedSegmenter], spy: Spy
) -> None:
    for segmenter in segmenters:
        segmenter.max_batch = most
    segment_at_once(segmenters, [['the mug']] * 4)
    assert spy.encoded == calls


def test_an_automatic_batch_is_for_runtimes_that_gain(
    segmenters: list[SharedSegmenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert segmenters[0].batch_limit == AUTOMATIC_BATCH
    monkeypatch.setattr(type(segmenters[0].runtime), 'batches', False)
    assert segmenters[0].batch_limit == 1
    segmenters[0].max_batch = 5
    assert segmenters[0].batch_limit == 5


def test_one_image_alone_is_computed_as_ever(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path
) -> None:
    found = segmenters[0].segment(PICTURES[0], ['the mug', 'red bowl'])
    expected = create_model(tiny_model, 'cpu').segment(PICTURES[0], ['the mug', 'red bowl'])
    assert spy.encoded == [1]
    for one, other in zip(found.results, expected.results, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


def test_a_prompt_that_cannot_be_read_harms_no_other(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path
) -> None:
    found = segment_at_once(segmenters, [['the mug'], ['zzz'], ['the mug']])
    assert isinstance(found[1], PromptError)
    assert spy.encoded == [2]
    alone = create_model(tiny_model, 'cpu')
    for number in (0, 2):
        check_same(found[number], alone.segment(PICTURES[number], ['the mug'], 0.3))


def test_an_image_that_the_model_fails_on_harms_no_other(
    segmenters: list[SharedSegmenter], spy: Spy, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessor = segmenters[1]._own.preprocessor
    pixels = preprocessor.pixels
    monkeypatch.setattr(preprocessor, 'pixels', lambda image: pixels(image) + POISON)
    found = segment_at_once(segmenters, [['the mug']] * 3)
    assert isinstance(found[1], ClipsegError)
    assert 'at fault' in str(found[1])
    assert spy.encoded == [3, 1, 1, 1]
    alone = create_model(tiny_model, 'cpu')
    for number in (0, 2):
        check_same(found[number], alone.segment(PICTURES[number], ['the mug'], 0.3))
    # The fault was of one image: the others are batched as before.
    spy.encoded.clear()
    segment_at_once([segmenters[0], segmenters[2]], [['the mug']] * 2)
    assert spy.encoded == [2]


def test_a_batch_that_does_not_fit_is_smaller_from_then_on(
    segmenters: list[SharedSegmenter], spy: Spy, caplog: pytest.LogCaptureFixture
) -> None:
    spy.most = 2
    with caplog.at_level(logging.WARNING):
        found = segment_at_once(segmenters, [['the mug']] * 3)
    assert all(isinstance(one, Segmentation) for one in found)
    assert spy.encoded == [3, 1, 1, 1]
    assert 'max_batch' in caplog.text
    assert 'at most 2' in caplog.text
    spy.encoded.clear()
    segment_at_once(segmenters, [['the mug']] * 3)
    assert spy.encoded == [2, 1]


def test_what_is_wrong_is_said_before_the_turn(segmenters: list[SharedSegmenter]) -> None:
    with segmenters[0]._queue.turns.mine():
        with pytest.raises(ImageError):
            segmenters[0].segment(PICTURES[0][..., 0], ['the mug'])
        with pytest.raises(PromptError, match='threshold'):
            segmenters[0].segment(PICTURES[0], ['the mug'], 1.5)
        with pytest.raises(PromptError):
            segmenters[0].segment(PICTURES[0], [])


@pytest.mark.parametrize('call', ['prepare', 'warm_up', 'zoom', 'reuse'])
def test_what_uses_the_model_waits_for_its_turn(
    call: str, segmenters: list[SharedSegmenter]
) -> None:
    segmenter, done = segmenters[0], threading.Event()
    zoom, reuse = SegmentSettings(zoom=Zoom()), SegmentSettings(reuse_below=5.0)
    calls: dict[str, Callable[[], object]] = {
        'prepare': lambda: segmenter.prepare(['the mug']),
        'warm_up': lambda: segmenter.warm_up(60, 80),
        'zoom': lambda: segmenter.segment(PICTURES[0], ['the mug'], None, zoom),
        'reuse': lambda: segmenter.segment(PICTURES[0], ['the mug'], None, reuse),
    }

    def work() -> None:
        calls[call]()
        done.set()

    with gathered(segmenter._queue.turns, work):
        assert not done.wait(0.05)
    assert done.is_set()


def test_known_prompts_do_not_wait(segmenters: list[SharedSegmenter]) -> None:
    segmenters[0].prepare(['the mug'])
    done = threading.Event()

    def work() -> None:
        segmenters[0].prepare([Prompt('the mug')])
        done.set()

    with segmenters[0]._queue.turns.mine():
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert done.wait(20)


def test_sizes_that_are_compiled_are_warmed_up(
    segmenters: list[SharedSegmenter], spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(segmenters[0].runtime), 'compiles_each_size', True)
    segmenters[0].max_batch = 3
    segmenters[0].warm_up(60, 80, prompts=2)
    assert (spy.encoded, spy.decoded) == ([1, 2, 3], [1, 2, 3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cameras_with_streams_of_their_own_on_a_gpu(tiny_model: Path) -> None:
    alone = create_model(tiny_model, 'cuda')
    expected = [alone.segment(rgb, ['the mug'], 0.3) for rgb in PICTURES]
    models, wrong = SharedModels(), []
    segmenters = [models.load(str(tiny_model), 'cuda', None) for _ in PICTURES]

    def work(number: int) -> None:
        streamed = StreamedSegmenter(segmenters[number])
        pending = [streamed.start(PICTURES[number], ['the mug'], 0.3) for _ in range(20)]
        for one in pending:
            try:
                # On a GPU images are resized in float32, which is no level away.
                for got, want in zip(one.result().results, expected[number].results, strict=True):
                    np.testing.assert_allclose(got.logits, want.logits, atol=0.05)
            except AssertionError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_methods_that_would_not_wait_are_not_there(segmenters: list[SharedSegmenter]) -> None:
    for name in ('set_image', 'predict', 'segment_batch', 'decode'):
        assert not hasattr(segmenters[0], name)
