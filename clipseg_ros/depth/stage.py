"""The node's 3D part: depth and calibration come in, points and positions go out.

A thread of its own waits for the depth and calibration of each segmented frame, so that late or
missing depth delays no other output.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from std_msgs.msg import Header

from clipseg_ros.depth.box_messages import MarkerLife, detection_3d_array, marker_array
from clipseg_ros.depth.clouds import point_cloud
from clipseg_ros.depth.inputs import DepthInputs
from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.points import PointMaker, PointsInSpace, add_positions
from clipseg_ros.depth.stamp_matching import Match
from clipseg_ros.depth.transforms import CLOSED, TF2_MISSING, RigidTransform, TransformLookup
from clipseg_ros.errors import DepthError, ImageConversionError
from clipseg_ros.outputs.publishers import SegmentOutputs
from clipseg_ros.outputs.result import IN_SPACE, FrameResult
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import QosWatch
from clipseg_ros.ros.timing import create_steady_timer, stamp_of

_PERIOD = 0.2
# Seconds from subscribing until a publisher that is there can be expected to be heard.
_SETTLING = 2.0
_TRANSFORM_PATIENCE = 0.1  # Seconds that a transform may be late.
_OUTPUTS = ('points', *sorted(IN_SPACE))


class DepthStage:
    """Makes ``~/points``, the boxes of things, and the positions in ``~/segments``.

    It subscribes to depth and calibration while one of these outputs has subscribers. A frame
    without depth has ``~/segments`` without positions; while nobody publishes depth or calibration,
    ``~/segments`` is not published here.

    Attributes:
        takes_segments: Whether ``~/segments`` of a frame that is put here is published here.
    """

    def __init__(
        self,
        node: Any,
        watch: QosWatch,
        outputs: SegmentOutputs,
        settings: DepthSettings,
        log: ThrottledLog,
    ) -> None:
        self._node, self._outputs = node, outputs
        self._settings, self._log = settings, log
        self._inputs = DepthInputs(node, watch, settings.transport)
        self._lookup = TransformLookup(node)
        self._maker = PointMaker(self._find_transform)
        self._told_missing = False
        self._marker_life = MarkerLife()
        self.takes_segments = False
        self._fault = self._transform_fault = ''
        self._published = 0
        self._claims = self._transform_claims = 0
        self._thread: threading.Thread | None = None
        self._paused = False
        self._timer = create_steady_timer(node, _PERIOD, self._update)
        self._timer.cancel()

    def start(self) -> None:
        """Start the thread."""
        self._inputs.restart()
        self._fault = self._transform_fault = ''
        self._published = 0
        self._thread = threading.Thread(target=self._work, name='frame_points', daemon=True)
        self._thread.start()
        self._timer.reset()
        self._update()

    def stop(self) -> None:
        """Stop the thread after the frame in work, and unsubscribe."""
        self._timer.cancel()
        self._inputs.stop()
        if self._thread is not None:
            self._thread.join(10.0)
            self._thread = None
        self._close()

    def destroy(self) -> None:
        """Stop for good."""
        self.stop()
        self._node.destroy_timer(self._timer)

    def set_parameters(self, settings: DepthSettings) -> None:
        """Follow the parameters."""
        self._settings = settings
        self._fault = self._transform_fault = ''
        self._update()

    def _update(self) -> None:
        """Open or close subscriptions as parameters and listeners need."""
        settings, outputs = self._settings, self._outputs
        listened = any(outputs.wants(name) for name in (*_OUTPUTS, 'segments'))
        wanted = self._claims > 0 or (listened and not self._paused)
        needed = self._thread is not None and settings.enabled and wanted
        if needed:
            self._inputs.open()
            self.takes_segments = outputs.wants('segments') and not self._inputs.find_unpublished()
        else:
            self._close_inputs()
        if settings.target_frame and (needed or self._transform_claims > 0):
            self._lookup.open()
        else:
            self._lookup.close()

    def pause(self, wish: bool) -> None:
        """Unsubscribe, or go on as is needed."""
        self._paused = wish
        self._update()

    def expect(self, message: Any) -> None:
        """Announce an image whose segmentation begins, given its message."""
        self._inputs.expect(stamp_of(message))

    def put(self, result: FrameResult) -> None:
        """Take a segmented frame; ignore it while nobody listens to what is made of it here."""
        if result.segments_wait or not result.wanted.isdisjoint(_OUTPUTS):
            self._inputs.put(result, self._settings)

    def claim(self, own_depth: bool = False) -> None:
        """Subscribe for somebody, until :meth:`release`; in the executor's thread.

        To depth and transforms; of who has their ``own_depth``, to transforms alone.
        """
        self._transform_claims += 1
        self._claims += not own_depth
        self._update()

    def release(self, own_depth: bool = False) -> None:
        """Take a claim back; in the executor's thread."""
        self._transform_claims -= 1
        self._claims -= not own_depth

    def unavailable(self) -> str:
        """Return why no depth can be had; empty where it can be expected."""
        if not self._settings.enabled:
            return 'the parameter depth is false: set it to true'
        return self._inputs.find_unpublished()

    def partners(self, stamp: int) -> dict[str, Any]:
        """Return depth and calibration of an image, by stream, as far as they are there."""
        return self._inputs.find(stamp, self._settings.slop)

    def locate(
        self, result: FrameResult, depth: Any, info: Any, until: float
    ) -> tuple[PointsInSpace, str]:
        """Return the surfaces of a frame, and why they are not in the target frame, or nothing.

        For threads other than the executor's, after :meth:`claim`. A transform is waited for as
        long as its publisher may be unheard yet, up to ``until``, of ``time.monotonic``.

        Raises:
            ImageConversionError, DepthError: As :meth:`PointMaker.make`.
        """
        faults: list[str] = []

        def find(target: str, source: str, stamp: Any) -> RigidTransform | None:
            settled = min(until, self._lookup.opened + _SETTLING)
            patience = max(_TRANSFORM_PATIENCE, settled - time.monotonic())
            try:
                return self._lookup.find(target, source, stamp, patience)
            except DepthError as error:
                faults.append(self._stay(source, error))
                return None

        maker = PointMaker(find)
        points = maker.make(result, depth, info, self._settings, cloud=False, surfaces=True)
        return points, '; '.join(faults)

    def fault(self) -> str:
        """Return why there are no points, or not in the target frame; empty where all is well.

        While only ``~/segments`` has subscribers, a missing depth camera is no fault.
        """
        wanted = [name for name in _OUTPUTS if self._outputs.wants(name)]
        if self._thread is None or not (wanted or self.takes_segments):
            return ''
        if wanted and not self._settings.enabled:
            return f'~/{wanted[0]} needs depth, and the parameter depth is false: set it to true'
        return self._inputs.find_unpublished() or self._fault or self._transform_fault

    def values(self) -> dict[str, str]:
        """Return facts for the diagnostics."""
        counts = {f'depth_{fate}': str(count) for fate, count in self._inputs.counts.items()}
        return {'points_published': str(self._published)} | counts

    def _close(self) -> None:
        self._close_inputs()
        self._lookup.close()

    def _close_inputs(self) -> None:
        self.takes_segments = False
        self._fault = self._transform_fault = ''
        # Who listens next hears it again.
        self._told_missing = False
        self._marker_life.forget()
        self._inputs.close()

    def _work(self) -> None:
        while (match := self._inputs.take()) is not None:
            try:
                self._publish(match)
            except Exception as error:
                if not self._node.context.ok():
                    return  # The process is ending, and publishing failed for that reason.
                self._fault = f'{type(error).__name__}: {error}'
                self._log.error('points', f'no points: {self._fault}')

    def _publish(self, match: Match[FrameResult]) -> None:
        result, outputs = match.frame, self._outputs
        cloud = 'points' in result.wanted
        boxes = not result.wanted.isdisjoint(IN_SPACE)
        segments = 'segments' in result.wanted and result.segments_wait
        points: PointsInSpace | None = None
        try:
            if match.missing:
                raise self._inputs.explain(match.missing, self._settings)
            self._transform_fault = ''
            points = self._maker.make(
                result,
                match.partners['depth'],
                match.partners['camera_info'],
                self._settings,
                cloud,
                segments,
                boxes,
            )
            self._fault = ''
        except (DepthError, ImageConversionError) as error:
            # What was sent before this node had subscribed is not missing, nor is what nobody
            # listens to any more.
            early = match.missing and time.monotonic() - self._inputs.opened < _SETTLING
            if not (early or error.kind == CLOSED):
                unreadable = isinstance(error, ImageConversionError)
                self._fault = f'bad depth image: {error}' if unreadable else str(error)
                self._log.warning(f'points {error.kind}', f'image without points: {self._fault}')
        if segments:
            message = outputs.segment_array(result)
            if points is not None:
                add_positions(message, points)
            outputs.publish('segments', message)
        if points is not None and points.cloud is not None:
            header = Header(stamp=result.header.stamp, frame_id=points.frame_id)
            outputs.publish('points', point_cloud(header, points.cloud))
            self._published += 1
        if points is not None and boxes:
            self._publish_boxes(result, points)

    def _publish_boxes(self, result: FrameResult, points: PointsInSpace) -> None:
        header = Header(stamp=result.header.stamp, frame_id=points.frame_id)
        found, outputs = (header, result.things, points.boxes), self._outputs
        if 'detections_3d' in result.wanted:
            outputs.publish('detections_3d', detection_3d_array(outputs.vision, *found))
        if 'markers' in result.wanted:
            life = self._marker_life.next(self._node.get_clock().now().nanoseconds * 1e-9)
            markers = marker_array(outputs.markers, *found, result.palette, life)
            outputs.publish('markers', markers)

    def _find_transform(self, target: str, source: str, stamp: Any) -> RigidTransform | None:
        """Return the transform; None, after a report, where there is none and none is demanded.

        Raises:
            DepthError: There is none, and ``strict_frame`` is on.
        """
        try:
            return self._lookup.find(target, source, stamp)
        except DepthError as error:
            fault = self._stay(source, error)
            if error.kind == CLOSED:
                return None
            self._transform_fault = fault
            # Once for those who listen now: nothing is installed while this process lives.
            if str(error) != TF2_MISSING or not self._told_missing:
                self._told_missing |= str(error) == TF2_MISSING
                self._log.warning(f'points {error.kind}', fault)
            return None

    def _stay(self, source: str, error: DepthError) -> str:
        """Return that points stay in the frame of the image, and why.

        Raises:
            DepthError: ``strict_frame`` is on.
        """
        if self._settings.strict_frame:
            raise DepthError(error.kind, f'strict_frame: {error}') from error
        return f'points stay in {source}: {error}'
