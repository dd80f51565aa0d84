"""Prompts that change while the model or a publisher is at work on a frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ros_peers import picture
from std_msgs.msg import Header

from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.prompts.text import read_prompts
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import SegmentationPipeline


class Outputs:
    """Stands in for the publishers: keeps labels, and the names and ids of segments."""

    def __init__(self) -> None:
        self.labels = np.zeros((0, 0), np.uint8)
        self.segments: list[tuple[int, str, str]] = []

    def wanted(self) -> list[str]:
        return ['labels', 'segments']

    def open_image(self, name: str, height: int, width: int, header: Header) -> NDArray[Any]:
        self.labels = np.zeros((height, width), np.uint8)
        return self.labels

    def publish_image(self, name: str) -> None:
        assert name == 'labels'

    def publish_segments(self, segmentation: Any, prompts: Any, header: Header) -> None:
        pairs = zip(prompts, segmentation.results, strict=True)
        self.segments = [(entry.id, entry.name, result.prompt.label) for entry, result in pairs]


@pytest.fixture(scope='module')
def segmenter(tiny_model: Path) -> Segmenter:
    return create_model(tiny_model, 'cpu')


class Rig:
    """A pipeline with prompts that can be changed."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.prompts, self.outputs = PromptSet(), Outputs()
        settings = Settings()
        outputs: Any = self.outputs
        self.pipeline = SegmentationPipeline(
            segmenter, self.prompts, outputs, lambda: settings, lambda: 0
        )
        self.message = array_to_image(picture(120, 160, seed=5), 'rgb8', Header())

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
    found = rig.pipeline.process(rig.message)
    assert found is not None
    rig.pipeline.publish(found)
    assert rig.outputs.segments == [(1, 'the mug', 'the mug'), (2, 'red bowl', 'red bowl')]
    assert set(np.unique(rig.outputs.labels)) == {0, 1, 2}
    found = rig.pipeline.process(rig.message)
    assert found is not None
    rig.pipeline.publish(found)
    assert [name for _, name, _ in rig.outputs.segments] == ['red bowl', 'a chair', 'blue mug']
    assert 1 not in np.unique(rig.outputs.labels)


def test_a_change_between_the_model_and_the_publisher(segmenter: Segmenter) -> None:
    rig = Rig(segmenter)
    rig.ask('the mug')
    found = rig.pipeline.process(rig.message)
    assert found is not None
    rig.ask('red bowl')
    rig.pipeline.publish(found)
    assert rig.outputs.segments == [(1, 'the mug', 'the mug')]
    assert set(np.unique(rig.outputs.labels)) == {0, 1}


def test_negative_prompts_are_not_reported(segmenter: Segmenter) -> None:
    rig = Rig(segmenter)
    rig.ask('!the mug; red bowl')
    found = rig.pipeline.process(rig.message)
    assert found is not None
    rig.pipeline.publish(found)
    assert rig.outputs.segments == [(2, 'red bowl', 'red bowl')]
    assert 1 not in np.unique(rig.outputs.labels)


def test_negative_prompts_alone_ask_for_nothing(segmenter: Segmenter) -> None:
    rig = Rig(segmenter)
    rig.ask('!the mug')
    assert rig.pipeline.process(rig.message) is None
