"""The topics ``depth`` and ``camera_info``: subscribed to on demand, and matched with frames."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.qos import QoSDurabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from clipseg_ros.depth.parameters import DepthSettings
from clipseg_ros.depth.stamp_matching import Match, StampMatcher
from clipseg_ros.errors import DepthError
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.ros.distributions import SubscriptionEventCallbacks
from clipseg_ros.ros.qos import QosWatch, latched_output, matched_input
from clipseg_ros.ros.timing import stamp_of

STREAMS = ('depth', 'camera_info')

_LATCHED = 'latched camera_info'


class DepthInputs:
    """Subscriptions to depth and calibration, and what came by them.

    A calibration that is published once for late subscribers (transient local) serves every image.
    Others have to have the stamp of the image. Messages are taken in the executor's thread, matches
    in another.

    Attributes:
        topics: Resolved name of each stream.
        opened: When the streams were last subscribed to, seconds of the monotonic clock.
    """

    def __init__(self, node: Any, watch: QosWatch, transport: str) -> None:
        self._node, self._watch = node, watch
        self.topics = {stream: node.resolve_topic_name(stream) for stream in STREAMS}
        self._types: dict[str, Any] = {'depth': Image, 'camera_info': CameraInfo}
        self._transport = transport
        if transport != 'raw':
            self.topics['depth'] += f'/{transport}'
            self._types['depth'] = CompressedImage
        self._subscriptions: dict[str, Any] = {}
        self._condition = threading.Condition()
        self._matcher: StampMatcher[FrameResult] = StampMatcher(STREAMS)
        self._stopping = False
        self.opened = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the streams are subscribed to."""
        return bool(self._subscriptions)

    @property
    def counts(self) -> dict[str, int]:
        """What became of the frames; see :class:`StampMatcher`."""
        with self._condition:
            return dict(self._matcher.counts)

    def open(self) -> None:
        """Subscribe, unless that is done; called again and again while the streams are needed."""
        if not self._subscriptions:
            self.opened = time.monotonic()
            self._subscriptions = {stream: self._subscribe(stream) for stream in STREAMS}
        # Asking for a latched message shuts out the publishers that do not offer it. So that is
        # done beside the other subscription, and only where one is offered.
        if _LATCHED not in self._subscriptions and self._is_latched('camera_info'):
            self._subscriptions[_LATCHED] = self._node.create_subscription(
                CameraInfo,
                self.topics['camera_info'],
                self._hold,
                latched_output(),
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )

    def close(self) -> None:
        """Unsubscribe."""
        subscriptions, self._subscriptions = self._subscriptions, {}
        for subscription in subscriptions.values():
            self._node.destroy_subscription(subscription)
        with self._condition:
            self._matcher.forget()

    def restart(self) -> None:
        """Forget what came, and let matches be waited for."""
        with self._condition:
            self._matcher = StampMatcher(STREAMS)
            self._stopping = False

    def stop(self) -> None:
        """Let whoever waits for a match return."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    def find_unpublished(self) -> str:
        """Return what to do about a stream that nobody publishes, or an empty string."""
        for stream, topic in self.topics.items():
            if self._node.count_publishers(topic) or self._matcher.has(stream):
                continue
            other = self._other_transport() if stream == 'depth' else ''
            if other:
                return other
            return (
                f'no {stream} on {topic}, nobody publishes it: start it, or remap the topic '
                f'(--ros-args -r {stream}:=/its/topic)'
            )
        return ''

    def expect(self, stamp: int) -> None:
        """Announce an image whose segmentation begins."""
        if self._subscriptions:
            with self._condition:
                self._matcher.expect(stamp)

    def put(self, result: FrameResult, settings: DepthSettings) -> None:
        """Take a segmented frame; ignore it while nothing is subscribed to."""
        if not self._subscriptions:
            return
        with self._condition:
            self._matcher.slop, self._matcher.wait = settings.slop, settings.wait
            self._matcher.put(stamp_of(result), result)
            self._condition.notify_all()

    def take(self) -> Match[FrameResult] | None:
        """Wait for the next frame that need not wait any longer; None after :meth:`stop`."""
        with self._condition:
            while not self._stopping:
                match = self._matcher.take()
                if match is not None:
                    return match
                self._condition.wait(self._matcher.seconds_left())
        return None

    def find(self, stamp: int, slop: int) -> dict[str, Any]:
        """Return what there is now for an image, by stream, given its stamp in nanoseconds."""
        with self._condition:
            self._matcher.slop = slop
            return self._matcher.find(stamp)

    def explain(self, missing: dict[str, int | None], settings: DepthSettings) -> DepthError:
        """Return why a frame has no depth or calibration, of the first that is missing."""
        stream, offset = next(iter(missing.items()))
        topic = self.topics[stream]
        if offset is None:
            return DepthError(
                'silence',
                f'no {stream} on {topic} within {settings.wait:g} s, though it has '
                f'{self._node.count_publishers(topic)} publisher(s): is it running? Large images '
                'between processes need a large shared-memory segment on its side '
                '(config/fastdds.xml)',
            )
        side = 'later' if offset > 0 else 'earlier'
        return DepthError(
            'stamp',
            f"no {stream} on {topic} of the image's stamp: the nearest is {abs(offset) * 1e-6:.1f} "
            f'ms {side}, and depth_slop is {settings.slop * 1e-6:g} ms. Publish both with one '
            f'stamp, raise depth_slop, or, if it comes late, depth_wait ({settings.wait:g} s)',
        )

    def _other_transport(self) -> str:
        """Return that depth is published by the other transport, or an empty string."""
        raw = self.topics['depth'].removesuffix('/compressedDepth')
        other, name = (raw, 'raw') if self._transport != 'raw' else (
            f'{raw}/compressedDepth', 'compressedDepth')  # fmt: skip
        if not self._node.count_publishers(other):
            return ''
        return (
            f'no depth on {self.topics["depth"]}, and {other} is published: start this node with '
            f'-p depth_transport:={name}'
        )

    def _is_latched(self, stream: str) -> bool:
        """Return whether a publisher keeps its last message for late subscribers."""
        return any(
            peer.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
            for peer in self._node.get_publishers_info_by_topic(self.topics[stream])
        )

    def _hold(self, message: Any) -> None:
        with self._condition:
            self._matcher.hold('camera_info', stamp_of(message), message)
            self._condition.notify_all()

    def _subscribe(self, stream: str) -> Any:
        def take(message: Any) -> None:
            with self._condition:
                self._matcher.add(stream, stamp_of(message), message)
                self._condition.notify_all()

        return self._watch.create_subscription(
            self._types[stream], self.topics[stream], take, matched_input()
        )
