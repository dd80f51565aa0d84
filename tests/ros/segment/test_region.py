"""The region of interest: what is segmented, and where it is in the outputs."""

from __future__ import annotations

import time
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from ros_peers import NodeProcess, Peer, picture, running_node, stamp_of, until_answered, wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from clipseg_model.errors import RegionError
from clipseg_model.outputs.frame_outputs import Scratch
from clipseg_model.regions import Box
from clipseg_model.registry import create_model
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.points import PointMaker
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.outputs.result import FrameResult, compute_pixels
from clipseg_ros.prompts.set import ActivePrompt
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import command_input, image_output
from clipseg_ros.segment.region import find_region, read_roi

RGB = picture(120, 160, seed=3)
ROI = (40, 24, 80, 60)
REGION = Box(40, 24, 120, 84)
TYPES: dict[str, Any] = {
    'mask': np.uint8,
    'labels': np.uint8,
    'confidence': np.uint8,
    'probability': np.float32,
}


class TestReading:
    def test_nothing_and_zeros_are_the_whole_image(self) -> None:
        for value in ([], (), [0, 0, 0, 0]):
            assert read_roi(value) is None
        assert find_region(None, 3, 4) is None

    def test_a_region_is_that_of_each_image(self) -> None:
        assert read_roi(list(ROI)) == ROI
        assert find_region(ROI, 84, 120) == REGION
        assert find_region(ROI, 1000, 1000) == REGION

    @pytest.mark.parametrize(('height', 'width'), [(83, 1000), (1000, 119), (10, 10)])
    def test_a_region_that_reaches_out(self, height: int, width: int) -> None:
        with pytest.raises(RegionError, match=rf'80 × 60 px at \(40, 24\).*{width} × {height} px'):
            find_region(ROI, height, width)


def test_points_are_where_they_are_in_the_whole_image(tiny_model: Path) -> None:
    """The same cloud as of an image in which all else is masked."""
    segmenter = create_model(tiny_model, 'cpu')
    part = segmenter.segment(np.ascontiguousarray(RGB[REGION.slices]), ['the mug', 'red bowl'])
    prompts = tuple(ActivePrompt(n, r.prompt) for n, r in enumerate(part.results, start=1))
    found = part.within(REGION, 120, 160)
    pixels = compute_pixels(found, prompts, ['points'], Scratch())
    header = Header(frame_id='camera')
    result = FrameResult(header, RGB, prompts, found, pixels, frozenset({'points'}))
    depth = array_to_image(np.full((120, 160), 2.0, np.float32), '32FC1', header)
    info = CameraInfo(header=header, height=120, width=160, distortion_model='plumb_bob')
    info.k = [100.0, 0.0, 80.0, 0.0, 100.0, 60.0, 0.0, 0.0, 1.0]
    settings = DepthSettings()
    points = PointMaker(lambda *_: None).make(result, depth, info, settings, True, True)
    assert points.cloud is not None
    assert points.cloud.size == np.count_nonzero(part.labels()) > 0
    columns = np.rint(points.cloud['x'] / 2 * 100 + 80).astype(int)
    rows = np.rint(points.cloud['y'] / 2 * 100 + 60).astype(int)
    np.testing.assert_array_equal(points.cloud['label'], found.labels()[rows, columns])
    assert columns.min() >= 40
    assert columns.max() < 120
    for surface, result in zip(points.surfaces, part.results, strict=True):
        assert surface is not None
        y, x = np.nonzero(result.mask)
        expected = (x.mean() + 40 - 80) / 100 * 2, (y.mean() + 24 - 60) / 100 * 2, 2.0
        np.testing.assert_allclose(surface.centroid, expected, atol=1e-6)


class Bench:
    """A camera, and who listens to the shared node."""

    def __init__(self, node: NodeProcess, peer: Peer) -> None:
        self.node, self.peer = node, peer
        kinds: dict[str, Any] = dict.fromkeys((*TYPES, 'overlay'), Image)
        interfaces = load_interfaces()
        if interfaces is not None:
            kinds['segments'] = interfaces.SegmentArray
        self.received = {
            name: peer.collect(kind, f'/region/clipseg/{name}', image_output())
            for name, kind in kinds.items()
        }
        self.diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
        self.images = peer.publisher(Image, '/region/image', image_output())
        wait_until(
            lambda: all(peer.node.count_publishers(f'/region/clipseg/{name}') for name in kinds)
        )

    def set(self, value: Any) -> Any:
        return self.peer.set_parameter('/region/clipseg', 'roi', value)

    def status(self) -> Any:
        def own() -> list[Any]:
            all_of_them = [array.status[0] for array in list(self.diagnostics)]
            return [status for status in all_of_them if status.name.startswith('region/')]

        return wait_until(own, what='diagnostics of the node')[-1]

    def ask(self, rgb: NDArray[np.uint8] = RGB) -> dict[str, Any]:
        """Publishes an image until all outputs have answered it."""
        image = self.peer.stamped(rgb)
        answers = until_answered(self.images, image, *self.received.values())
        found = dict(zip(self.received, answers, strict=True))
        for name in TYPES:
            assert found[name].header == image.header
            assert (found[name].height, found[name].width) == rgb.shape[:2]
        return found


@pytest.fixture(scope='module')
def the_bench(built: dict[str, str], domain: int, tiny_model: Path, peer: Peer) -> Iterator[Bench]:
    with running_node(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'",
         'roi': '[0, 0, 20, 20]'},
        ['-r', '__ns:=/region'],
        built,
    ) as node:  # fmt: skip
        yield Bench(node, peer)


@pytest.fixture
def bench(the_bench: Bench) -> Bench:
    assert the_bench.set([0, 0, 0, 0]).successful
    return the_bench


def pixels(message: Image, name: str) -> NDArray[Any]:
    return np.frombuffer(message.data, TYPES[name]).reshape(message.height, message.width)


def test_a_region_given_at_start(the_bench: Bench) -> None:
    assert list(the_bench.peer.get_parameter('/region/clipseg', 'roi')) == [0, 0, 20, 20]
    labels = pixels(the_bench.ask()['labels'], 'labels')
    assert labels[:20, :20].any()
    assert not labels[20:].any()
    assert not labels[:, 20:].any()


def test_only_the_region_is_segmented(bench: Bench, tiny_model: Path) -> None:
    part = create_model(tiny_model, 'cpu').segment(
        np.ascontiguousarray(RGB[REGION.slices]), ['the mug', 'red bowl']
    )
    whole = bench.ask()
    assert bench.set(list(ROI)).successful
    found = bench.ask()
    outside = np.ones((120, 160), bool)
    outside[REGION.slices] = False
    for name in TYPES:
        array = pixels(found[name], name)
        assert (array[outside] == 0).all(), name
        right = getattr(part, name)()
        inside = array[REGION.slices].astype(float)
        assert np.mean(np.abs(inside - right) > (1e-4 if name == 'probability' else 1)) < 1e-3
    overlay = np.frombuffer(found['overlay'].data, np.uint8).reshape(120, 160, 3)
    untouched = outside.copy()
    untouched[:40] = False  # The legend.
    np.testing.assert_array_equal(overlay[untouched], RGB[untouched])
    if 'segments' in found:
        for segment, result in zip(found['segments'].segments, part.results, strict=True):
            y, x = np.nonzero(result.mask)
            box = segment.box
            assert (box.x_offset, box.y_offset) == (x.min() + 40, y.min() + 24)
            assert segment.centroid.x == pytest.approx(x.mean() + 40, abs=0.1)
            assert segment.centroid.y == pytest.approx(y.mean() + 24, abs=0.1)
            assert segment.area == pytest.approx(x.size, abs=3)
    assert bench.set([]).successful
    again = bench.ask()
    for name in TYPES:
        np.testing.assert_array_equal(pixels(again[name], name), pixels(whole[name], name))


def test_what_is_picked_has_coordinates_of_the_whole_image(bench: Bench) -> None:
    assert bench.set(list(ROI)).successful
    labels = pixels(bench.ask()['labels'], 'labels')
    rows, columns = np.nonzero(labels)
    middle = rows.size // 2
    publisher = bench.peer.publisher(Point, '/region/clipseg/pick_point', command_input())
    since = len(bench.node.lines)
    try:
        publisher.publish(Point(x=float(columns[middle]), y=float(rows[middle])))
        line = bench.node.wait_for('the part of the mask under the point', since=since)
        assert 'of a frame of 160 × 120 px' in line
        x, y, width, height = literal_eval(line.split('box ')[1].split(' of a frame')[0])
        assert REGION.left <= x <= columns[middle] < x + width <= REGION.right
        assert REGION.top <= y <= rows[middle] < y + height <= REGION.bottom
    finally:
        # A blank text drops the picture too.
        assert bench.peer.set_parameter('/region/clipseg', 'prompt', '').successful
        assert bench.peer.set_parameter('/region/clipseg', 'prompt', 'the mug; red bowl').successful
        bench.peer.node.destroy_publisher(publisher)


def test_an_image_that_the_region_reaches_out_of(bench: Bench) -> None:
    assert bench.set(list(ROI)).successful
    since = len(bench.node.lines)
    small = bench.peer.stamped(picture(48, 64))
    words = 'the region of interest, 80 × 60 px at (40, 24), reaches out of the image of 64 × 48 px'

    def reported() -> bool:
        bench.images.publish(small)
        time.sleep(0.05)
        status = bench.status()
        return bool(status.level == b'\x02' and words in status.message)

    wait_until(reported, what='the reason in the diagnostics')
    line = bench.node.wait_for(words, since=since)
    assert '[ERROR]' in line
    assert 'set the parameter roi within it' in line
    assert bench.node.count(words, since) == 1
    assert not [m for m in list(bench.received['mask']) if stamp_of(m) == stamp_of(small)]
    bench.ask()
    wait_until(lambda: bench.status().level == b'\x00', what='good again')


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ([0, 0, 0, 60], 'width 0'),
        ([-1, 0, 10, 10], 'x -1'),
        ([1, 2, 3], '[1, 2, 3] is not x, y, width and height'),
        ([0.5, 0.0, 10.0, 10.0], 'four whole numbers'),
        ('left half', "'left half' is not"),
        ([0, 0, 2_000_000, 10], '1,000,000'),
    ],
)
def test_values_that_are_refused(bench: Bench, value: Any, words: str) -> None:
    result = bench.set(value)
    assert not result.successful
    assert 'roi' in result.reason
    assert words in result.reason
    assert list(bench.peer.get_parameter('/region/clipseg', 'roi')) == [0, 0, 0, 0]
