"""Whatever arrives: one clear message, the node lives on, and the next good frame is served."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_peers import NodeProcess, Peer, picture, stamp_of, told_of_prompts, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String

from clipseg_ros.ros.qos import command_input, image_output


class Bench:
    """A camera, a listener and a prompter around the shared node."""

    def __init__(self, node: NodeProcess, peer: Peer) -> None:
        self.node, self.peer = node, peer
        self.masks = peer.collect(Image, '/clipseg/mask', image_output())
        self.labels = peer.collect(Image, '/clipseg/labels', image_output())
        self.diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 10)
        self.images = peer.publisher(Image, '/image', image_output())
        self.prompts = peer.publisher(String, '/clipseg/prompt', command_input())
        wait_until(lambda: peer.node.count_publishers('/clipseg/mask'))
        wait_until(self.serves)

    def serves(self) -> bool:
        """Whether a good image is answered."""
        image = self.peer.stamped(picture())
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            self.images.publish(image)
            time.sleep(0.03)
            if any(stamp_of(mask) == stamp_of(image) for mask in list(self.masks)):
                return True
        return False

    def prompt(self, text: str, expected: str) -> str:
        """Sends a prompt; returns the line that answers it."""
        since = len(self.node.lines)
        self.prompts.publish(String(data=text))
        return told_of_prompts(self.node, self.peer, '/clipseg', text, expected, since)


@pytest.fixture(scope='module')
def bench(segment: NodeProcess, peer: Peer) -> Bench:
    return Bench(segment, peer)


def changed(**fields: Any) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        for name, value in fields.items():
            setattr(image, name, value)

    return change


def truncated(image: Image) -> None:
    image.data = image.data[: len(image.data) // 2]


def floats(value: float) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        values = np.full((image.height, image.width), 0.5, np.float32)
        values[3, 4] = value
        image.encoding, image.step = '32FC1', 4 * image.width
        image.data = values.tobytes()

    return change


BAD_IMAGES: dict[str, tuple[Callable[[Image], None], str]] = {
    'truncated': (truncated, 'is truncated'),
    'no data': (changed(data=b''), '0 bytes of data'),
    'too much data': (changed(height=100), 'is mislabelled'),
    'wrong step': (changed(step=12), 'step 12 is too small'),
    'wrong width': (changed(width=4000), 'too small for 4000 pixels'),
    'wrong height': (changed(height=4000), '120 × 4000'.replace('120', '160')),
    'unknown encoding': (changed(encoding='h264'), "image encoding 'h264' is not known"),
    'no encoding': (changed(encoding=''), "image encoding '' is not known"),
    'zero width': (changed(width=0), '0 × 120 pixels is empty'),
    'zero size': (changed(width=0, height=0, step=0, data=b''), '0 × 0 pixels is empty'),
    'not a number': (floats(np.nan), 'NaN or infinite'),
    'infinite': (floats(np.inf), 'NaN or infinite'),
    'floats out of range': (floats(255.0), 'spans 0 to 1'),
}


@pytest.mark.parametrize('name', BAD_IMAGES)
def test_bad_images(bench: Bench, name: str) -> None:
    change, expected = BAD_IMAGES[name]
    since = len(bench.node.lines)
    # Other bad images of this kind may have been reported within the throttle's period, so the
    # message is looked for in the diagnostics, which every bad image reaches.
    image = bench.peer.stamped(picture())
    change(image)

    def reported() -> bool:
        bench.images.publish(image)
        time.sleep(0.05)
        return any(
            status.level == b'\x02' and expected in status.message
            for array in list(bench.diagnostics)[-2:]
            for status in array.status
        )

    wait_until(reported, 5, f'{expected!r} in the diagnostics')
    answers = [mask for mask in list(bench.masks) if stamp_of(mask) == stamp_of(image)]
    assert not answers, 'nothing was published for it'
    dropped = [line for line in bench.node.lines[since:] if 'image dropped' in line]
    assert len(dropped) <= 1, 'one message at most, though many such images came'
    assert bench.serves()
    wait_until(lambda: bench.diagnostics[-1].status[0].level == b'\x00', what='good again')


def test_a_stream_of_bad_images_is_one_line(bench: Bench) -> None:
    time.sleep(5.0)  # The throttle's period: what other tests caused has to be over.
    since = len(bench.node.lines)
    image = bench.peer.stamped(picture())
    image.encoding = 'nonsense'
    for _ in range(60):
        bench.images.publish(image)
        time.sleep(0.02)
    line = bench.node.wait_for('image dropped', since=since)
    assert "'nonsense' is not known; publish rgb8" in line
    assert '[WARN]' in line
    assert bench.node.count('image dropped', since) == 1
    assert bench.serves()


LONG = 'x' * 10_000
BAD_PROMPTS = {
    'ten thousand characters': (LONG, '10000 characters, and at most 1000'),
    'another script': ('красная кружка', 'no word of the prompt'),
    'emoji': ('🫖', 'no word of the prompt'),
    'one of several bad': ('the mug; 杯子', 'no word of the prompt'),
    '300 prompts': (';'.join(f'mug {n}' for n in range(300)), '254'),
    'name without phrase': ('grass:', '"name: phrase"'),
    'control characters': ('mug \x07', 'control characters'),
}


@pytest.mark.parametrize('name', BAD_PROMPTS)
def test_bad_prompts_change_nothing(bench: Bench, name: str) -> None:
    text, expected = BAD_PROMPTS[name]
    time.sleep(0.01)
    since = len(bench.node.lines)
    bench.prompts.publish(String(data=text))
    wait_until(lambda: bench.peer.get_parameter('/clipseg', 'prompt') == 'the mug; red bowl')
    result = bench.peer.set_parameter('/clipseg', 'prompt', text)
    assert not result.successful
    assert expected in result.reason
    assert len(result.reason) < 400, 'a message, not the prompt again'
    wait_until(
        lambda: (
            bench.node.count('prompt refused', since)
            or any(expected in line for line in bench.node.lines)
        ),
        what='a line that says so',
    )
    assert bench.peer.get_parameter('/clipseg', 'prompt') == 'the mug; red bowl'
    assert bench.serves()


@pytest.mark.parametrize('text', ['', '   ', ' ; \n ;'])
def test_empty_and_blank_prompts_stop(bench: Bench, text: str) -> None:
    bench.prompt(text, 'no prompt active')
    try:
        time.sleep(0.2)  # A mask may be on its way from the node to here.
        count = len(bench.masks)
        for _ in range(4):
            bench.images.publish(bench.peer.stamped(picture()))
            time.sleep(0.05)
        assert len(bench.masks) == count
    finally:
        bench.prompt('the mug; red bowl', '2 prompt(s) active')
    assert bench.serves()


def test_200_prompts_at_once(bench: Bench) -> None:
    text = ';'.join(f'thing {n}: {("red", "blue", "a")[n % 3]} mug {n}' for n in range(200))
    line = bench.prompt(text, '200 prompt(s) active')
    try:
        assert 'and 192 more' in line
        assert bench.serves()
        wait_until(lambda: bench.labels, what='labels')
        assert max(label.data[i] for label in bench.labels[-1:] for i in range(100)) < 255
    finally:
        bench.prompt('the mug; red bowl', '2 prompt(s) active')
    assert bench.serves()


def test_repeating_a_bad_prompt_is_one_line(bench: Bench) -> None:
    since = len(bench.node.lines)
    for _ in range(20):
        bench.prompts.publish(String(data='чашка'))
        time.sleep(0.01)
    bench.prompt('the mug; red bowl', '2 prompt(s) active')
    assert bench.node.count('no word of the prompt', since) <= 1
