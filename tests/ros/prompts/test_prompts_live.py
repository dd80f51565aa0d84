"""Prompts of every kind while the node runs, between processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from ros_peers import (
    NodeProcess,
    Peer,
    picture,
    ros_arguments,
    running_node,
    stamp_of,
    until_answered,
    wait_until,
    write_tiny_model,
)
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import String
from std_srvs.srv import Trigger

from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.video.steadying import Steadier, Steadying
from clipseg_ros.ros.qos import command_input, image_output

BOTH = 'the mug; red bowl'
RGB = picture(120, 160, seed=5)


class Bench:
    """A camera, a prompter and listeners around a node."""

    def __init__(self, node: NodeProcess, peer: Peer) -> None:
        self.node, self.peer = node, peer
        self.received = {
            name: peer.collect(Image, f'/live/clipseg/{name}', image_output())
            for name in ('labels', 'mask', 'probability')
        }
        self.images = peer.publisher(Image, '/live/image', image_output())
        commands = (
            ('prompt', String),
            ('prompt_image', Image),
            ('prompt_mask', Image),
            ('pick_point', Point),
            ('pick_box', RegionOfInterest),
        )
        self.commands = {
            name: peer.publisher(kind, f'/live/clipseg/{name}', command_input())
            for name, kind in commands
        }
        until_answered(self.images, peer.stamped(RGB), *self.received.values())

    def send(self, name: str, message: Any, expected: str) -> str:
        """Publishes on a topic of prompts; returns the line of the log that answers."""
        since = len(self.node.lines)
        self.commands[name].publish(message)
        return self.node.wait_for(expected, since=since)

    def prompt(self, text: str, expected: str = 'active') -> str:
        return self.send('prompt', String(data=text), expected)

    def show(self, rgb: NDArray[np.uint8] = RGB, at: float | None = None) -> dict[str, Any]:
        """Publishes one image once; returns the pixels of what answers it.

        Args:
            rgb: The image.
            at: Its stamp, seconds; now where None.
        """
        image = self.peer.stamped(rgb)
        if at is not None:
            image.header.stamp.sec = int(at)
            image.header.stamp.nanosec = round((at - int(at)) * 1e9)
        for messages in self.received.values():
            messages.clear()
        self.images.publish(image)

        def answers() -> dict[str, Image]:
            return {
                name: message
                for name, messages in self.received.items()
                for message in list(messages)
                if stamp_of(message) == stamp_of(image)
            }

        wait_until(lambda: len(answers()) == len(self.received), what='answers')
        return {
            name: np.frombuffer(
                message.data, np.float32 if message.encoding == '32FC1' else np.uint8
            ).reshape(message.height, message.width)
            for name, message in answers().items()
        }

    def set(self, **parameters: Any) -> None:
        for name, value in parameters.items():
            result = self.peer.set_parameter('/live/clipseg', name, value)
            assert result.successful, result.reason


@pytest.fixture(scope='module')
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('model') / 'tiny.safetensors'
    write_tiny_model(path, sees_pictures=True)
    return path


@pytest.fixture(scope='module')
def the_bench(tiny_model: Path, peer: Peer) -> Iterator[Bench]:
    with running_node(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': f"'{BOTH}'"},
        ['-r', '__ns:=/live'],
    ) as node:
        yield Bench(node, peer)


@pytest.fixture
def bench(the_bench: Bench) -> Iterator[Bench]:
    """The bench, which each test leaves as it found it."""
    yield the_bench
    the_bench.prompt('', 'no prompt active')
    the_bench.prompt(BOTH)


def probability_of(tiny_model: Path, prompts: list[Any], **options: Any) -> NDArray[np.float32]:
    segmenter = create_model(tiny_model, 'cpu')
    for name, value in options.items():
        setattr(segmenter, name, value)
    return segmenter.segment(RGB, prompts).probability()


def support(peer: Peer, stamp: int = 0) -> tuple[Image, Image, NDArray[np.uint8], NDArray[Any]]:
    """A support image and its mask, as messages of one stamp and as arrays."""
    rgb, mask = picture(60, 80, seed=9), np.zeros((60, 80), np.uint8)
    mask[15:30, 20:40] = 1
    image, marked = peer.stamped(rgb), peer.stamped(mask, 'mono8')
    image.header.stamp.sec = marked.header.stamp.sec = stamp
    image.header.stamp.nanosec = marked.header.stamp.nanosec = 0
    return image, marked, rgb, mask


def close(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.allclose(one, other, atol=1e-4))


def test_a_support_image_and_then_its_mask(bench: Bench, tiny_model: Path) -> None:
    image, marked, rgb, mask = support(bench.peer, stamp=5)
    line = bench.send('prompt_image', image, "'example' (picture)")
    assert "'the mug'" in line, 'the other prompts stay'
    bench.prompt('')
    bench.send('prompt_image', image, "'example' (picture)")
    alone = bench.show()['probability']
    assert close(alone, probability_of(tiny_model, [Prompt(image=rgb)]))
    bench.send('prompt_mask', marked, "'example' (picture)")
    masked = bench.show()['probability']
    assert close(masked, probability_of(tiny_model, [Prompt(image=rgb, mask=mask)]))
    assert not close(alone, masked)


def test_a_mask_and_then_its_support_image(bench: Bench, tiny_model: Path) -> None:
    image, marked, rgb, mask = support(bench.peer, stamp=6)
    bench.prompt('')
    bench.send('prompt_mask', marked, 'waits for its image')
    bench.send('prompt_image', image, "'example' (picture)")
    expected = probability_of(tiny_model, [Prompt(image=rgb, mask=mask)])
    assert close(bench.show()['probability'], expected)


def test_masks_that_do_not_fit_are_refused(bench: Bench, tiny_model: Path) -> None:
    image, marked, rgb, _ = support(bench.peer, stamp=7)
    bench.prompt('')
    bench.send('prompt_image', image, "'example' (picture)")
    for pixels, words in (
        (np.zeros((60, 80), np.uint8), 'the mask is empty'),
        (np.ones((61, 80), np.uint8), 'the mask is 80 px wide and 61 px high'),
    ):
        wrong = bench.peer.stamped(pixels, 'mono8')
        wrong.header.stamp = marked.header.stamp
        bench.send('prompt_mask', wrong, words)
    assert close(bench.show()['probability'], probability_of(tiny_model, [Prompt(image=rgb)]))


def test_words_and_a_picture_of_one_name_are_mixed(bench: Bench, tiny_model: Path) -> None:
    image, _, rgb, _ = support(bench.peer)
    bench.send('prompt_image', image, "'example' (picture)")
    bench.set(text_weight=0.25)
    try:
        line = bench.prompt('example: red bowl', '(words and picture)')
        assert '1 prompt(s)' in line
        mixed = Prompt('red bowl', image=rgb, weight=0.25)
        assert close(bench.show()['probability'], probability_of(tiny_model, [mixed]))
        assert bench.peer.get_parameter('/live/clipseg', 'prompt') == 'example: red bowl'
        assert "'example' (picture)" in bench.prompt('the mug')
    finally:
        bench.set(text_weight=0.5)


def test_negative_prompts_compete_and_are_not_reported(bench: Bench, tiny_model: Path) -> None:
    before = bench.show()['labels']
    assert {1, 2} <= set(np.unique(before)), 'the test picture has both'
    line = bench.prompt('the mug; !red bowl', '(negative)')
    assert "2 'red bowl' (negative)" in line
    after = bench.show()
    prompts = [Prompt('the mug'), Prompt('red bowl', negative=True)]
    expected = create_model(tiny_model, 'cpu').segment(RGB, prompts)
    assert 2 not in np.unique(after['labels'])
    assert np.mean(after['labels'] != expected.labels([1])) < 1e-3
    # Random logits change from pixel to pixel of the model, where the competition takes place.
    assert np.mean(after['labels'][before == 1] == 1) > 0.6, 'the mug keeps most of what it won'
    assert np.mean(after['labels'][before == 2] == 0) > 0.99, 'and gets nothing that it lost'
    assert bench.peer.get_parameter('/live/clipseg', 'prompt') == 'the mug; !red bowl'
    bench.prompt('red bowl')
    assert set(np.unique(bench.show()['labels'])) <= {0, 2}, 'and it has its id'


def test_a_point_picks_the_part_of_the_mask_under_it(bench: Bench, tiny_model: Path) -> None:
    labels = bench.show()['labels']
    y, x = (int(value) for value in np.argwhere(labels == 2)[0])
    line = bench.send('pick_point', Point(x=x + 0.7, y=float(y)), "'example' is the part of")
    _, parts = cv2.connectedComponents((labels == 2).view(np.uint8), connectivity=8)
    mask = parts == parts[y, x]
    assert mask.sum() < (labels == 2).sum(), 'the test picture has several parts'
    box = cv2.boundingRect(mask.view(np.uint8))
    assert f'box {tuple(box)}' in line
    # The picture alone, to compare.
    bench.prompt('example: red bowl')
    bench.set(text_weight=0.0)
    try:
        bench.prompt('the mug')
        bench.prompt('example: a chair')
        expected = probability_of(tiny_model, [Prompt(image=RGB, mask=mask)])
        assert close(bench.show()['probability'], expected)
    finally:
        bench.set(text_weight=0.5)


def test_a_box_is_cut_out_of_the_newest_frame(bench: Bench, tiny_model: Path) -> None:
    bench.show()
    bench.prompt('')
    box = RegionOfInterest(x_offset=40, y_offset=30, width=40, height=30)
    line = bench.send('pick_box', box, "'example' is the box: box (40, 30, 40, 30) of a frame")
    assert '160 × 120 px' in line
    mask = np.zeros((120, 160), bool)
    mask[30:60, 40:80] = True
    expected = probability_of(tiny_model, [Prompt(image=RGB, mask=mask)])
    assert close(bench.show()['probability'], expected)


@pytest.mark.parametrize(
    ('name', 'message', 'words'),
    [
        ('pick_point', Point(x=160.0, y=3.0), 'the point (160, 3) lies outside of the frame'),
        ('pick_point', Point(x=-0.5, y=3.0), 'the point (-1, 3) lies outside'),
        ('pick_point', Point(x=float('nan')), 'not finite'),
        ('pick_box', RegionOfInterest(x_offset=5, width=5), 'height 0'),
        ('pick_box', RegionOfInterest(x_offset=160, width=5, height=5), 'outside of its image'),
    ],
)
def test_places_that_are_not_there(bench: Bench, name: str, message: Any, words: str) -> None:
    bench.show()
    since = len(bench.node.lines)
    bench.send(name, message, words)
    assert bench.node.count('prompt(s) active', since) == 0


def test_prompts_are_saved_and_restored(bench: Bench, tmp_path: Path) -> None:
    def call(name: str) -> Any:
        return bench.peer.call(Trigger, f'/live/clipseg/{name}', Trigger.Request())

    answer = call('save_prompts')
    assert not answer.success
    assert 'prompt_file' in answer.message
    path = tmp_path / 'prompts.yaml'
    bench.set(prompt_file=str(path))
    try:
        assert 'cannot be read' in call('load_prompts').message
        image, marked, _, _ = support(bench.peer, stamp=8)
        bench.prompt('seat: a chair; !the mug')
        bench.send('prompt_image', image, "'example'")
        bench.send('prompt_mask', marked, "'example'")
        before = bench.show()['probability']
        assert call('save_prompts').success
        bench.prompt('')
        bench.prompt('red bowl')
        answer = call('load_prompts')
        assert answer.success, answer.message
        for words in ("'seat'", "1 'the mug' (negative)", "'example' (picture)"):
            assert words in answer.message
        assert bench.peer.get_parameter('/live/clipseg', 'prompt') == '!the mug; seat: a chair'
        assert close(bench.show()['probability'], before)
        path.write_text('version: 1\nprompts:\n- phrase: чашка\n')
        answer = call('load_prompts')
        assert not answer.success
        assert 'no word' in answer.message
        assert close(bench.show()['probability'], before), 'nothing has changed'
    finally:
        bench.set(prompt_file='')


def test_a_flood_of_prompts(bench: Bench) -> None:
    """1,000 a second for 2 s: the last one counts, and the camera is served meanwhile."""
    publisher, answered = bench.commands['prompt'], []
    since, started = len(bench.node.lines), time.monotonic()
    for number in range(2000):
        text = f'thing {number % 100}: red mug {number}'
        publisher.publish(String(data=text))
        if number % 100 == 50:
            image = bench.peer.stamped(RGB)
            answered.append(stamp_of(image))
            bench.images.publish(image)
        time.sleep(max(0.0, started + (number + 1) / 1000 - time.monotonic()))
    publisher.publish(String(data='last: the mug'))
    bench.node.wait_for("'last'", since=since)
    wait_until(lambda: bench.peer.get_parameter('/live/clipseg', 'prompt') == 'last: the mug')
    assert bench.node.count('prompt(s) active', since) < 80, 'not every one took its time'
    served = {stamp_of(message) for message in list(bench.received['mask'])}
    assert len(served & set(answered)) >= 10
    ids = set(np.unique(bench.show()['labels']))
    assert len(ids) == 2, 'nothing and the last prompt'


def test_a_flood_of_picks(bench: Bench) -> None:
    """1,000 a second for 2 s: the camera is served meanwhile, and the last one counts."""
    bench.prompt('')
    bench.images.publish(bench.peer.stamped(RGB))
    bench.send('pick_box', RegionOfInterest(x_offset=9, width=20, height=20), 'is the box')
    publisher, answered = bench.commands['pick_box'], []
    since, started = len(bench.node.lines), time.monotonic()
    for number in range(2000):
        publisher.publish(RegionOfInterest(x_offset=number % 90, width=30, height=40))
        if number % 100 == 50:
            image = bench.peer.stamped(RGB)
            answered.append(stamp_of(image))
            bench.images.publish(image)
        time.sleep(max(0.0, started + (number + 1) / 1000 - time.monotonic()))
    publisher.publish(RegionOfInterest(x_offset=93, y_offset=7, width=30, height=40))
    bench.node.wait_for('box (93, 7, 30, 40) of a frame', since=since)
    assert bench.node.count('is the box', since) < 20, 'not every one took its time'
    served = {stamp_of(message) for message in list(bench.received['mask'])}
    assert len(served & set(answered)) >= 10


def test_an_update_in_the_middle_of_a_frame(bench: Bench) -> None:
    """Each answer is to the prompts of one moment: never to some old and some new ones."""
    bench.received['labels'].clear()
    expected = {'the mug': 1, 'red bowl': 2}
    for number in range(60):
        text = ('the mug', 'red bowl')[number % 2]
        bench.commands['prompt'].publish(String(data=text))
        for _ in range(3):
            bench.images.publish(bench.peer.stamped(RGB))
            time.sleep(0.02)
    seen = [frozenset(np.unique(message.data)) for message in list(bench.received['labels'])]
    assert len(seen) > 30
    assert set(seen) <= {frozenset({0, 1}), frozenset({0, 2}), frozenset({0, 1, 2})}
    # Both prompts were active before the first update took effect, and never since.
    assert frozenset({0, 1, 2}) not in seen[5:]
    assert set(seen[5:]) == {frozenset({0, number}) for number in expected.values()}


def test_stamps_that_go_backwards(bench: Bench) -> None:
    bench.set(smoothing=1.0)
    try:
        plain = bench.show(at=500.0)['probability']
        for at in (499.0, 498.9, 10.0):
            assert close(bench.show(at=at)['probability'], plain)
    finally:
        bench.set(smoothing=0.0)
    other = picture(120, 160, seed=6)
    other[:20] = 0
    bench.set(smoothing=1.0)
    try:
        bench.show(at=700.0)
        back = bench.show(other, at=600.0)['probability']
    finally:
        bench.set(smoothing=0.0)
    assert close(back, bench.show(other)['probability']), 'not averaged with what came before'


def test_smoothing(bench: Bench, tiny_model: Path) -> None:
    other = RGB.copy()
    other[60:] = 255 - other[60:]
    segmenter, steadier = create_model(tiny_model, 'cpu'), Steadier()
    how = Steadying(smoothing=0.3, smoothing_reset=1.0)
    bench.set(smoothing=0.3, smoothing_reset=1.0)
    try:
        for rgb, at in ((RGB, 100.0), (other, 100.1), (other, 100.2), (RGB, 100.25)):
            found = segmenter.segment(rgb, ['the mug', 'red bowl'])
            expected = steadier.apply(found, at, rgb, how, 0.0).probability()
            assert close(bench.show(rgb, at=at)['probability'], expected)
        assert not close(expected, found.probability()), 'it does something'
    finally:
        bench.set(smoothing=0.0, smoothing_reset=0.06)


@pytest.mark.parametrize('parameters', [{'presence_threshold': 1.0}, {'min_area': 120 * 160 + 1}])
def test_what_is_absent_has_an_empty_mask(bench: Bench, parameters: dict[str, Any]) -> None:
    assert bench.show()['mask'].any()
    bench.set(**parameters)
    try:
        absent = bench.show()
        assert not absent['mask'].any()
        assert not absent['labels'].any()
        assert absent['probability'].any()
    finally:
        bench.set(presence_threshold=-1.0, min_area=0)
    assert bench.show()['mask'].any()


def test_template(bench: Bench, tiny_model: Path) -> None:
    bench.set(template='a {}')
    try:
        expected = probability_of(tiny_model, ['the mug', 'red bowl'], template='a {}')
        assert close(bench.show()['probability'], expected)
    finally:
        bench.set(template='')
    plain = probability_of(tiny_model, ['the mug', 'red bowl'])
    assert close(bench.show()['probability'], plain)
    assert not close(plain, expected)


def test_visual_method(bench: Bench, tiny_model: Path) -> None:
    image, marked, rgb, mask = support(bench.peer, stamp=11)
    bench.prompt('')
    bench.send('prompt_mask', marked, 'waits')
    bench.send('prompt_image', image, "'example'")
    bench.set(visual_method='red_outline')
    try:
        example = Prompt(image=rgb, mask=mask)
        expected = probability_of(tiny_model, [example], visual_method='red_outline')
        assert close(bench.show()['probability'], expected)
        assert not close(expected, probability_of(tiny_model, [example]))
    finally:
        bench.set(visual_method='crop_blur_10')


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('template', 'a photo', 'exactly once'),
        ('template', 'a {} ' + 'mug ' * 40, 'the mug'),
        ('visual_method', 'crop_more', 'crop_blur_10'),
        ('presence_threshold', -0.5, '-0.5'),
        ('presence_hysteresis', 1.5, 'presence_hysteresis'),
        ('min_area', -1, 'min_area'),
        ('smoothing', -0.1, 'smoothing'),
        ('text_weight', 1.5, 'text_weight'),
        ('prompt', '!', 'no phrase'),
        ('prompt', 'mug; !mug', "'mug'"),
    ],
)
def test_values_that_are_refused(bench: Bench, name: str, value: Any, words: str) -> None:
    result = bench.peer.set_parameter('/live/clipseg', name, value)
    assert not result.successful
    assert words in result.reason


def test_254_prompts_leave_no_room_for_a_picture(bench: Bench) -> None:
    bench.send('prompt_image', support(bench.peer)[0], "'example'")
    many = ';'.join(f'thing {n}: mug' for n in range(254))
    result = bench.peer.set_parameter('/live/clipseg', 'prompt', many)
    assert not result.successful
    assert '255 prompts at once' in result.reason


def test_the_same_text_again_changes_nothing(bench: Bench) -> None:
    bench.send('prompt_image', support(bench.peer)[0], "'example'")
    bench.prompt('example: red bowl; the mug', '(words and picture)')
    before = bench.show()['probability']
    bench.set(prompt=bench.peer.get_parameter('/live/clipseg', 'prompt'))
    assert close(bench.show()['probability'], before)


def test_text_weight_mixes_what_is_active_anew(bench: Bench, tiny_model: Path) -> None:
    image, _, rgb, _ = support(bench.peer)
    bench.send('prompt_image', image, "'example'")
    bench.prompt('example: red bowl', '(words and picture)')
    try:
        for weight in (0.9, 0.1):
            bench.set(text_weight=weight)
            mixed = Prompt('red bowl', image=rgb, weight=weight)
            assert close(bench.show()['probability'], probability_of(tiny_model, [mixed]))
    finally:
        bench.set(text_weight=0.5)


def test_prompts_are_restored_at_configuring(tiny_model: Path, peer: Peer, tmp_path: Path) -> None:
    good, bad = tmp_path / 'good.yaml', tmp_path / 'bad.yaml'
    bad.write_text('version: 1\nprompts:\n- {id: 7, phrase: red bowl}\n- {phrase: чашка}\n')
    good.write_text('version: 1\nprompts:\n- {id: 7, phrase: red bowl, enabled: false}\n')
    files = {'good': good, 'bad': bad, 'none': tmp_path / 'none.yaml'}
    options = {'model': tiny_model, 'device': 'cpu', 'prompt': "'the mug'"}
    nodes = {name: ros_arguments({**options, 'prompt_file': path}) for name, path in files.items()}
    host = str(Path(__file__).parents[1] / 'node_host.py')
    process = NodeProcess(host, script=[json.dumps(nodes)])
    try:
        for name in nodes:
            process.wait_for(f'[{name}.clipseg]: active: tiny')
        expected = {'good': 'red bowl', 'bad': 'the mug', 'none': 'the mug'}
        for name, text in expected.items():
            assert peer.get_parameter(f'/{name}/clipseg', 'prompt') == text
        assert 'in place of the parameter' in process.wait_for('[good.clipseg]: prompts restored')
        process.wait_for("[good.clipseg]: 1 prompt(s) active: 7 'red bowl' (disabled)")
        line = process.wait_for('[bad.clipseg]: prompts not restored')
        assert 'no word' in line
        assert '[ERROR]' in line
        process.wait_for('none.yaml is not there yet')
        assert process.count('no prompt set') == 1, 'all of the good one are disabled'
    finally:
        assert process.stop() == 0, process.output
    assert 'Traceback' not in process.output, process.output
