"""`clipseg bag` writes what the node would publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import PROMPTS, clipseg, compressed, pixels, read, record, stamped
from rclpy.serialization import deserialize_message
from ros_peers import NodeProcess, Peer, picture, stamp_of
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import StoragePlugin
from sensor_msgs.msg import Image

from clipseg_model.prompts import parse_prompts
from clipseg_model.registry import create_model
from clipseg_model.segmentation import Segmentation
from clipseg_model.video.steadying import Steadier
from clipseg_ros.bag.runner import OUTPUTS
from clipseg_ros.ros.qos import image_output


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('recorded', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_every_image_is_segmented(
    tmp_path: Path, tiny_model: Path, expected: Callable[[int], Segmentation], storage: str,
    recorded: StoragePlugin,
) -> None:  # fmt: skip
    bag = record(tmp_path / 'in', [('/image', stamped(n)) for n in range(3)], recorded)
    out = tmp_path / 'out'
    result = clipseg('bag', bag, '-p', '; '.join(PROMPTS), '-o', out, '--model', tiny_model,
                     '--threads', 1, '--storage', storage, '--outputs', ','.join(OUTPUTS),
                     '--min-area', 20)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert '3 images of /image' in result.stdout
    assert [path.suffix for path in sorted(out.iterdir())] == [
        '.yaml' if path.name == 'metadata.yaml' else {'mcap': '.mcap', 'sqlite3': '.db3'}[storage]
        for path in sorted(out.iterdir())
    ]
    found = read(out)
    latched = {'/clipseg/prompts', '/clipseg/label_info'}
    assert set(found) == {f'/clipseg/{name}' for name in OUTPUTS} | latched
    for topic in set(found) - latched:
        # 0 is what was recorded first, so every image is there, at the time it was logged.
        assert [log for log, _ in found[topic]] == [1_000_000 + 33_000_000 * n for n in range(3)]
    for number in range(3):
        truth = expected(number)
        for name in ('mask', 'labels', 'confidence', 'probability', 'overlay'):
            _, message = found[f'/clipseg/{name}'][number]
            stamp = message.header.stamp
            assert (stamp.sec, stamp.nanosec) == (100 + number, 5_000_000 * number)
            assert message.header.frame_id == 'lens'
            assert message.is_bigendian == 0
            if name != 'overlay':
                np.testing.assert_array_equal(pixels(message), getattr(truth, name)())
            else:
                assert pixels(message).shape == (90, 120, 3)
        _, segments = found['/clipseg/segments'][number]
        assert (segments.height, segments.width, segments.model) == (90, 120, 'tiny')
        for segment, one in zip(segments.segments, truth.results, strict=True):
            assert segment.name == one.prompt.label
            assert segment.score == pytest.approx(one.score, abs=1e-6)
            assert segment.presence == one.presence
            assert segment.area == np.count_nonzero(one.mask)
            rows, columns = np.nonzero(one.mask)
            assert (segment.box.x_offset, segment.box.y_offset) == (columns.min(), rows.min())
            assert segment.centroid.x == pytest.approx(columns.mean())
        _, detections = found['/clipseg/detections'][number]
        parts = [part for one in truth.results for part in one.instances(20)]
        assert [one.bbox.size_x for one in detections.detections] == [p.box[2] for p in parts]


def test_nothing_is_said_of_negative_prompts(bag: Path, tmp_path: Path, tiny_model: Path) -> None:
    out = tmp_path / 'out'
    result = clipseg('bag', bag, '-p', 'the mug; !red bowl; a chair', '-o', out, '-m', tiny_model,
                     '--threads', 1, '--outputs', 'labels,segments,overlay,detections')  # fmt: skip
    assert result.exit_code == 0, result.output
    found = read(out)
    ((_, info),) = found['/clipseg/label_info']
    assert [(one.class_id, one.class_name) for one in info.class_map] == [
        (1, 'the mug'),
        (3, 'a chair'),
    ]
    ((_, prompts),) = found['/clipseg/prompts']
    assert [(p.name, p.negative) for p in prompts.prompts] == [
        ('the mug', False),
        ('red bowl', True),
        ('a chair', False),
    ]
    truth = create_model(tiny_model, 'cpu', 1).segment(
        picture(90, 120, seed=0), parse_prompts('the mug; !red bowl; a chair')
    )
    _, labels = found['/clipseg/labels'][0]
    np.testing.assert_array_equal(pixels(labels), truth.labels([1, 3]))
    _, segments = found['/clipseg/segments'][0]
    assert [segment.name for segment in segments.segments] == ['the mug', 'a chair']


def test_colours_of_the_overlay(bag: Path, tmp_path: Path, tiny_model: Path) -> None:
    words = ('bag', bag, '-p', 'the mug; red bowl', '-m', tiny_model, '--threads', 1)
    out = tmp_path / 'out'
    result = clipseg(*words, '-o', out, '--outputs', 'labels,labels/color,overlay',
                     '--color', 'The Mug=#123456', '--color', '2=#fedcba')  # fmt: skip
    assert result.exit_code == 0, result.output
    found, seen = read(out), set()
    for number in range(4):
        labels, overlay = (pixels(found[f'/clipseg/{n}'][number][1]) for n in ('labels', 'overlay'))
        coloured = pixels(found['/clipseg/labels/color'][number][1])
        rgb = picture(90, 120, seed=number).astype(float)
        for label, colour in ((1, (0x12, 0x34, 0x56)), (2, (0xFE, 0xDC, 0xBA))):
            where = labels == label
            assert (coloured[where] == colour).all()
            where[:30] = False  # The legend.
            np.testing.assert_allclose(overlay[where], (rgb[where] + colour) / 2, atol=1)
            seen |= {label} if where.any() else set()
    assert seen == {1, 2}
    for outputs, colour, message in (
        ('overlay', 'cup=#ff8800', "'cup', and no prompt is called that"),
        ('overlay', 'the mug=red', "'the mug=red' is not NAME_OR_ID=#RRGGBB"),
        ('labels', 'the mug=#ff8800', 'colours are for the outputs overlay and labels/color'),
    ):
        result = clipseg(*words, '-o', tmp_path / 'no', '--outputs', outputs, '--color', colour)
        assert result.exit_code == 1
        assert message in ' '.join(result.stderr.split())
        assert not (tmp_path / 'no').exists()


def test_encodings_are_reused_if_asked_for(tmp_path: Path, tiny_model: Path) -> None:
    images = [stamped(number) for number in range(3)]
    images[1].data = images[0].data
    still = record(tmp_path / 'still', [('/camera/image', image) for image in images])
    words = ('-p', 'the mug', '-m', tiny_model, '--outputs', 'probability')
    result = clipseg('bag', still, *words, '-o', tmp_path / 'out', '--reuse-below', 3)
    assert result.exit_code == 0, result.output
    assert 'Approximation: 1 of 3 images reused an encoding' in ' '.join(result.stderr.split())
    one, two, _ = (pixels(image) for _, image in read(tmp_path / 'out')['/clipseg/probability'])
    np.testing.assert_array_equal(one, two)
    exact = clipseg('bag', still, *words, '-o', tmp_path / 'exact')
    assert 'Approximation' not in exact.stderr
    result = clipseg('bag', still, *words, '-o', tmp_path / 'no', '--reuse-below', -1)
    assert result.exit_code == 1
    assert 'not -1' in result.stderr


def test_presence_is_steady_as_in_the_node(
    bag: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    class Watched(Steadier):
        def apply(self, found: Segmentation, stamp: float, *others: Any) -> Segmentation:
            seen.append(stamp)
            return super().apply(found, stamp, *others)

    monkeypatch.setattr('clipseg_ros.bag.runner.Steadier', Watched)
    assert clipseg('bag', bag, '-p', 'the mug', '-o', tmp_path / 'out', '-m', tiny_model,
                   '--outputs', 'labels').exit_code == 0  # fmt: skip
    assert seen == pytest.approx([100 + number * 1.005 for number in range(len(seen))])
    assert len(seen) > 1


def test_what_is_latched_comes_first_and_once(bag: Path, tmp_path: Path, tiny_model: Path) -> None:
    out = tmp_path / 'out'
    assert clipseg('bag', bag, '-p', 'cup: the mug', '-p', 'red bowl', '-o', out, '-m', tiny_model,
                   '--threshold', 0.3, '--node', 'robot/eye').exit_code == 0  # fmt: skip
    found = read(out)
    ((log_time, info),) = found['/robot/eye/label_info']
    assert [(one.class_id, one.class_name) for one in info.class_map] == [
        (1, 'cup'),
        (2, 'red bowl'),
    ]
    assert info.threshold == pytest.approx(0.3)
    ((_, prompts),) = found['/robot/eye/prompts']
    assert [(p.id, p.name, p.phrase, p.enabled, p.weight) for p in prompts.prompts] == [
        (1, 'cup', 'the mug', True, 1.0),
        (2, 'red bowl', 'red bowl', True, 1.0),
    ]
    assert [round(p.threshold, 3) for p in prompts.prompts] == [0.3, 0.3]
    assert log_time == min(log for messages in found.values() for log, _ in messages)
    with AnyReader([out]) as reader:
        for connection in reader.connections:
            (qos,) = connection.ext.offered_qos_profiles  # type: ignore[union-attr]
            latched = connection.topic.endswith(('prompts', 'label_info'))
            assert qos.reliability == QosReliability.RELIABLE
            assert (qos.durability == QosDurability.TRANSIENT_LOCAL) == latched


def test_compressed_images_are_read(
    tmp_path: Path, tiny_model: Path, expected: Callable[[int], Segmentation]
) -> None:
    bag = record(tmp_path / 'in', [('/image/compressed', compressed(stamped(0)))])
    out = tmp_path / 'out'
    result = clipseg('bag', bag, '-p', '; '.join(PROMPTS), '-o', out, '-m', tiny_model,
                     '--threads', 1)  # fmt: skip
    assert result.exit_code == 0, result.output
    ((_, labels),) = read(out)['/clipseg/labels']
    np.testing.assert_array_equal(pixels(labels), expected(0).labels())


@pytest.fixture
def labels(segment: NodeProcess, peer: Peer) -> Iterator[list[Image]]:
    received: list[Image] = []
    subscription = peer.node.create_subscription(
        Image, '/clipseg/labels', received.append, image_output()
    )
    yield received
    peer.node.destroy_subscription(subscription)


def test_the_node_answers_the_same(
    segment: NodeProcess, peer: Peer, labels: list[Image], bag: Path, tmp_path: Path,
    tiny_model: Path,
) -> None:  # fmt: skip
    out = tmp_path / 'out'
    result = clipseg('bag', bag, '-p', '; '.join(PROMPTS), '-o', out, '-m', tiny_model,
                     '--threads', 1)  # fmt: skip
    assert result.exit_code == 0, result.output
    offline = [message for _, message in read(out)['/clipseg/labels']]
    camera = peer.publisher(Image, '/image', image_output())
    played = 0
    with AnyReader([bag]) as reader:
        images = [c for c in reader.connections if c.topic == '/camera/image']
        for number, (_, _, data) in enumerate(reader.messages(connections=images)):
            image = deserialize_message(bytes(data), Image)
            deadline = time.monotonic() + 10
            while not any(stamp_of(m) == stamp_of(image) for m in list(labels)):
                assert time.monotonic() < deadline, f'no labels for image {number}'
                camera.publish(image)
                time.sleep(0.1)
            live = next(m for m in labels if stamp_of(m) == stamp_of(image))
            assert (live.height, live.width, live.step, live.encoding) == (
                offline[number].height,
                offline[number].width,
                offline[number].step,
                offline[number].encoding,
            )
            assert live.header.frame_id == offline[number].header.frame_id
            assert bytes(live.data) == offline[number].data.tobytes()
            assert any(live.data), 'the test model answers'
            played += 1
    peer.node.destroy_publisher(camera)
    assert played == len(offline) == 4
