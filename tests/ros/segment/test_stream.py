"""Which images of a configured node are segmented, and what becomes of their results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from pipeline_fakes import CountingModel, FakeOutputs
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from ros_peers import picture
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.backend import ImageBackend
from clipseg_ros.images.conversion import array_to_image, image_to_rgb
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.prompts.text import read_prompts
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.segment import subscription as subscription_module
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import SegmentationPipeline
from clipseg_ros.segment.stream import CameraStream

MESSAGE = array_to_image(picture(48, 64), 'rgb8', Header())


class Rig:
    """A stream whose model and publishers are stand-ins."""

    def __init__(self, node: LifecycleNode) -> None:
        self.prompts, self.model = PromptSet(), CountingModel()
        self.read: list[Image] = []
        self.masks = SimpleNamespace(asked=False, needs_images=False, notice=lambda: None)
        model: Any = self.model
        masks: Any = self.masks
        log = ThrottledLog(node.get_logger())
        backend = ImageBackend(self.to_rgb)
        self.stream = CameraStream(node, Settings(), model, backend, self.prompts, masks, None, log)
        self.subscribe()
        self.ask('mug; bowl')

    def to_rgb(self, message: Image, max_pixels: int) -> Any:
        self.read.append(message)
        return image_to_rgb(message, max_pixels)

    def ask(self, text: str) -> None:
        self.prompts.replace([PromptRequest(prompt) for prompt in read_prompts(text)])

    def subscribe(self, *names: str) -> None:
        """Has somebody subscribe to outputs, and to no others."""
        stream, outputs = self.stream, FakeOutputs(*names)
        fake: Any = outputs
        stream.outputs = fake
        stream.pipeline = SegmentationPipeline(stream.pipeline.memory, fake, stream.pipeline._clock)
        self.outputs = outputs


@pytest.fixture
def rig(domain: int) -> Iterator[Rig]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = LifecycleNode('stream', context=context)
    made = Rig(node)
    yield made
    made.stream.close()
    node.destroy_node()
    context.try_shutdown()


def test_without_a_subscriber_not_even_the_image_is_read(rig: Rig) -> None:
    assert rig.stream.segment(MESSAGE) is None
    assert rig.read == []
    assert rig.model.images == []


def test_an_image_that_is_too_large_is_refused_and_counted(rig: Rig) -> None:
    rig.subscribe('mask')
    rig.stream.set_parameters(replace(rig.stream.settings, max_pixels=48 * 64 - 1))
    with pytest.raises(ImageConversionError, match='64 × 48 pixels, and at most 3071') as caught:
        rig.stream.segment(MESSAGE)
    rig.stream.faults.add(caught.value)
    assert rig.stream.faults.refused == 1
    assert 'max_pixels' in rig.stream.faults.newest
    rig.stream.set_parameters(replace(rig.stream.settings, max_pixels=48 * 64))
    assert rig.stream.segment(MESSAGE) is not None


def test_who_asks_for_masks_is_enough(rig: Rig) -> None:
    rig.masks.asked = True
    frame = rig.stream.segment(MESSAGE)
    assert frame is not None
    assert rig.stream.publish(frame) is rig.stream.newest.result
    assert rig.outputs.published == []


def test_negative_prompts_alone_ask_for_nothing(rig: Rig) -> None:
    rig.subscribe('mask')
    rig.ask('!mug')
    assert rig.stream.segment(MESSAGE) is None
    assert rig.model.images == []


def test_a_frame_under_way_is_kept_back_once_all_prompts_are_gone(rig: Rig) -> None:
    rig.subscribe('mask', 'overlay')
    frame = rig.stream.segment(MESSAGE)
    assert frame is not None
    rig.ask('')
    assert rig.stream.publish(frame) is None
    assert rig.outputs.opened == rig.outputs.published == []
    assert rig.stream.newest.result is None


def test_the_mask_comes_first_then_depth_and_services_then_the_rest(rig: Rig) -> None:
    rig.subscribe('mask', 'overlay')
    order = rig.outputs.published
    rig.masks.notice = lambda: order.append('service')
    depth: Any = SimpleNamespace(
        takes_segments=False,
        expect=lambda message: order.append('announced'),
        put=lambda result: order.append('depth'),
    )
    rig.stream.depth = depth
    frame = rig.stream.segment(MESSAGE)
    assert frame is not None
    result = rig.stream.publish(frame)
    assert result is not None
    rig.stream.finish(result)
    assert order == ['announced', 'mask', 'service', 'depth', 'overlay']
    assert result.header is MESSAGE.header
    assert np.shares_memory(result.rgb, np.frombuffer(MESSAGE.data, np.uint8))


def test_the_newest_image_is_taken_back_once_if_other_prompts_are_asked_for(rig: Rig) -> None:
    newest = rig.stream.newest
    newest.put(MESSAGE)
    assert newest.take_back(rig.prompts.reported) is None, 'it is in work'
    rig.stream.segment(MESSAGE)
    assert newest.take_back(rig.prompts.reported) is MESSAGE, 'nobody subscribed'
    assert newest.take_back(rig.prompts.reported) is None, 'once'
    rig.subscribe('mask')
    frame = rig.stream.segment(MESSAGE)
    assert frame is not None
    rig.stream.publish(frame)
    assert newest.take_back(rig.prompts.reported) is None, 'it was asked for these prompts'
    rig.ask('a chair')
    assert newest.take_back(rig.prompts.reported) is MESSAGE


def test_a_fault_ends_with_its_cause(rig: Rig) -> None:
    """Where nobody listens any more no image is looked at; a parameter may have been the cause."""
    faults = rig.stream.faults
    faults.add(ImageConversionError('encoding', 'rgb9'))
    assert faults.newest == 'bad image: rgb9'
    assert rig.stream.segment(MESSAGE) is None
    assert faults.newest == ''
    rig.subscribe('mask')
    for name in ('roi', 'template', 'max_rate'):
        faults.add(ImageConversionError('encoding', 'rgb9'))
        rig.stream.set_parameters(rig.stream.settings)
        assert faults.newest, 'nothing has changed'
        changed: dict[str, Any] = {'roi': (0, 0, 8, 8), 'template': 'fixed', 'max_rate': 5.0}
        rig.stream.set_parameters(replace(rig.stream.settings, **{name: changed[name]}))
        assert faults.newest == '', name
    faults.add(ImageConversionError('encoding', 'rgb9'))
    assert rig.stream.segment(MESSAGE) is not None
    assert faults.newest == ''


def test_the_fault_of_the_last_image_is_none_once_images_have_stopped(rig: Rig) -> None:
    stream, worker = rig.stream, SimpleNamespace(idle=1.0)
    worker.statistics = lambda: worker
    fake: Any = worker
    stream.worker = fake
    assert stream.fault() == ''
    stream.faults.add(ImageConversionError('encoding', 'rgb9'))
    assert stream.fault() == 'bad image: rgb9'
    worker.idle = 23.0
    assert stream.fault() == 'no image has come for 23 s: /diagnostics says why'
    worker.idle = 0.0
    assert stream.fault() == 'bad image: rgb9', 'they come again, and are as bad'
    stream.faults.clear()
    assert stream.fault() == ''
    stream.worker = None


def test_disabled_it_does_not_receive_and_forgets_what_it_saw(rig: Rig) -> None:
    stream = rig.stream
    assert stream.images.is_open, 'somebody may come'
    rig.subscribe('mask')
    stream.newest.put(MESSAGE)
    stream.faults.add(ImageConversionError('encoding', 'rgb9'))
    stream.enabled = False
    assert not stream.images.is_open
    assert stream.newest.message is None
    assert stream.faults.newest == ''
    stream.segment_again()
    assert not stream.images.is_open, 'disabled, whoever asks'
    stream.enabled = True
    assert stream.images.is_open, 'at once'


def test_who_asks_for_masks_has_images_received(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription_module, '_LINGER', 0.0)
    rig.stream.images.update()
    assert not rig.stream.images.is_open
    rig.masks.asked = rig.masks.needs_images = True
    rig.stream.segment_again()
    assert rig.stream.images.is_open


def test_losses_go_on_over_a_pause(rig: Rig) -> None:
    stream = rig.stream
    stream.losses.lose(7)
    stream.lost.see({'publication_sequence_number': 5}, 1)
    stream.enabled = False
    stream.enabled = True
    assert stream.losses.share() is None
    stream.losses.lose(2)  # Of the new subscription.
    assert stream.losses.total == 9
    stream.lost.see({'publication_sequence_number': 90}, 1)
    assert stream.lost.count == 0, 'nobody listened meanwhile'


def test_memory_is_given_back_when_nobody_listens_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def note(name: str) -> Any:
        return lambda: done.append(name)

    monkeypatch.setattr('clipseg_ros.segment.stream.give_back_memory', note('all'))
    stream: Any = CameraStream.__new__(CameraStream)
    stream.newest = SimpleNamespace(forget=note('newest'))
    stream.faults = SimpleNamespace(clear=note('faults'))
    runtime = SimpleNamespace(release_prompt_towers=note('towers'))
    stream.segmenter = SimpleNamespace(runtime=runtime, release_caches=note('caches'))
    stream.pipeline = SimpleNamespace(release_scratch=note('scratch'), forget_things=note('things'))
    stream.worker = SimpleNamespace(run=lambda act: act())
    stream._forget_images()
    assert done == ['newest', 'things', 'faults', 'caches', 'towers', 'scratch', 'all']
