"""The turn of one-shot requests at the model: the camera's rate stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pipeline_fakes import CountingModel, FakeOutputs
from rclpy.time import Time
from ros_peers import wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import Segmentation
from clipseg_ros.errors import OnceError
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.outputs.once import OnceRequest
from clipseg_ros.prompts.set import ActivePrompt, PromptSet
from clipseg_ros.segment.frame_worker import FrameWorker
from clipseg_ros.segment.memory_relief import MemoryRelief
from clipseg_ros.segment.once import OneShot, Pace
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import FrameRequest, SegmentationPipeline
from training.benchmarks.node_peers.stand_in import StandIn

PROMPTS = (ActivePrompt(1, Prompt('mug')),)
CALL = 0.02  # Seconds of the model.


@pytest.mark.parametrize('share', [0.09, 0.5])
def test_pace_keeps_the_share(share: float) -> None:
    now, taken = 100.0, 0.0
    pace = Pace(share, lambda: now)
    assert pace.seconds_left() <= 0, 'the first need not wait'
    for seconds in np.random.default_rng(0).uniform(0.01, 0.3, 200):
        now += max(0.0, pace.seconds_left()) + seconds
        pace.spend(seconds)
        taken += seconds
    assert taken / (now - 100.0) <= share * 1.02
    assert taken / (now - 100.0) > share * 0.9


class Stream:
    """A stream whose model takes its time, and counts."""

    def __init__(self, wanted: bool) -> None:
        self.wanted, self.frames, self.calls = wanted, 0, 0
        self.together = threading.Lock()
        self.settings = Settings()
        self.newest = SimpleNamespace(message=None)
        self.faults = SimpleNamespace(newest='')
        self.depth = SimpleNamespace(unavailable=lambda: 'there is none', partners=lambda stamp: {})
        self.pipeline = SimpleNamespace(segment_once=self.segment_once)
        self.worker: Any = FrameWorker(self.process, lambda found: found, lambda _: None, print)
        self.worker.start()

    def model(self) -> None:
        assert self.together.acquire(blocking=False), 'two at the model at once'
        time.sleep(CALL)
        self.together.release()

    def process(self, frame: Any) -> Any:
        self.model()
        self.frames += 1
        return None

    def segment_once(self, request: FrameRequest) -> Segmentation:
        self.model()
        self.calls += 1
        return StandIn(0.0).segment(request.rgb, [entry.prompt for entry in request.prompts])

    def needs_model(self, idle: float) -> bool:
        return self.wanted


@pytest.fixture
def streams() -> Iterator[list[Stream]]:
    made: list[Stream] = []
    yield made
    for stream in made:
        assert stream.worker is None or stream.worker.stop()


def one_shot(stream: Any, rest: str = '') -> OneShot:
    return OneShot(lambda: stream, lambda: rest, PromptSet(), lambda prompts: None)


def request(wait: float = 5.0, image: Any = None) -> OnceRequest:
    given = image or array_to_image(np.zeros((8, 8, 3), np.uint8), 'rgb8', Header())
    until = time.monotonic() + wait
    return OnceRequest(given, None, None, PROMPTS, False, wait, until, lambda: None)


def rate(stream: Stream, seconds: float) -> float:
    """Frames a second of a camera that is faster than the model."""
    before, end = stream.frames, time.monotonic() + seconds
    while time.monotonic() < end:
        stream.worker.put(object())
        time.sleep(0.002)
    return (stream.frames - before) / seconds


def test_the_camera_keeps_its_rate_under_a_flood(streams: list[Stream]) -> None:
    stream = Stream(wanted=True)
    streams.append(stream)
    shots, over = one_shot(stream), threading.Event()

    def flood() -> int:
        answered = 0
        while not over.is_set():
            assert shots.answer(request(30.0)).result.header is not None
            answered += 1
        return answered

    alone = rate(stream, 2.0)
    with ThreadPoolExecutor(4) as pool:
        floods = [pool.submit(flood) for _ in range(4)]
        beside = rate(stream, 4.0)
        over.set()
        # So that those in line are served at once.
        stream.wanted = False
    assert sum(one.result() for one in floods) >= 8
    assert stream.calls >= 8
    assert beside >= 0.9 * alone * 0.97, 'of which 3 % for the noise of the clock'


def test_nobody_waits_for_a_camera_that_does_not_need_the_model(streams: list[Stream]) -> None:
    stream = Stream(wanted=False)
    streams.append(stream)
    shots = one_shot(stream)
    started = time.monotonic()
    for _ in range(10):
        shots.answer(request())
    assert time.monotonic() - started < 10 * CALL + 1.0


def test_who_waits_too_long_hears_of_it_and_leaves_the_line(streams: list[Stream]) -> None:
    stream = Stream(wanted=True)
    streams.append(stream)
    shots = one_shot(stream)
    shots._pace.spend(1000.0)
    with pytest.raises(OnceError, match=r'the model was not free within 0\.1 s'):
        shots.answer(request(0.1))
    stream.wanted = False
    assert shots.answer(request()).result.prompts == PROMPTS


def test_who_waits_hears_that_the_node_stops(streams: list[Stream]) -> None:
    stream = Stream(wanted=True)
    streams.append(stream)
    shots = one_shot(stream)
    shots._pace.spend(1000.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shots.answer, request(60.0))
        time.sleep(0.1)
        worker, stream.worker = stream.worker, None
        worker.stop()
        with pytest.raises(OnceError, match='not active'):
            waiting.result(5)
    with pytest.raises(OnceError, match='inactive: nothing is published'):
        one_shot(None, 'inactive: nothing is published').answer(request())


def test_what_the_model_raises_is_of_that_request_alone(streams: list[Stream]) -> None:
    stream = Stream(wanted=False)
    streams.append(stream)

    def fail(_: Any) -> Any:
        raise ValueError('this one')

    good, stream.pipeline.segment_once = stream.pipeline.segment_once, fail
    shots = one_shot(stream)
    with pytest.raises(ValueError, match='this one'):
        shots.answer(request())
    stream.pipeline.segment_once = good
    shots.answer(request())
    stream.worker.put(object())
    wait_until(lambda: stream.frames == 1)


def test_an_image_by_itself_takes_nothing_from_the_stream_and_leaves_nothing() -> None:
    model: Any = CountingModel()
    clock: Any = SimpleNamespace(now=lambda: Time(nanoseconds=0))
    outputs: Any = FakeOutputs('mask')

    def pipeline_of() -> SegmentationPipeline:
        return SegmentationPipeline(MemoryRelief(model, None, print), outputs, clock)

    settings = Settings(smoothing=1.0, smoothing_reset=1.0, reuse_below=5.0)
    random = np.random.default_rng(0)

    def frame(number: int) -> FrameRequest:
        rgb = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image: Image = array_to_image(rgb, 'rgb8', Header())
        image.header.stamp.sec = number
        return FrameRequest.of(image, rgb, PROMPTS, settings)

    frames = [frame(number) for number in range(4)]
    alone, disturbed = pipeline_of(), pipeline_of()
    first = pipeline_of().segment_once(frames[3])
    for one in frames[:3]:
        answers = [p.publish(p.segment(one)).segmentation for p in (alone, disturbed)]
        again = disturbed.segment_once(frames[3])
        np.testing.assert_array_equal(again.results[0].logits, first.results[0].logits)
        np.testing.assert_array_equal(answers[0].results[0].logits, answers[1].results[0].logits)
