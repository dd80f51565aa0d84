"""Prompts that change while the model or a publisher is at work on a frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rclpy.clock import Clock
from ros_peers import picture
from std_msgs.msg import Header

from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from clipseg_ros.images.conversion import array_to_image, image_to_rgb
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.prompts.text import read_prompts
from clipseg_ros.segment.memory_relief import MemoryRelief
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import FrameRequest, SegmentationPipeline, StartedFrame


class Outputs:
    """Stands in for the publishers: keeps labels, and the names and ids of segments."""

    def __init__(self) -> None:
        self.labels = np.zeros((0, 0), np.uint8)
        self.segments: list[tuple[int, str, str]] = []

    def wanted(self) -> list[str]:
        return ['labels', 'segments']

    def open_image(self, name: str, result: FrameResult) -> NDArray[Any]:
        self.labels = np.zeros(result.rgb.shape[:2], np.uint8)
        return self.labels

    def publish_image(self, name: str) -> None:
        assert name == 'labels'

    def segment_array(self, result: FrameResult) -> list[tuple[int, str, str]]:
        pairs = zip(result.prompts, result.segmentation.results, strict=True)
        return [(entry.id, entry.name, found.prompt.label) for entry, found in pairs]

    def publish(self, name: str, message: list[tuple[int, str, str]]) -> None:
        assert name == 'segments'
        self.segments = message


@pytest.fixture(scope='module')
def segmenter(tiny_model: Path) -> Segmenter:
    return create_model(tiny_model, 'cpu')


class Rig:
    """A pipeline with prompts that can be changed."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.prompts, self.outputs = PromptSet(), Outputs()
        outputs: Any = self.outputs
        self.pipeline = SegmentationPipeline(MemoryRelief(segmenter, None, print), outputs, Clock())
        self.message = array_to_image(picture(120, 160, seed=5), 'rgb8', Header())

    def segment(self) -> StartedFrame:
        settings = Settings()
        rgb = image_to_rgb(self.message)
        request = FrameRequest.of(self.message, rgb, self.prompts.enabled, settings)
        return self.pipeline.segment(request)

    def ask(self, text: str) -> None:
        self.prompts.replace([PromptRequest(prompt) for prompt in read_prompts(text)])


def while_segmenting(
    segmenter: Segmenter, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = segmenter.segment

    def segment(*args: Any, **options: Any) -> Any:
        act()
        return plain(*args, **options)

    monkeypatch.setattr(segmenter, 'segment', segment)


def test_a_frame_is_answered_by_the_prompts_that_it_began_with(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(segmenter)
    rig.ask('the mug; red bowl')
    while_segmenting(segmenter, lambda: rig.ask('red bowl; a chair; blue mug'), monkeypatch)
    rig.pipeline.publish(rig.segment())
    assert rig.outputs.segments == [(1, 'the mug', 'the mug'), (2, 'red bowl', 'red bowl')]
    assert set(np.unique(rig.outputs.labels)) == {0, 1, 2}
    rig.pipeline.publish(rig.segment())
    assert [name for _, name, _ in rig.outputs.segments] == ['red bowl', 'a chair', 'blue mug']
    assert 1 not in np.unique(rig.outputs.labels)


def test_a_change_between_the_model_and_the_publisher(segmenter: Segmenter) -> None:
    rig = Rig(segmenter)
    rig.ask('the mug')
    frame = rig.segment()
    rig.ask('red bowl')
    rig.pipeline.publish(frame)
    assert rig.outputs.segments == [(1, 'the mug', 'the mug')]
    assert set(np.unique(rig.outputs.labels)) == {0, 1}


def test_negative_prompts_are_not_reported(segmenter: Segmenter) -> None:
    rig = Rig(segmenter)
    rig.ask('!the mug; red bowl')
    rig.pipeline.publish(rig.segment())
    assert rig.outputs.segments == [(2, 'red bowl', 'red bowl')]
    assert 1 not in np.unique(rig.outputs.labels)
