"""The node between processes: what comes out belongs to what went in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from ros_peers import (
    NodeProcess,
    Peer,
    picture,
    stamp_of,
    told_of_prompts,
    until_answered,
    wait_until,
)
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool

from clipseg_model.outputs.palette import PALETTE
from clipseg_model.registry import create_model
from clipseg_ros.images.conversion import compressed_to_rgb, image_to_rgb
from clipseg_ros.ros.qos import command_input, image_output, sensor_input

pytestmark = pytest.mark.every_ros

OUTPUTS = {
    'mask': ('mono8', 1),
    'labels': ('mono8', 1),
    'labels/color': ('rgb8', 3),
    'confidence': ('mono8', 1),
    'probability': ('32FC1', 4),
    'overlay': ('rgb8', 3),
}
BEST_EFFORT = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.RELIABLE)


class Camera:
    """Publishes images one at a time and returns what answers them."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        # Before the images, which the node receives while somebody listens.
        self.received = {
            name: peer.collect(Image, f'/clipseg/{name}', RELIABLE) for name in OUTPUTS
        }
        self.publisher = peer.publisher(Image, '/image', image_output())
        node = peer.node
        wait_until(lambda: all(node.count_publishers(f'/clipseg/{name}') for name in OUTPUTS))

    def ask(self, image: Image, *names: str, timeout: float = 10.0) -> dict[str, Image]:
        """Publishes until every output with the image's stamp is there."""
        wanted = names or tuple(OUTPUTS)

        def answers() -> dict[str, Image]:
            return {
                name: message
                for name in wanted
                for message in list(self.received[name])
                if stamp_of(message) == stamp_of(image)
            }

        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.publisher.publish(image)
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                if len(answers()) == len(wanted):
                    return answers()
                time.sleep(0.005)
        raise AssertionError(f'only {sorted(answers())} of {wanted} came for {stamp_of(image)}')


@pytest.fixture(scope='module')
def camera(segment: NodeProcess, peer: Peer) -> Camera:
    return Camera(peer)


@pytest.fixture
def prompt(segment: NodeProcess, peer: Peer) -> Iterator[Callable[[str], None]]:
    """Sets prompts by topic and waits until they are active."""
    publisher = peer.publisher(String, '/clipseg/prompt', command_input())

    def send(text: str, expected: str = 'active') -> None:
        since = len(segment.lines)
        publisher.publish(String(data=text))
        told_of_prompts(segment, peer, '/clipseg', text, expected, since)

    yield send
    send('the mug; red bowl')
    peer.node.destroy_publisher(publisher)


def pixels_of(message: Image) -> np.ndarray[Any, Any]:
    dtype, channels = (np.float32, 1) if message.encoding == '32FC1' else (np.uint8, 1)
    if message.encoding == 'rgb8':
        channels = 3
    shape = (message.height, message.width, channels) if channels > 1 else (
        message.height, message.width)  # fmt: skip
    return np.frombuffer(message.data, dtype).reshape(shape)


@pytest.mark.parametrize('name', ['labels', 'mask'])
def test_compressed_masks_and_labels_lose_nothing(camera: Camera, peer: Peer, name: str) -> None:
    topic = f'/clipseg/{name}/compressed'
    received = peer.collect(CompressedImage, topic, RELIABLE)
    wait_until(lambda: peer.node.count_publishers(topic))
    image = camera.peer.stamped(picture(90, 131, seed=3), frame='lens')
    raw, message = until_answered(camera.publisher, image, camera.received[name], received)
    values = pixels_of(raw)
    assert len(np.unique(values)) > 1
    assert message.header == image.header
    assert message.format == 'mono8; png compressed'
    data = np.frombuffer(message.data, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), values)
    assert data.nbytes < values.nbytes


def test_the_compressed_overlay_is_the_overlay_in_the_quality_asked_for(
    camera: Camera, peer: Peer
) -> None:
    received = peer.collect(CompressedImage, '/clipseg/overlay/compressed', RELIABLE)
    sizes, reddish = [], np.array([190, 0, 0], np.uint8)
    for quality in (95, 20):
        assert peer.set_parameter('/clipseg', 'jpeg_quality', quality).successful
        image = camera.peer.stamped(picture(90, 131, seed=3) + reddish, frame='lens')
        raw, message = until_answered(camera.publisher, image, camera.received['overlay'], received)
        assert message.header == image.header
        assert message.format == 'rgb8; jpeg compressed bgr8'
        rgb, means = compressed_to_rgb(message), pixels_of(raw).mean(axis=(0, 1))
        assert rgb.shape == pixels_of(raw).shape
        np.testing.assert_allclose(rgb.mean(axis=(0, 1)), means, atol=3)
        assert abs(means[0] - means[2]) > 10, 'red and blue can be told apart'
        sizes.append(len(message.data))
    assert sizes[1] < sizes[0] / 2
    assert not peer.set_parameter('/clipseg', 'jpeg_quality', 0).successful
    assert peer.set_parameter('/clipseg', 'jpeg_quality', 80).successful


def test_instances_are_the_parts_of_the_labels(camera: Camera, peer: Peer) -> None:
    topic = '/clipseg/instances'
    received = peer.collect(Image, topic, RELIABLE)
    wait_until(lambda: peer.node.count_publishers(topic))
    seen = []
    assert peer.set_parameter('/clipseg', 'detection_min_area', 1).successful
    try:
        for _ in range(2):
            image = camera.peer.stamped(picture(90, 131, seed=3), frame='lens')
            raw, message = until_answered(
                camera.publisher, image, camera.received['labels'], received
            )
            assert message.header == image.header
            assert (message.encoding, message.step, message.is_bigendian) == ('16UC1', 262, 0)
            ids = np.frombuffer(message.data, np.uint16).reshape(90, 131)
            labels = pixels_of(raw)
            np.testing.assert_array_equal(ids > 0, labels > 0)
            for number in np.unique(ids[ids > 0]):
                assert len(np.unique(labels[ids == number])) == 1
            seen.append(ids)
        np.testing.assert_array_equal(*seen)
    finally:
        assert peer.set_parameter('/clipseg', 'detection_min_area', 100).successful


@pytest.mark.parametrize('size', [(120, 160), (480, 640), (90, 31), (1, 1), (37, 500)])
def test_outputs_have_the_input_geometry_and_header(camera: Camera, size: tuple[int, int]) -> None:
    image = camera.peer.stamped(picture(*size) if min(size) > 8 else np.zeros((*size, 3), np.uint8),
                                frame=f'lens_{size[0]}')  # fmt: skip
    for name, message in camera.ask(image).items():
        encoding, width_bytes = OUTPUTS[name]
        assert message.header == image.header, name
        assert (message.height, message.width) == size, name
        assert message.encoding == encoding, name
        assert message.step == size[1] * width_bytes, name
        assert len(message.data) == message.step * message.height, name
        assert message.is_bigendian == 0


@pytest.mark.parametrize('name', ['coffee', 'cat', 'astronaut'])
def test_photographs_at_their_own_size(camera: Camera, name: str) -> None:
    photograph = getattr(skimage.data, name)()
    answers = camera.ask(camera.peer.stamped(photograph))
    for message in answers.values():
        assert (message.height, message.width) == photograph.shape[:2]


def test_outputs_are_what_the_model_says(camera: Camera, tiny_model: Path) -> None:
    rgb = picture(120, 160, seed=3)
    found = {name: pixels_of(message) for name, message in
             camera.ask(camera.peer.stamped(rgb)).items()}  # fmt: skip
    expected = create_model(tiny_model, 'cpu').segment(rgb, ['the mug', 'red bowl'])
    # Another number of threads may sum in another order: a pixel on the very edge may differ.
    assert np.mean(found['mask'] != expected.mask()) < 1e-3
    assert np.mean(found['labels'] != expected.labels()) < 1e-3
    difference = np.abs(found['confidence'].astype(int) - expected.confidence())
    assert np.mean(difference > 1) < 1e-3
    np.testing.assert_allclose(found['probability'], expected.probability(), atol=1e-4)
    assert set(np.unique(found['mask'])) == {0, 255}, 'the test model answers both ways'
    assert set(np.unique(found['labels'])) <= {0, 1, 2}
    np.testing.assert_array_equal(found['labels'] > 0, found['mask'] > 0)
    assert (found['confidence'][found['labels'] == 0] == 0).all()
    np.testing.assert_array_equal(found['labels/color'], PALETTE[found['labels']])
    labelled = found['labels'] > 0
    labelled[:40, :120] = False  # The legend.
    tint = (rgb[labelled].astype(float) + PALETTE[found['labels'][labelled]]) / 2
    np.testing.assert_allclose(found['overlay'][labelled], tint, atol=1)


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba8', 'bgr16', 'padded'])
def test_the_encoding_makes_no_difference(camera: Camera, encoding: str) -> None:
    rgb = picture(60, 80)
    header = camera.peer.stamped(rgb).header
    values = {
        'bgr8': rgb[..., ::-1],
        'rgba8': np.dstack((rgb, rgb[..., 0])),
        'bgr16': rgb[..., ::-1].astype('<u2') * 257,
        'padded': rgb,
    }[encoding]
    rows = np.ascontiguousarray(values).view(np.uint8).reshape(60, -1)
    if encoding == 'padded':
        rows = np.hstack((rows, np.full((60, 16), 99, np.uint8)))
    image = Image(header=header, height=60, width=80, step=rows.shape[1])
    image.encoding = 'rgb8' if encoding == 'padded' else encoding
    image.data = rows.tobytes()
    plain = camera.ask(camera.peer.stamped(rgb), 'labels', 'probability')
    other = camera.ask(image, 'labels', 'probability')
    for name in plain:
        np.testing.assert_array_equal(pixels_of(plain[name]), pixels_of(other[name]))
        assert other[name].step == (80 if name == 'labels' else 320)


@pytest.mark.parametrize('reliability', ['best_effort', 'reliable'])
@pytest.mark.parametrize('name', OUTPUTS)
def test_both_kinds_of_subscriber_get_every_output(
    camera: Camera, name: str, reliability: str
) -> None:
    node, received = camera.peer.node, []
    profile = BEST_EFFORT if reliability == 'best_effort' else RELIABLE
    subscription = node.create_subscription(Image, f'/clipseg/{name}', received.append, profile)
    try:
        wait_until(subscription.get_publisher_count)
        image = camera.peer.stamped(picture(480, 640))
        [message] = until_answered(camera.publisher, image, received)
        assert (message.height, message.width) == (480, 640)
    finally:
        node.destroy_subscription(subscription)


def test_both_kinds_of_camera_are_heard(camera: Camera) -> None:
    best_effort = camera.peer.publisher(Image, '/image', sensor_input())
    try:
        image = camera.peer.stamped(picture(480, 640))
        until_answered(best_effort, image, camera.received['mask'])
    finally:
        camera.peer.node.destroy_publisher(best_effort)


def test_prompts_by_topic_keep_their_ids(camera: Camera, prompt: Callable[..., None]) -> None:
    rgb = picture(120, 160, seed=5)
    both = pixels_of(camera.ask(camera.peer.stamped(rgb), 'labels')['labels'])
    assert {1, 2} <= set(np.unique(both)), 'the test picture has both'
    prompt('red bowl')
    assert camera.peer.get_parameter('/clipseg', 'prompt') == 'red bowl'
    alone = pixels_of(camera.ask(camera.peer.stamped(rgb), 'labels')['labels'])
    assert set(np.unique(alone)) == {0, 2}
    prompt('a chair; red bowl')
    labels = pixels_of(camera.ask(camera.peer.stamped(rgb), 'labels')['labels'])
    assert 1 not in np.unique(labels)


def test_an_empty_prompt_stops(
    camera: Camera, segment: NodeProcess, prompt: Callable[..., None]
) -> None:
    prompt('', 'no prompt active')
    before = {name: len(messages) for name, messages in camera.received.items()}
    for _ in range(5):
        camera.publisher.publish(camera.peer.stamped(picture()))
        time.sleep(0.05)
    assert {name: len(messages) for name, messages in camera.received.items()} == before
    diagnostics = camera.peer.collect(DiagnosticArray, '/diagnostics', 10)
    status = wait_until(
        lambda: [a for a in diagnostics if 'no prompt set' in a.status[0].message],
        what='a reason for the silence',
    )[0].status[0]
    assert 'publish a string on /clipseg/prompt' in status.message
    assert status.level == b'\x01'


def test_threshold_while_running(camera: Camera) -> None:
    rgb, areas = picture(120, 160, seed=3), {}
    try:
        for threshold in (0.05, 0.5, 0.95, -1.0):
            assert camera.peer.set_parameter('/clipseg', 'threshold', threshold).successful
            mask = pixels_of(camera.ask(camera.peer.stamped(rgb), 'mask')['mask'])
            areas[threshold] = int(np.count_nonzero(mask))
    finally:
        camera.peer.set_parameter('/clipseg', 'threshold', -1.0)
    assert areas[0.05] > areas[0.5] > areas[0.95]
    assert areas[-1.0] == areas[0.5], 'the test model is calibrated at 0.5'


def test_overlay_alpha_while_running(camera: Camera) -> None:
    rgb = picture(120, 160, seed=3)
    try:
        for name, value in (('overlay_alpha', 0.0), ('overlay_legend', False)):
            assert camera.peer.set_parameter('/clipseg', name, value).successful
        overlay = camera.ask(camera.peer.stamped(rgb), 'overlay')['overlay']
        np.testing.assert_array_equal(image_to_rgb(overlay), rgb)
    finally:
        camera.peer.set_parameter('/clipseg', 'overlay_alpha', 0.5)
        camera.peer.set_parameter('/clipseg', 'overlay_legend', True)


def test_overlay_colors_while_running(camera: Camera, prompt: Callable[..., None]) -> None:
    peer, rgb = camera.peer, picture(120, 160, seed=5)

    def colours() -> dict[int, set[tuple[int, ...]]]:
        """What colours each label has on the overlay."""
        found = camera.ask(peer.stamped(rgb), 'labels', 'labels/color', 'overlay')
        labels, overlay = pixels_of(found['labels']).copy(), pixels_of(found['overlay'])
        coloured = pixels_of(found['labels/color'])
        assert not coloured[labels == 0].any()
        np.testing.assert_array_equal(overlay[40:][labels[40:] == 0], rgb[40:][labels[40:] == 0])
        labels[:40, :120] = 0  # The legend.
        of_labels = {n: {tuple(c) for c in coloured[labels == n].tolist()} for n in (1, 2)}
        assert of_labels == {n: {tuple(c) for c in overlay[labels == n].tolist()} for n in (1, 2)}
        return of_labels

    def default(label: int) -> set[tuple[int, ...]]:
        return {tuple(PALETTE[label].tolist())}

    assert peer.get_parameter('/clipseg', 'overlay_colors') == ''
    try:
        assert peer.set_parameter('/clipseg', 'overlay_alpha', 1.0).successful
        assert colours() == {1: default(1), 2: default(2)}
        for value, one, two in (
            ('The Mug=#123456', {(0x12, 0x34, 0x56)}, default(2)),
            (['the mug=#123456', '2=#fedcba'], {(0x12, 0x34, 0x56)}, {(0xFE, 0xDC, 0xBA)}),
            ('1=#010203; the mug=#0a0b0c', {(10, 11, 12)}, default(2)),
            ('a chair=#123456', default(1), default(2)),
        ):
            result = peer.set_parameter('/clipseg', 'overlay_colors', value)
            assert result.successful, result.reason
            assert colours() == {1: one, 2: two}, value
        # A refused value leaves the colours that were.
        assert peer.set_parameter('/clipseg', 'overlay_colors', 'red bowl=#fedcba').successful
        assert not peer.set_parameter('/clipseg', 'overlay_colors', 'the mug=#12').successful
        assert colours() == {1: default(1), 2: {(0xFE, 0xDC, 0xBA)}}
        # The colour belongs to the name, which waits for its prompt.
        assert peer.set_parameter('/clipseg', 'overlay_colors', 'a chair=#123456').successful
        prompt('a chair; red bowl')
        found = camera.ask(peer.stamped(rgb), 'labels', 'overlay')
        labels, overlay = pixels_of(found['labels']), pixels_of(found['overlay'])
        chair = labels > 2
        chair[:40, :120] = False
        assert chair.any(), 'the test picture has one'
        assert (overlay[chair] == (0x12, 0x34, 0x56)).all()
        prompt('the mug; red bowl')
        for empty in ('', [], ['']):
            assert peer.set_parameter('/clipseg', 'overlay_colors', '1=#123456').successful
            assert colours()[1] == {(0x12, 0x34, 0x56)}
            result = peer.set_parameter('/clipseg', 'overlay_colors', empty)
            assert result.successful, result.reason
            assert colours() == {1: default(1), 2: default(2)}, empty
    finally:
        peer.set_parameter('/clipseg', 'overlay_colors', '')
        peer.set_parameter('/clipseg', 'overlay_alpha', 0.5)


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('threshold', 1.5, ['threshold']),
        ('threshold', 0.0, ['threshold', '0', 'between 0 and 1', '-1']),
        ('threshold', -0.5, ['-0.5']),
        ('threshold', float('nan'), ['threshold']),
        ('threshold', 'high', ['give a number']),
        ('overlay_alpha', -0.1, ['overlay_alpha']),
        ('overlay_colors', 'the mug=orange', ['overlay_colors', "'the mug=orange'", '#RRGGBB']),
        ('overlay_colors', ['1=#ff8800', '255=#ff8800'], ["'255=#ff8800'", '1 … 254']),
        ('overlay_colors', 7, ['overlay_colors', '7', 'text']),
        ('overlay_colors', [1, 2], ['overlay_colors', '[1, 2]', 'text']),
        ('max_rate', -1.0, ['max_rate']),
        ('watchdog', 1e9, ['watchdog']),
        ('prompt', 7, ['prompt', '7', 'text']),
        ('prompt', ['mug', 'x' * 2000], ['2000', '1000']),
        ('model', 'other', ['model', 'configured', 'cleanup']),
        ('device', 'cuda', ['device', 'configured', 'cleanup']),
        ('autostart', False, ['autostart', 'read-only']),
    ],
)
def test_parameters_out_of_range_are_refused(
    camera: Camera, name: str, value: Any, words: list[str]
) -> None:
    before = camera.peer.get_parameter('/clipseg', name)
    result = camera.peer.set_parameter('/clipseg', name, value)
    assert not result.successful
    for word in words:
        assert word in result.reason
    assert camera.peer.get_parameter('/clipseg', name) == before
    camera.ask(camera.peer.stamped(picture()), 'mask')


def test_prompts_by_parameter(camera: Camera, prompt: Callable[..., None]) -> None:
    result = camera.peer.set_parameter('/clipseg', 'prompt', ['red bowl', 'a chair'])
    assert result.successful, result.reason
    labels = camera.ask(camera.peer.stamped(picture(120, 160, seed=5)), 'labels')['labels']
    assert 1 not in np.unique(pixels_of(labels))


def test_enable(camera: Camera) -> None:
    answer = camera.peer.call(SetBool, '/clipseg/enable', SetBool.Request(data=False))
    assert answer.success
    assert 'disabled' in answer.message
    image = camera.peer.stamped(picture())
    for _ in range(3):
        camera.publisher.publish(image)
        time.sleep(0.05)
    assert not [m for m in camera.received['mask'] if stamp_of(m) == stamp_of(image)]
    assert camera.peer.call(SetBool, '/clipseg/enable', SetBool.Request(data=True)).success
    camera.ask(image, 'mask')


def test_diagnostics(camera: Camera) -> None:
    diagnostics = camera.peer.collect(DiagnosticArray, '/diagnostics', 10)
    wait_until(lambda: camera.ask(camera.peer.stamped(picture()), 'mask') and len(diagnostics) >= 3)
    # Other nodes of this domain publish diagnostics too.
    own = [one for array in diagnostics for one in array.status if one.name.startswith('clipseg:')]
    status = own[-1]
    values = {item.key: item.value for item in status.values}
    assert status.name == 'clipseg: segmentation'
    assert status.hardware_id == 'cpu'
    assert status.level == b'\x00', status.message
    assert 'the mug, red bowl at' in status.message
    assert values['state'] == 'active'
    assert (values['model'], values['device'], values['prompts']) == ('tiny', 'cpu', '2')
    assert float(values['fps']) > 1
    assert 0 < float(values['latency_ms']) <= float(values['latency_max_ms']) < 2000
    assert 0 < float(values['age_ms']) < 2000
    assert int(values['received']) >= int(values['processed']) > 0
    assert int(values['received']) >= int(values['processed']) + int(values['dropped'])


def test_the_newest_frame_wins_under_load(camera: Camera) -> None:
    stamps = []
    for seed in range(40):
        image = camera.peer.stamped(picture(480, 640, seed % 3))
        stamps.append(stamp_of(image))
        camera.publisher.publish(image)
        time.sleep(0.004)
    wait_until(lambda: any(stamp_of(m) == stamps[-1] for m in list(camera.received['mask'])))
    answered = [stamp_of(m) for m in camera.received['mask'] if stamp_of(m) in set(stamps)]
    assert answered == sorted(answered), 'in order'
    assert len(answered) <= 40
