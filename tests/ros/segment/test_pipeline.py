"""What a frame costs in calls and copies: counted, not timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

import clipseg_ros.segment.pipeline as pipeline_module
from clipseg_model.cuda_streams import PendingSegmentation
from clipseg_model.outputs.frame_outputs import FrameOutputs
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.outputs.publishers import COMPRESSED_LABELS, IMAGE_OUTPUTS
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import FoundFrame, SegmentationPipeline, stream_on_gpu
from training.benchmarks.node_peers.stand_in import StandIn

HEIGHT, WIDTH = 48, 64
ALL = (*IMAGE_OUTPUTS, 'segments')
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


class CountingModel(StandIn):
    """Answers at once, and keeps the images that it was given."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.images: list[NDArray[np.uint8]] = []

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> Segmentation:
        self.images.append(image)
        return super().segment(image, prompts, threshold, settings)


class Outputs:
    """Stands in for the publishers: says who subscribes, and keeps what is done."""

    def __init__(self, *subscribed: str) -> None:
        self.subscribed = list(subscribed)
        self.opened: list[str] = []
        self.published: list[str] = []
        self.pixels: dict[str, NDArray[Any]] = {}

    def wanted(self) -> list[str]:
        return list(self.subscribed)

    def open_image(self, name: str, height: int, width: int, header: Header) -> NDArray[Any]:
        self.opened.append(name)
        shape = (height, width, 3) if name == 'overlay' else (height, width)
        dtype = np.float32 if name == 'probability' else np.uint8
        self.pixels[name] = np.zeros(shape, dtype)
        return self.pixels[name]

    def publish_image(self, name: str) -> None:
        self.published.append(name)

    def publish_segments(self, *arguments: Any) -> None:
        self.published.append('segments')

    def publish_compressed_labels(self, labels: NDArray[np.uint8], header: Header) -> None:
        assert labels.shape == RGB.shape[:2]
        self.published.append(COMPRESSED_LABELS)


def make(
    outputs: Outputs, streamed: Any = None, prompts: PromptSet | None = None
) -> tuple[SegmentationPipeline, CountingModel]:
    model, prompts = CountingModel(), prompts or PromptSet()
    prompts.replace([PromptRequest(Prompt(text)) for text in ('mug', 'bowl')])
    settings = Settings()
    fakes: tuple[Any, Any] = (model, outputs)
    pipeline = SegmentationPipeline(
        fakes[0], prompts, fakes[1], lambda: settings, lambda: 5_000_000_000, streamed=streamed
    )
    return pipeline, model


def run(pipeline: SegmentationPipeline, message: Image) -> None:
    found = pipeline.process(message)
    assert found is not None
    frame = pipeline.publish(found)
    assert frame is not None
    pipeline.finish(frame)


@pytest.mark.parametrize(
    ('subscribed', 'order'),
    [
        (ALL, ['mask', 'labels', 'confidence', 'segments', 'overlay', 'probability']),
        (('labels', 'mask'), ['mask', 'labels']),
        (('overlay',), ['overlay']),
        ((COMPRESSED_LABELS,), [COMPRESSED_LABELS]),
        (('probability',), ['probability']),
        (('segments',), ['segments']),
    ],
)
def test_what_nobody_subscribes_to_is_not_made(subscribed: Sequence[str], order: list[str]) -> None:
    outputs = Outputs(*subscribed)
    pipeline, model = make(outputs)
    run(pipeline, array_to_image(RGB, 'rgb8', Header()))
    assert outputs.published == order
    assert sorted(outputs.opened) == sorted(name for name in order if name in IMAGE_OUTPUTS)
    assert len(model.images) == 1
    assert all(pixels.any() for pixels in outputs.pixels.values())


@pytest.mark.parametrize(
    ('subscribed', 'computed'),
    [
        (ALL, {'mask', 'labels', 'confidence', 'probability'}),
        (('mask',), {'mask'}),
        (('overlay', 'mask'), {'mask', 'labels'}),
        (('segments',), set()),
    ],
)
def test_pixels_are_computed_together_and_only_those_needed(
    subscribed: Sequence[str], computed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[set[str]] = []

    class Spy(FrameOutputs):
        def __init__(self, found: Any, ids: Any, wanted: Any, scratch: Any) -> None:
            made.append(set(wanted))
            super().__init__(found, ids, wanted, scratch)

    monkeypatch.setattr(pipeline_module, 'FrameOutputs', Spy)
    pipeline, _ = make(Outputs(*subscribed))
    run(pipeline, array_to_image(RGB, 'rgb8', Header()))
    assert made == [computed]


def test_without_a_subscriber_not_even_the_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, model = make(Outputs())
    monkeypatch.setattr(pipeline, 'to_rgb', lambda message: pytest.fail('it was read'))
    assert pipeline.process(array_to_image(RGB, 'rgb8', Header())) is None
    assert model.images == []


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_one_call_a_frame_and_no_copy_of_what_is_rgb(encoding: str) -> None:
    pipeline, model = make(Outputs('mask', 'labels'))
    for count in range(1, 4):
        message = array_to_image(RGB, 'rgb8', Header())
        message.encoding = encoding
        run(pipeline, message)
        assert len(model.images) == count
        memory = np.frombuffer(message.data, np.uint8)
        assert np.shares_memory(model.images[-1], memory) == (encoding == 'rgb8')


def test_a_frame_under_way_is_kept_back_once_all_prompts_are_gone() -> None:
    outputs, prompts = Outputs(*ALL), PromptSet()
    pipeline, _ = make(outputs, prompts=prompts)
    found = pipeline.process(array_to_image(RGB, 'rgb8', Header()))
    assert found is not None
    prompts.replace([])
    assert pipeline.publish(found) is None
    assert outputs.opened == outputs.published == []


def test_age_is_from_the_stamp_to_the_first_output() -> None:
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 4, 750_000_000
    pipeline, _ = make(Outputs('mask'))
    run(pipeline, array_to_image(RGB, 'rgb8', header))
    assert pipeline.age == pytest.approx(0.25)


class UnderWay(PendingSegmentation):
    def __init__(self, log: list[str], number: int, found: Segmentation) -> None:
        self.log, self.number, self.found = log, number, found

    def result(self) -> Segmentation:
        self.log.append(f'wait for {self.number}')
        return self.found


class Streamed:
    """Stands in for frames under way on a GPU."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def start(self, image: NDArray[np.uint8], prompts: Sequence[Prompt], *_: Any) -> Any:
        number = len([line for line in self.log if line.startswith('start')])
        self.log.append(f'start {number}')
        logits = np.full((8, 8), 1.0 + number, np.float32)
        results = [PromptResult(p, 0.5, 0.9, True, logits, HEIGHT, WIDTH) for p in prompts]
        return UnderWay(self.log, number, Segmentation(HEIGHT, WIDTH, results, 'gpu'))


def test_on_a_gpu_the_next_frame_starts_before_the_last_one_is_there() -> None:
    outputs, streamed = Outputs('probability'), Streamed()
    pipeline, model = make(outputs, streamed)
    message = array_to_image(RGB, 'rgb8', Header())
    first, second = pipeline.process(message), pipeline.process(message)
    assert isinstance(first, FoundFrame)
    assert isinstance(second, FoundFrame)
    assert streamed.log == ['start 0', 'start 1']
    for number, found in enumerate((first, second)):
        frame = pipeline.publish(found)
        assert frame is not None
        pipeline.finish(frame)
        assert streamed.log[-1] == f'wait for {number}'
        expected = 1 / (1 + np.exp(-1.0 - number))
        np.testing.assert_allclose(outputs.pixels['probability'], expected, rtol=1e-6)
        assert pipeline.model_seconds > 0
    assert model.images == []


def test_frames_are_pipelined_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = CountingModel()
    made: list[Any] = []
    monkeypatch.setattr(pipeline_module, 'StreamedSegmenter', made.append)
    assert stream_on_gpu(model) is None
    assert made == []
    model.device = torch.device('cuda', 0)
    stream_on_gpu(model)
    assert made == [model]
