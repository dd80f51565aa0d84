"""Where memory runs out in the middle of a frame: less is asked for at once, on the same device."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from ros_peers import NodeProcess, Peer, picture, running_node, until_answered, wait_until
from sensor_msgs.msg import Image

import clipseg_ros.segment.memory_relief as memory_relief_module
from clipseg_model.errors import DeviceMemoryError
from clipseg_model.prompts import Prompt, parse_prompts
from clipseg_model.registry import create_model
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_ros.ros.qos import image_output
from clipseg_ros.segment.memory_relief import MemoryRelief

RGB = picture(120, 160, seed=3)
PROMPTS = parse_prompts('the mug; red bowl; a chair; !blue mug; red chair')
REFUSALS: dict[str, Callable[[], Exception]] = {
    'CUDA': lambda: torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB.'),
    'Python': MemoryError,
    'oneDNN': lambda: RuntimeError('could not create a primitive'),
}


class ShortMemory:
    """Lets a model run out of memory where more prompts are decoded at once than it allows."""

    def __init__(self, segmenter: Segmenter, most: int, refuse: Callable[[], Exception]) -> None:
        self.most, self.calls = most, 0
        self.held: list[weakref.ref[torch.Tensor]] = []
        self.alive_at_call: list[int] = []
        model: Any = segmenter.model
        plain = model.decode

        def decode(features: Any, prompts: Any) -> Any:
            self.calls += 1
            self.alive_at_call.append(sum(reference() is not None for reference in self.held))
            taken = torch.zeros(1000)
            self.held.append(weakref.ref(taken))
            if prompts.condition.shape[-2] > self.most:
                raise refuse()
            return plain(features, prompts)

        model.decode = decode


@pytest.fixture
def segmenter(tiny_model: Path) -> Segmenter:
    return create_model(tiny_model, 'cpu')


def relief_of(segmenter: Segmenter, streamed: Any = None) -> tuple[MemoryRelief, list[str]]:
    told: list[str] = []
    return MemoryRelief(segmenter, streamed, told.append), told


def same(one: Any, other: Segmentation) -> bool:
    assert isinstance(one, Segmentation)
    pairs = zip(one.results, other.results, strict=True)
    return all(np.allclose(a.logits, b.logits, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize('refuse', REFUSALS.values(), ids=REFUSALS.keys())
def test_half_as_many_prompts_give_the_same_answer(
    segmenter: Segmenter, refuse: Callable[[], Exception]
) -> None:
    expected = segmenter.segment(RGB, PROMPTS)
    memory = ShortMemory(segmenter, 2, refuse)
    relief, told = relief_of(segmenter)
    assert relief.warning() == ''
    assert same(relief.segment(RGB, PROMPTS, None, SegmentSettings()), expected)
    assert memory.calls == 1 + 3, 'all at once, then 2 + 2 + 1'
    assert relief.at_once == 2
    [line] = told
    assert 'with 2 of 5 prompt(s) at a time' in line
    assert 'on cpu' in line
    assert 'not enough memory for eager fp32 on cpu' in line
    assert '2 at a time' in relief.warning()
    assert segmenter.device.type == 'cpu'
    # The next frame begins with what worked.
    assert same(relief.segment(RGB, PROMPTS, None, SegmentSettings()), expected)
    assert memory.calls == 4 + 3
    assert len(told) == 1


def test_what_the_first_try_held_is_free_before_the_second(segmenter: Segmenter) -> None:
    memory = ShortMemory(segmenter, 4, REFUSALS['CUDA'])
    relief, _ = relief_of(segmenter)
    gc.disable()
    try:
        relief.segment(RGB, PROMPTS, None, SegmentSettings())
    finally:
        gc.enable()
    assert memory.alive_at_call[:2] == [0, 0]


def test_twice_in_a_frame_is_an_error_and_the_next_frame_asks_for_less(
    segmenter: Segmenter,
) -> None:
    expected = segmenter.segment(RGB, PROMPTS)
    memory = ShortMemory(segmenter, 1, REFUSALS['CUDA'])
    relief, told = relief_of(segmenter)
    with pytest.raises(DeviceMemoryError, match='not enough memory for eager fp32 on cpu'):
        relief.segment(RGB, PROMPTS, None, SegmentSettings())
    assert relief.at_once == 2
    assert same(relief.segment(RGB, PROMPTS, None, SegmentSettings()), expected)
    assert relief.at_once == 1
    assert len(told) == 2
    memory.most = 0
    for _ in range(3):
        with pytest.raises(DeviceMemoryError):
            relief.segment(RGB, PROMPTS, None, SegmentSettings())
    assert relief.at_once == 1
    memory.most = 1
    assert same(relief.segment(RGB, PROMPTS, None, SegmentSettings()), expected), (
        'it goes on by itself'
    )


def test_after_a_while_all_are_tried_again(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = ShortMemory(segmenter, 2, REFUSALS['CUDA'])
    relief, _ = relief_of(segmenter)
    relief.segment(RGB, PROMPTS, None, SegmentSettings())
    memory.most = 99
    before = memory.calls
    relief.segment(RGB, PROMPTS, None, SegmentSettings())
    assert memory.calls == before + 3, 'not yet'
    assert relief.warning() != ''
    monkeypatch.setattr(memory_relief_module, 'PATIENCE', 0.0)
    assert relief.warning() == '', 'though no frame has come since'
    relief.segment(RGB, PROMPTS, None, SegmentSettings())
    assert memory.calls == before + 4
    assert relief.at_once is None
    assert relief.warning() == ''


def test_on_a_gpu_frames_are_under_way_one_at_a_time_then(segmenter: Segmenter) -> None:
    expected = segmenter.segment(RGB, PROMPTS)

    class Streamed:
        starts = 0

        def start(self, *_: Any) -> Any:
            self.starts += 1
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')

    streamed = Streamed()
    relief, _ = relief_of(segmenter, streamed)
    for _ in range(2):
        assert same(relief.segment(RGB, PROMPTS, None, SegmentSettings()), expected)
    assert streamed.starts == 1


def test_other_errors_pass(segmenter: Segmenter) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError('a bug')

    relief, told = relief_of(segmenter)
    segmenter.segment = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match='a bug'):
        relief.segment(RGB, [Prompt('mug')], None, SegmentSettings())
    assert told == []
    assert relief.at_once is None


@pytest.fixture(scope='module')
def limit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('memory') / 'limit'
    path.write_text('99')
    return path


@pytest.fixture(scope='module')
def short_node(domain: int, tiny_model: Path, limit: Path) -> Iterator[NodeProcess]:
    script = Path(__file__).parents[1] / 'processes' / 'short_memory_node.py'
    prompt = "prompt:='the mug; red bowl; a chair; red chair'"
    words = [str(limit), str(tiny_model), '--ros-args', '-r', '__ns:=/short', '-p', prompt]
    with running_node(str(script), script=words) as node:
        yield node


def test_the_node_lives_on_says_so_and_recovers(
    short_node: NodeProcess, limit: Path, peer: Peer
) -> None:
    labels = peer.collect(Image, '/short/clipseg/labels', image_output())
    diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
    publisher = peer.publisher(Image, '/short/image', image_output())
    wait_until(lambda: peer.node.count_publishers('/short/clipseg/labels'))

    def status() -> Any:
        own = [a.status[0] for a in list(diagnostics) if a.status[0].name.startswith('short/')]
        return own[-1] if own else None

    def said(level: bytes, words: str) -> Any:
        """Keeps the camera going until the diagnostics say so; returns their values."""

        def heard() -> bool:
            publisher.publish(peer.stamped(RGB))
            now = status()
            return now is not None and now.level == level and words in now.message

        wait_until(heard, 15, f'{words!r}; it is {status()}')
        return {item.key: item.value for item in status().values}

    def served() -> Image:
        [answer] = until_answered(publisher, peer.stamped(RGB), labels)
        assert isinstance(answer, Image)
        return answer

    assert said(b'\x00', 'the mug')['prompts_at_once'] == 'all'
    before = served()
    limit.write_text('2')
    values = said(b'\x01', 'memory on cpu is short')
    assert (values['prompts_at_once'], values['device']) == ('2', 'cpu')
    assert served().data == before.data
    assert short_node.count('out of memory: given back what was kept, trying again on cpu') == 1

    limit.write_text('0')
    values = said(b'\x02', 'image not segmented: There is not enough memory for eager fp32 on cpu')
    assert (values['state'], values['device']) == ('active', 'cpu')
    assert 'There is not enough memory' in values['last_error']
    bad = peer.stamped(RGB)
    publisher.publish(bad)
    limit.write_text('99')
    assert served().data == before.data
    said(b'\x01', 'memory on cpu is short')
    assert short_node.count('[ERROR]') <= 3, 'throttled'
    peer.node.destroy_publisher(publisher)
