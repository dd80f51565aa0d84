"""Executable ``camera``: publishes pictures of a simulated world, of files or of a real camera."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from clipseg_ros.camera.parameters import DECLARATIONS, CameraSettings
from clipseg_ros.camera.sources import TABLETOP, CameraFrame, Source, open_source
from clipseg_ros.errors import SourceError
from clipseg_ros.images.conversion import fill_image
from clipseg_ros.process.runner import run_node
from clipseg_ros.process.tuning import keep_large_buffers
from clipseg_ros.ros.given import GivenParameters, declare
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.parameters import find_problem, read_settings
from clipseg_ros.ros.qos import QosWatch, image_output
from clipseg_ros.ros.timing import create_steady_timer


class CameraNode(GivenParameters, Node):
    """The node ``camera``; raises a SourceError where the source cannot be opened."""

    declarations = DECLARATIONS

    def __init__(self, name: str = 'camera', **options: Any) -> None:
        super().__init__(name, **options)
        self._log = ThrottledLog(self.get_logger())
        self._source: Source | None = None
        self.add_on_set_parameters_callback(self._validate)
        declare(self, CameraSettings)
        self._settings = read_settings(CameraSettings, self)
        self._open()
        self._watch = QosWatch(self)
        self._images = {
            topic: (self._watch.create_publisher(Image, topic, image_output()), Image())
            for topic in ('image', 'depth', '~/instances')
        }
        self._info = self._watch.create_publisher(CameraInfo, 'camera_info', image_output())
        self._started = time.monotonic()
        self._timer = create_steady_timer(self, 1.0 / self._settings.rate, self._tick)
        self._watch_timer = create_steady_timer(self, 1.0, self._watch.warn)
        self.add_post_set_parameters_callback(self._apply)
        self.get_logger().info(
            f'{self._settings.source} at {self._settings.rate:g} Hz on {self._info.topic_name}, '
            f'{self._images["image"][0].topic_name} and {self._images["depth"][0].topic_name}'
        )

    def close(self) -> None:
        """Free the source."""
        self._timer.cancel()
        if self._source is not None:
            self._source.close()
            self._source = None

    def _open(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None
        s = self._settings
        self._source = open_source(
            s.source, width=s.width, height=s.height, seed=s.seed, motion=s.motion, loop=s.loop
        )

    def _tick(self) -> None:
        publishers = (self._info, *(publisher for publisher, _ in self._images.values()))
        if self._source is None or not any(p.get_subscription_count() for p in publishers):
            return
        try:
            frame = self._source.frame(time.monotonic() - self._started)
        except SourceError as error:
            self._log.error('source', str(error))
            return
        if frame is None:
            self.get_logger().info(f'{self._settings.source} is at its end; loop:=true repeats it')
            self.close()
            return
        self._publish(frame)

    def _publish(self, frame: CameraFrame) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._settings.frame_id)
        height, width = frame.rgb.shape[:2]
        self._info.publish(camera_info(header, width, height, frame.intrinsics))
        # The image comes last: whoever receives it then has the messages that belong to it.
        for topic, pixels, encoding in (
            ('~/instances', frame.instances, 'mono8'),
            ('depth', frame.depth, '32FC1'),
            ('image', frame.rgb, 'rgb8'),
        ):
            publisher, message = self._images[topic]
            if pixels is not None and publisher.get_subscription_count():
                fill_image(message, pixels, encoding, header)
                publisher.publish(message)

    def _validate(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            problem = find_problem(DECLARATIONS, parameter.name, parameter.value)
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Sequence[Parameter]) -> None:
        names = {parameter.name for parameter in parameters}
        self._settings = settings = read_settings(CameraSettings, self)
        if 'rate' in names:
            self._timer.timer_period_ns = round(1e9 / settings.rate)
        if names & {'seed', 'motion'} and settings.source == TABLETOP:
            try:
                self._open()
            except SourceError as error:
                self.get_logger().error(str(error))
                return
            self.get_logger().info(f'scene {settings.seed}, {settings.motion}')


def camera_info(
    header: Header, width: int, height: int, intrinsics: NDArray[np.float64] | None
) -> CameraInfo:
    """Return the calibration of a camera without distortion, of a width and height in pixels.

    ``intrinsics`` is the 3 × 3 matrix K; None leaves it zero: not calibrated (REP 104).
    """
    info = CameraInfo(header=header, width=width, height=height)
    if intrinsics is not None:
        info.distortion_model = 'plumb_bob'
        info.d = [0.0] * 5
        info.k = [float(value) for value in intrinsics.ravel()]
        info.r = [float(value) for value in np.eye(3).ravel()]
        info.p = [float(value) for value in np.hstack((intrinsics, np.zeros((3, 1)))).ravel()]
    return info


def main(args: list[str] | None = None) -> int:
    """Run the node; return 0 after a signal, 1 where the source cannot be opened."""
    keep_large_buffers()
    return run_node(CameraNode, args)


if __name__ == '__main__':
    raise SystemExit(main())
