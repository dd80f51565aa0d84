"""What a frame costs in calls and copies: counted, not timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pipeline_fakes import CountingModel, FakeOutputs
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

import clipseg_ros.outputs.result as result_module
import clipseg_ros.segment.memory_relief as memory_relief_module
from clipseg_model.cuda_streams import PendingSegmentation
from clipseg_model.outputs.frame_outputs import FrameOutputs
from clipseg_model.prompts import Prompt
from clipseg_model.runtime.devices import Device
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_ros.images.conversion import array_to_image, image_to_rgb
from clipseg_ros.outputs.result import COMPRESSED_OUTPUTS, IMAGE_OUTPUTS
from clipseg_ros.outputs.things import ThingTracker
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.segment.memory_relief import MemoryRelief, stream_on_gpu
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import FrameRequest, SegmentationPipeline

HEIGHT, WIDTH = 48, 64
ALL = (*IMAGE_OUTPUTS, 'segments')
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
SETTINGS = Settings()
PROMPTS = PromptSet().replace([PromptRequest(Prompt(text)) for text in ('mug', 'bowl')])


def make(outputs: FakeOutputs, streamed: Any = None) -> tuple[SegmentationPipeline, CountingModel]:
    model = CountingModel()
    fakes: tuple[Any, Any] = (model, outputs)
    clock: Any = SimpleNamespace(now=lambda: Time(nanoseconds=5_000_000_000))
    memory = MemoryRelief(fakes[0], streamed, print)
    return SegmentationPipeline(memory, fakes[1], clock), model


def request(message: Image) -> FrameRequest:
    return FrameRequest.of(message, image_to_rgb(message), PROMPTS, SETTINGS)


def run(pipeline: SegmentationPipeline, message: Image) -> None:
    pipeline.finish(pipeline.publish(pipeline.segment(request(message))), SETTINGS)


@pytest.mark.parametrize(
    ('subscribed', 'order'),
    [
        (
            ALL,
            ['mask', 'labels', 'confidence', 'segments', 'labels/color', 'overlay', 'probability'],
        ),
        (('labels', 'mask'), ['mask', 'labels']),
        (('overlay',), ['overlay']),
        (('labels/color',), ['labels/color']),
        (('labels/compressed',), ['labels/compressed']),
        (('mask/compressed',), ['mask/compressed']),
        (('overlay/compressed',), ['overlay/compressed']),
        (('overlay/compressed', 'overlay'), ['overlay', 'overlay/compressed']),
        (tuple(COMPRESSED_OUTPUTS), ['labels/compressed', 'mask/compressed', 'overlay/compressed']),
        (('probability',), ['probability']),
        (('segments',), ['segments']),
    ],
)
def test_what_nobody_subscribes_to_is_not_made(subscribed: Sequence[str], order: list[str]) -> None:
    outputs = FakeOutputs(*subscribed)
    pipeline, model = make(outputs)
    run(pipeline, array_to_image(RGB, 'rgb8', Header()))
    assert outputs.published == order
    drawn = {name.removesuffix('/compressed') if 'overlay' in name else name for name in order}
    assert sorted(outputs.opened) == sorted(name for name in drawn if name in IMAGE_OUTPUTS)
    assert len(model.images) == 1
    assert all(pixels.any() for pixels in outputs.pixels.values())


@pytest.mark.parametrize(
    ('subscribed', 'computed'),
    [
        (ALL, {'mask', 'labels', 'confidence', 'probability'}),
        (('mask',), {'mask'}),
        (('overlay', 'mask'), {'mask', 'labels'}),
        (('labels/color',), {'labels'}),
        (('segments',), set()),
        (('mask/compressed',), {'mask'}),
        (('overlay/compressed', 'labels/compressed'), {'labels'}),
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

    monkeypatch.setattr(result_module, 'FrameOutputs', Spy)
    pipeline, _ = make(FakeOutputs(*subscribed))
    run(pipeline, array_to_image(RGB, 'rgb8', Header()))
    assert made == [computed]


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_one_call_a_frame_and_no_copy_of_what_is_rgb(encoding: str) -> None:
    pipeline, model = make(FakeOutputs('mask', 'labels'))
    for count in range(1, 4):
        message = array_to_image(RGB, 'rgb8', Header())
        message.encoding = encoding
        run(pipeline, message)
        assert len(model.images) == count
        memory = np.frombuffer(message.data, np.uint8)
        assert np.shares_memory(model.images[-1], memory) == (encoding == 'rgb8')


def test_compressed_copies_are_of_the_same_pixels() -> None:
    outputs = FakeOutputs('mask', 'labels', 'overlay', *COMPRESSED_OUTPUTS)
    pipeline, _ = make(outputs)
    settings = replace(SETTINGS, outputs=replace(SETTINGS.outputs, jpeg_quality=33))
    message = array_to_image(RGB, 'rgb8', Header())
    asked = FrameRequest.of(message, image_to_rgb(message), PROMPTS, settings)
    pipeline.finish(pipeline.publish(pipeline.segment(asked)), settings)
    for copy, name in COMPRESSED_OUTPUTS.items():
        np.testing.assert_array_equal(outputs.pixels[copy], outputs.pixels[name])
    assert outputs.quality == 33
    assert outputs.opened.count('overlay') == 1, 'drawn once for both'


def test_instances_keep_their_ids_and_go_with_the_result() -> None:
    outputs = FakeOutputs('instances', 'detections_3d')
    pipeline, _ = make(outputs)
    seen = []
    for _ in range(3):
        message = array_to_image(RGB, 'rgb8', Header())
        settings = replace(SETTINGS, detection_min_area=5)
        asked = FrameRequest.of(message, image_to_rgb(message), PROMPTS, settings)
        result = pipeline.publish(pipeline.segment(asked))
        seen.append([(thing.id, thing.prompt.id) for thing in result.things])
        labels, pixels = result.pixels.labels(), outputs.pixels['instances']
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels > 0, labels > 0)
        for thing in result.things:
            assert set(labels[pixels == thing.id]) <= {thing.prompt.id}
    assert seen[0] == [(1, 1), (2, 2)]
    assert seen[1] == seen[2] == seen[0]


def test_what_forgets_things() -> None:
    pipeline, _ = make(FakeOutputs('instances'))

    def seen(rgb: NDArray[np.uint8], second: float, **changed: Any) -> set[int]:
        message = array_to_image(rgb, 'rgb8', Header())
        message.header.stamp.sec = int(second)
        message.header.stamp.nanosec = round(second % 1 * 1e9)
        settings = replace(SETTINGS, detection_min_area=5, **changed)
        asked = FrameRequest.of(message, image_to_rgb(message), PROMPTS, settings)
        return {thing.id for thing in pipeline.publish(pipeline.segment(asked)).things}

    assert seen(RGB, 10.0) == seen(RGB, 10.5) == {1, 2}
    pipeline.forget_things()
    assert seen(RGB, 10.6) == seen(RGB, 10.7) == {3, 4}, 'as the images were forgotten'
    assert seen(RGB, 13.0) == {5, 6}, 'a gap'
    assert seen(RGB[:40], 13.1) == {7, 8}, 'another size'
    assert seen(RGB[:40], 13.2, roi=(0, 0, 60, 39)) == {9, 10}, 'another region'


def test_nobody_looks_for_things_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    def update(*_: Any) -> Any:
        raise AssertionError('not wanted')

    monkeypatch.setattr(ThingTracker, 'update', update)
    pipeline, _ = make(FakeOutputs('mask', 'labels', 'segments'))
    run(pipeline, array_to_image(RGB, 'rgb8', Header()))


def test_age_is_from_the_stamp_to_the_first_output() -> None:
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 4, 750_000_000
    pipeline, _ = make(FakeOutputs('mask'))
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
    outputs, streamed = FakeOutputs('probability'), Streamed()
    pipeline, model = make(outputs, streamed)
    asked = request(array_to_image(RGB, 'rgb8', Header()))
    frames = [pipeline.segment(asked) for _ in range(2)]
    assert streamed.log == ['start 0', 'start 1']
    for number, frame in enumerate(frames):
        pipeline.finish(pipeline.publish(frame), SETTINGS)
        assert streamed.log[-1] == f'wait for {number}'
        expected = 1 / (1 + np.exp(-1.0 - number))
        np.testing.assert_allclose(outputs.pixels['probability'], expected, rtol=1e-6)
        assert pipeline.model_seconds > 0
    assert model.images == []


def test_frames_are_under_way_together_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = CountingModel()
    made: list[Any] = []
    monkeypatch.setattr(memory_relief_module, 'StreamedSegmenter', made.append)
    assert stream_on_gpu(model) is None
    assert made == []
    model.device, model.runtime.streams = Device('cuda', 0), False
    assert stream_on_gpu(model) is None
    model.runtime.streams = True
    stream_on_gpu(model)
    assert made == [model]
