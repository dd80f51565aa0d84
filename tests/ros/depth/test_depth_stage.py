"""What the 3D part says, and to whom: only to those who asked, of what is true now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from ros_peers import wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from clipseg_ros.depth import stage as stage_module
from clipseg_ros.depth.inputs import STREAMS
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.stage import DepthStage
from clipseg_ros.errors import DepthError
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import QosWatch

SETTINGS = DepthSettings(wait=0.02)


class Outputs:
    """Says who subscribes, and keeps what is published."""

    def __init__(self) -> None:
        self.subscribed: set[str] = set()
        self.published: list[Any] = []

    def wants(self, name: str) -> bool:
        return name in self.subscribed

    def segment_array(self, result: Any) -> str:
        return f'segments of {result.header.stamp.sec}'

    def publish(self, name: str, message: Any) -> None:
        self.published.append(message)


class Rig:
    def __init__(self, node: Any) -> None:
        self.node, self.outputs, self.lines = node, Outputs(), []  # type: ignore[var-annotated]
        log = ThrottledLog(SimpleNamespace(warning=self.lines.append, error=self.lines.append), 0.0)
        outputs: Any = self.outputs
        self.stage = DepthStage(node, QosWatch(node), outputs, SETTINGS, log)
        self.stage.start()
        self.publishers: list[Any] = []

    def listen(self, *names: str) -> None:
        self.outputs.subscribed = set(names)
        self.stage._update()

    def camera(self) -> None:
        """Publishers of depth and calibration, which send nothing."""
        for topic, kind in (('depth', Image), ('camera_info', CameraInfo)):
            self.publishers.append(self.node.create_publisher(kind, topic, 1))
        wait_until(lambda: all(self.node.count_publishers(t) for t in ('depth', 'camera_info')))
        self.stage._update()

    def put(self, second: int) -> None:
        """A segmented frame, for those who listen."""
        header = Header(frame_id='lens')
        header.stamp.sec = second
        waits = self.stage.takes_segments
        wanted = frozenset(self.outputs.subscribed)
        result: Any = SimpleNamespace(header=header, wanted=wanted, segments_wait=waits)
        self.stage.put(result)

    def settle(self) -> None:
        """Waits until what was put is dealt with, and its subscriptions are old."""
        time.sleep(0.15)
        self.stage._inputs.opened = -100.0


@pytest.fixture
def rig(domain: int) -> Iterator[Rig]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('space', context=context, namespace='/stage')
    made = Rig(node)
    yield made
    made.stage.destroy()
    node.destroy_node()
    context.try_shutdown()


def test_nobody_who_listens_to_segments_alone_hears_of_a_camera_without_depth(rig: Rig) -> None:
    rig.listen('segments')
    rig.settle()
    for second in range(1, 6):
        rig.put(second)
    rig.settle()
    assert rig.lines == []
    assert rig.stage.fault() == ''
    assert rig.stage.values()['depth_unmatched'] == '0'


def test_who_asks_for_points_hears_why_there_are_none(rig: Rig) -> None:
    rig.listen('points')
    rig.settle()
    rig.put(1)
    wait_until(lambda: rig.lines)
    assert 'no depth on /stage/depth' in rig.lines[0]


def test_segments_of_a_depth_camera_are_published_though_its_depth_does_not_come(rig: Rig) -> None:
    rig.camera()
    rig.listen('segments')
    assert rig.stage.takes_segments
    rig.settle()
    rig.put(7)
    wait_until(lambda: rig.outputs.published == ['segments of 7'])
    assert rig.lines, 'it is there to give positions, and says why it does not'


def test_the_first_frames_after_a_subscription_are_no_fault(rig: Rig) -> None:
    """Their depth was sent before; that of an earlier subscription says nothing of them."""
    rig.camera()
    rig.listen('points')
    with rig.stage._inputs._condition:
        rig.stage._inputs._matcher.add('depth', 10**9, 'old')
    rig.listen()
    time.sleep(0.05)
    rig.listen('points')
    rig.put(41)
    time.sleep(0.2)
    assert rig.lines == []
    assert rig.stage.fault() == ''
    rig.settle()
    rig.put(42)
    wait_until(lambda: rig.lines)
    assert 'earlier' not in rig.lines[0]
    assert f'within {SETTINGS.wait:g} s' in rig.lines[0]


@pytest.mark.parametrize('change', ['listener', 'parameter'])
def test_a_fault_ends_with_its_cause(rig: Rig, change: str) -> None:
    rig.camera()
    rig.listen('points')
    rig.settle()
    rig.put(1)
    wait_until(rig.stage.fault)
    rig.stage._transform_fault = 'no transform'
    if change == 'listener':
        rig.listen()
        rig.listen('points')
    else:
        rig.stage.set_parameters(DepthSettings(distortion='rectified'))
    assert rig.stage.fault() == ''


def test_a_bad_image_is_told_however_new_the_subscription_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.camera()
    rig.listen('points')

    def refuse(*_: Any) -> None:
        raise DepthError('size', 'depth is 80x60')

    monkeypatch.setattr(rig.stage._maker, 'make', refuse)
    for stream in STREAMS:
        with rig.stage._inputs._condition:
            rig.stage._inputs._matcher.add(stream, 3 * 10**9, 'new')
    rig.put(3)
    wait_until(lambda: rig.lines)
    assert 'depth is 80x60' in rig.lines[0]


def test_a_frame_that_has_no_transform(rig: Rig) -> None:
    """Without tf2 here, or without the transform."""
    stage, stamp = rig.stage, Header().stamp

    def refuse(*_: Any) -> None:
        raise DepthError('transform', 'no transform from lens to map')

    stage._lookup.find = refuse  # type: ignore[method-assign, assignment]
    assert stage._find_transform('map', 'lens', stamp) is None
    assert stage._transform_fault == 'points stay in lens: no transform from lens to map'
    stage.set_parameters(DepthSettings(strict_frame=True))
    with pytest.raises(DepthError, match=r'^strict_frame: no transform from lens to map'):
        stage._find_transform('map', 'lens', stamp)
    assert stage._transform_fault == ''


def test_strict_frames_have_no_points_and_say_why(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.camera()
    rig.listen('points', 'segments')
    stage = rig.stage
    stage.set_parameters(DepthSettings(target_frame='map', strict_frame=True))

    def make(*_: Any) -> None:
        stage._find_transform('map', 'lens', Header().stamp)

    monkeypatch.setattr(stage._maker, 'make', make)
    monkeypatch.setattr(stage._lookup, 'installed', False)
    for stream in STREAMS:
        with stage._inputs._condition:
            stage._inputs._matcher.add(stream, 3 * 10**9, 'new')
    rig.put(3)
    wait_until(lambda: rig.outputs.published)
    assert rig.outputs.published == ['segments of 3'], 'without positions'
    assert stage.fault().startswith('strict_frame: target_frame is set, but tf2_ros')


@pytest.mark.parametrize('strict', [False, True])
def test_who_left_meanwhile_hears_nothing_of_transforms(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """The last listener leaves, and transforms are let go of, while a frame is in work."""
    rig.camera()
    stage = rig.stage
    monkeypatch.setattr(stage._lookup, 'installed', True)
    monkeypatch.setattr(stage._lookup, 'open', lambda: None)
    rig.listen('points')
    stage.set_parameters(DepthSettings(target_frame='map', strict_frame=strict))
    done: list[str] = []

    def make(*_: Any) -> None:
        try:
            assert stage._find_transform('map', 'lens', Header().stamp) is None
        finally:
            done.append('made')

    monkeypatch.setattr(stage._maker, 'make', make)
    for stream in STREAMS:
        with stage._inputs._condition:
            stage._inputs._matcher.add(stream, 3 * 10**9, 'new')
    rig.put(3)
    wait_until(lambda: done)
    time.sleep(0.1)
    assert rig.lines == []
    assert stage.fault() == ''


def test_that_tf2_is_missing_is_told_once_to_those_who_listen(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, stamp = rig.stage, Header().stamp
    monkeypatch.setattr(stage._lookup, 'installed', False)
    for told in (1, 2):
        rig.listen('points')
        for _ in range(3):
            assert stage._find_transform('map', 'lens', stamp) is None
            assert 'tf2_ros is not installed' in stage.fault() + stage._transform_fault
        assert len(rig.lines) == told
        rig.listen()


@pytest.mark.parametrize('enabled', [True, False])
def test_a_claim_has_transforms_and_depth_listened_to(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    stage, open_now = rig.stage, [False]
    monkeypatch.setattr(stage._lookup, 'open', lambda: open_now.__setitem__(0, True))
    monkeypatch.setattr(stage._lookup, 'close', lambda: open_now.__setitem__(0, False))
    stage.set_parameters(DepthSettings(target_frame='map', enabled=enabled))

    def listened() -> tuple[bool, bool]:
        stage._update()
        return open_now[0], stage._inputs.is_open

    assert listened() == (False, False)
    stage.claim(own_depth=True)
    assert listened() == (True, False), 'who brings depth needs no other'
    stage.claim()
    assert listened() == (True, enabled)
    stage.release()
    assert listened() == (True, False)
    stage.release(own_depth=True)
    assert listened() == (False, False)


@pytest.mark.parametrize('strict', [False, True])
def test_who_asks_once_hears_why_positions_are_not_moved(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """And nobody else does: it is no fault of the stream."""
    stage, patient = rig.stage, []
    stage.set_parameters(DepthSettings(target_frame='map', strict_frame=strict))
    stage._lookup.opened = time.monotonic()

    def refuse(target: str, source: str, stamp: Any, patience: float) -> None:
        patient.append(patience)
        raise DepthError('transform', f'no transform from {source} to {target}')

    class Maker:
        def __init__(self, find: Any) -> None:
            self.find = find

        def make(self, *_: Any, **__: Any) -> str:
            assert self.find('map', 'lens', Header().stamp) is None
            return 'points'

    monkeypatch.setattr(stage_module, 'PointMaker', Maker)
    stage._lookup.find = refuse  # type: ignore[method-assign, assignment]
    said, unread = 'points stay in lens: no transform from lens to map', SimpleNamespace()
    asked: Any = unread, unread, unread
    if strict:
        with pytest.raises(DepthError, match=r'^strict_frame: no transform from lens to map'):
            stage.locate(*asked, until=time.monotonic() + 60.0)
    else:
        assert stage.locate(*asked, until=time.monotonic() + 60.0) == ('points', said)
        stage.locate(*asked, until=time.monotonic())
        assert patient.pop() == 0.1, 'not beyond the time of the request'
    assert patient[0] > 1.0, 'the publisher may be unheard yet'
    assert stage._transform_fault == ''
    assert rig.lines == []
