"""Frames under way on a device: the order of the work, and the answers.

The device is played by a record that runs everything at once; on a real one the same code runs
with :class:`clipseg_model.cuda_streams.CudaStreams`.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipseg_model.cuda_streams import CudaStreams, StreamedSegmenter
from clipseg_model.errors import ClipsegError, DeviceError, ImageError, PromptError, RegionError
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_model.zoom.refinement import Zoom

PROMPTS = ['a mug', 'the red chair']


class Record:
    """Streams that keep a list of what they are asked to do."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.recorded = 0
        self.waited: list[int] = []
        self.memory: list[torch.Tensor] = []
        self.current = 'none'

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        before, self.current = self.current, name
        self.events.append(f'on {name}')
        yield
        self.current = before

    def record(self, name: str) -> int:
        self.recorded += 1
        self.events.append(f'record {name} {self.recorded}')
        return self.recorded

    def wait_event(self, name: str, event: int) -> None:
        self.events.append(f'{name} after {event}')

    def synchronize(self, event: int) -> None:
        self.waited.append(event)

    def keep(self, tensor: torch.Tensor, name: str) -> None:
        self.events.append(f'keep for {name}')

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        self.memory.append(torch.empty(tuple(shape), dtype=dtype))
        return self.memory[-1]


@pytest.fixture
def streams() -> Record:
    return Record()


def views(image: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    return [np.roll(image, 17 * number, axis=1) for number in range(count)]


def test_answers_are_those_of_the_segmenter_in_any_order(
    segmenter: Segmenter, image: NDArray[np.uint8], streams: Record
) -> None:
    streamed = StreamedSegmenter(segmenter, streams, depth=3)
    frames = views(image, 3)
    memory = image.copy()
    pending = []
    for frame in frames:
        np.copyto(memory, frame)
        pending.append(streamed.start(memory, PROMPTS, 0.4))
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
    segmenter: Segmenter, image: NDArray[np.uint8], streams: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = StreamedSegmenter(segmenter, streams)
    encode, used = segmenter.model.encode_image, []

    def spy(pixels: torch.Tensor) -> Any:
        used.append(streams.current)
        return encode(pixels)

    monkeypatch.setattr(segmenter.model, 'encode_image', spy)
    streamed.start(image, PROMPTS)
    assert used == ['compute']
    assert streams.events == [
        'on compute',
        'on upload',
        'record upload 1',
        'record upload 2',
        'compute after 2',
        'on compute',
        'keep for compute',
        'record compute 3',
        'download after 3',
        'on download',
        'keep for download',
        'record download 4',
    ]
    assert streams.waited == []


def test_the_host_waits_for_the_answer_alone(
    segmenter: Segmenter, image: NDArray[np.uint8], streams: Record
) -> None:
    streamed = StreamedSegmenter(segmenter, streams)
    first, second = (streamed.start(frame, PROMPTS) for frame in views(image, 2))
    assert streams.waited == []
    first.result()
    assert streams.waited == [4]
    second.result()
    assert streams.waited == [4, 8]


def test_an_answer_that_is_none_is_told_where_it_is_waited_for(
    segmenter: Segmenter, image: NDArray[np.uint8], streams: Record
) -> None:
    """To look at it any earlier, the host would have to wait for the device."""
    streamed = StreamedSegmenter(segmenter, streams)
    with torch.no_grad():
        segmenter.model.decoder.film_add.bias[0] = torch.nan
    pending = streamed.start(image, PROMPTS)
    with pytest.raises(ClipsegError, match='not finite'):
        pending.result()


def test_no_more_than_so_many_are_under_way_and_pinned_memory_goes_round(
    segmenter: Segmenter, image: NDArray[np.uint8], streams: Record
) -> None:
    streamed = StreamedSegmenter(segmenter, streams, depth=2)
    for number, frame in enumerate(views(image, 6)):
        streamed.start(frame, PROMPTS)
        arrivals = [mark for mark in streams.waited if mark % 4 == 0]
        assert len(arrivals) == max(0, number - 1)
        # A buffer is written to again only when its upload is over.
        uploads = [mark for mark in streams.waited if mark % 4 == 1]
        assert len(uploads) == max(0, number - 1)
    assert sum(memory.dtype == torch.uint8 for memory in streams.memory) == 2


def test_another_size_gets_other_memory(
    segmenter: Segmenter, image: NDArray[np.uint8], streams: Record
) -> None:
    streamed = StreamedSegmenter(segmenter, streams)
    for frame in (image, image, image[:60], image[:60], image[:60]):
        found = streamed.start(frame, PROMPTS).result()
        np.testing.assert_array_equal(
            found.results[0].logits, segmenter.segment(frame, PROMPTS).results[0].logits
        )


def test_what_is_refused(segmenter: Segmenter, image: NDArray[np.uint8], streams: Record) -> None:
    streamed = StreamedSegmenter(segmenter, streams)
    with pytest.raises(ImageError):
        streamed.start(image[..., 0], PROMPTS)
    with pytest.raises(PromptError):
        streamed.start(image, [])
    with pytest.raises(DeviceError, match=r'segment\(\)'):
        CudaStreams(torch.device('cpu'))
    with pytest.raises(DeviceError, match='cpu'):
        StreamedSegmenter(segmenter)
    with pytest.raises(RegionError, match='zoom'):
        streamed.start(image, PROMPTS, settings=SegmentSettings(zoom=Zoom()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_cuda(segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
    on_gpu = Segmenter(segmenter.model, replace(segmenter.card), 'cuda')
    streamed = StreamedSegmenter(on_gpu)
    frames = views(image, 6)
    found = [streamed.start(frame, PROMPTS) for frame in frames]
    for frame, under_way in zip(frames, found, strict=True):
        right = on_gpu.segment(frame, PROMPTS)
        for one, other in zip(under_way.result().results, right.results, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, atol=0.05)


def test_an_answer_to_come_keeps_no_pixels_on_the_device(
    segmenter: Segmenter, image: NDArray[np.uint8], streams: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = []
    infer = segmenter.infer

    def spy(pixels: torch.Tensor, *arguments: Any) -> torch.Tensor:
        uploaded.append(weakref.ref(pixels))
        return infer(pixels, *arguments)

    monkeypatch.setattr(segmenter, 'infer', spy)
    pending = StreamedSegmenter(segmenter, streams).start(image, PROMPTS)
    gc.collect()
    assert [pixels() for pixels in uploaded] == [None]
    assert len(pending.result().results) == 2
