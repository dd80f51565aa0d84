"""Frames under way on a device: the order of the work, and the answers.

The device is played by a record that runs everything at once; on a real one the same code runs
with :class:`clipseg_model.cuda_streams.CudaLanes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipseg_model.cuda_streams import OverlappedSegmenter, make_lanes
from clipseg_model.errors import ClipsegError, DeviceError, ImageError, PromptError
from clipseg_model.segmenter import Segmenter
from clipseg_model.zoom.refinement import Zoom

PROMPTS = ['a mug', 'the red chair']


class Record:
    """Lanes that keep a list of what they are asked to do."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.marks = 0
        self.waited: list[int] = []
        self.memory: list[torch.Tensor] = []
        self.current = 'none'

    @contextmanager
    def lane(self, name: str) -> Iterator[None]:
        before, self.current = self.current, name
        self.events.append(f'on {name}')
        yield
        self.current = before

    def mark(self, name: str) -> int:
        self.marks += 1
        self.events.append(f'mark {name} {self.marks}')
        return self.marks

    def after(self, name: str, mark: int) -> None:
        self.events.append(f'{name} after {mark}')

    def wait(self, mark: int) -> None:
        self.waited.append(mark)

    def hold(self, tensor: torch.Tensor, name: str) -> None:
        self.events.append(f'hold for {name}')

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        self.memory.append(torch.empty(tuple(shape), dtype=dtype))
        return self.memory[-1]


@pytest.fixture
def lanes() -> Record:
    return Record()


def views(image: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    return [np.roll(image, 17 * number, axis=1) for number in range(count)]


def test_answers_are_those_of_the_segmenter_in_any_order(
    segmenter: Segmenter, image: NDArray[np.uint8], lanes: Record
) -> None:
    overlapped = OverlappedSegmenter(segmenter, lanes, depth=3)
    frames = views(image, 3)
    memory = image.copy()
    pending = []
    for frame in frames:
        np.copyto(memory, frame)
        pending.append(overlapped.start(memory, PROMPTS, 0.4))
        memory[:] = 0  # The camera's next frame is written over it.
    for frame, under_way in reversed(list(zip(frames, pending, strict=True))):
        found, right = under_way.result(), segmenter.segment(frame, PROMPTS, 0.4)
        assert found is under_way.result()
        assert (found.height, found.width, found.model) == (90, 120, 'tiny')
        for one, other in zip(found.results, right.results, strict=True):
            np.testing.assert_array_equal(one.logits, other.logits)
            assert (one.prompt, one.threshold, one.score, one.presence) == (
                other.prompt,
                other.threshold,
                other.score,
                other.presence,
            )


def test_each_part_has_its_stream_and_waits_for_the_one_before(
    segmenter: Segmenter, image: NDArray[np.uint8], lanes: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlapped = OverlappedSegmenter(segmenter, lanes)
    encode, streams = segmenter.model.encode_image, []

    def spy(pixels: torch.Tensor) -> Any:
        streams.append(lanes.current)
        return encode(pixels)

    monkeypatch.setattr(segmenter.model, 'encode_image', spy)
    overlapped.start(image, PROMPTS)
    assert streams == ['compute']
    assert lanes.events == [
        'on compute',
        'on upload',
        'mark upload 1',
        'mark upload 2',
        'compute after 2',
        'on compute',
        'hold for compute',
        'mark compute 3',
        'download after 3',
        'on download',
        'hold for download',
        'mark download 4',
    ]
    assert lanes.waited == []


def test_the_host_waits_for_the_answer_alone(
    segmenter: Segmenter, image: NDArray[np.uint8], lanes: Record
) -> None:
    overlapped = OverlappedSegmenter(segmenter, lanes)
    first, second = (overlapped.start(frame, PROMPTS) for frame in views(image, 2))
    assert lanes.waited == []
    first.result()
    assert lanes.waited == [4]
    second.result()
    assert lanes.waited == [4, 8]


def test_an_answer_that_is_none_is_told_where_it_is_waited_for(
    segmenter: Segmenter, image: NDArray[np.uint8], lanes: Record
) -> None:
    """To look at it any earlier, the host would have to wait for the device."""
    overlapped = OverlappedSegmenter(segmenter, lanes)
    with torch.no_grad():
        segmenter.model.decoder.film_add.bias[0] = torch.nan
    pending = overlapped.start(image, PROMPTS)
    with pytest.raises(ClipsegError, match='not finite'):
        pending.result()


def test_no_more_than_so_many_are_under_way_and_pinned_memory_goes_round(
    segmenter: Segmenter, image: NDArray[np.uint8], lanes: Record
) -> None:
    overlapped = OverlappedSegmenter(segmenter, lanes, depth=2)
    for number, frame in enumerate(views(image, 6)):
        overlapped.start(frame, PROMPTS)
        arrivals = [mark for mark in lanes.waited if mark % 4 == 0]
        assert len(arrivals) == max(0, number - 1)
        # A buffer is written to again only when its upload is over.
        uploads = [mark for mark in lanes.waited if mark % 4 == 1]
        assert len(uploads) == max(0, number - 1)
    assert sum(memory.dtype == torch.uint8 for memory in lanes.memory) == 2


def test_another_size_gets_other_memory(
    segmenter: Segmenter, image: NDArray[np.uint8], lanes: Record
) -> None:
    overlapped = OverlappedSegmenter(segmenter, lanes)
    for frame in (image, image, image[:60], image[:60], image[:60]):
        found = overlapped.start(frame, PROMPTS).result()
        np.testing.assert_array_equal(
            found.results[0].logits, segmenter.segment(frame, PROMPTS).results[0].logits
        )


def test_what_is_refused(segmenter: Segmenter, image: NDArray[np.uint8], lanes: Record) -> None:
    overlapped = OverlappedSegmenter(segmenter, lanes)
    with pytest.raises(ImageError):
        overlapped.start(image[..., 0], PROMPTS)
    with pytest.raises(PromptError):
        overlapped.start(image, [])
    with pytest.raises(DeviceError, match=r'segment\(\)'):
        make_lanes(torch.device('cpu'))
    with pytest.raises(DeviceError, match='cpu'):
        OverlappedSegmenter(segmenter)
    segmenter.zoom = Zoom()
    with pytest.raises(ValueError, match='zoom'):
        OverlappedSegmenter(segmenter, lanes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_cuda(segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
    on_gpu = Segmenter(segmenter.model, replace(segmenter.card), 'cuda')
    overlapped = OverlappedSegmenter(on_gpu)
    frames = views(image, 6)
    found = [overlapped.start(frame, PROMPTS) for frame in frames]
    for frame, under_way in zip(frames, found, strict=True):
        right = on_gpu.segment(frame, PROMPTS)
        for one, other in zip(under_way.result().results, right.results, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, atol=0.05)
