"""How a request for one answer is carried out: its image, its turn at the model, its positions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from clipseg_model.errors import PromptError
from clipseg_model.outputs.frame_outputs import Scratch
from clipseg_model.segmentation import Segmentation
from clipseg_ros.depth.points import add_positions
from clipseg_ros.errors import DepthError, ImageConversionError, OnceError
from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.outputs.once import OnceAnswer, OnceRequest
from clipseg_ros.outputs.result import FrameResult, compute_pixels
from clipseg_ros.prompts.messages import read_message
from clipseg_ros.prompts.set import PromptSet, pictured, reported
from clipseg_ros.ros.timing import stamp_of
from clipseg_ros.segment.pipeline import FrameRequest
from clipseg_ros.segment.stream import CameraStream

SHARE = 0.09
"""Share of the model's time that such requests may take from a camera that needs it."""

_LOOK = 0.01  # Seconds between two looks at what is waited for.
_DISCOVERY = 2.0  # Seconds that a new subscription to depth may need to find its publisher.
_CANDIDATES = 8
_ACTIVE = 1.0  # Seconds without an image after which nobody takes the camera for active.


class Pace:
    """Limits the share of the time that is taken; the first to come need not wait."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._due = 0.0

    def seconds_left(self) -> float:
        """Return how long to wait yet; 0 or less where the next may begin."""
        return self._due - self._clock()

    def spend(self, seconds: float) -> None:
        """Take note of time that was taken up to now."""
        self._due = self._clock() + seconds * (1.0 / self._share - 1.0)


class OneShot:
    """Answers requests from several threads on the node's stream.

    Args:
        stream: Returns the stream; None while the node is not configured.
        rest: Returns why the node cannot answer; empty where it can.
        prompts: The active prompts, whose pictures a request may use.
        check: Raises a PromptError for prompts that the model cannot read.
    """

    def __init__(
        self,
        stream: Callable[[], CameraStream | None],
        rest: Callable[[], str],
        prompts: PromptSet,
        check: Callable[[Any], None],
    ) -> None:
        self._stream, self._rest = stream, rest
        self._prompts, self._check = prompts, check
        # Who waits for the model, the first to come first.
        self._line: list[_Errand] = []
        self._pace = Pace(SHARE)

    def accept(self, request: Any, wait: float, until: float) -> OnceRequest:
        """Read a ``clipseg_ros/SegmentOnce`` request, in the executor's thread.

        Raises:
            OnceError: The node cannot answer now, or the request contradicts itself.
            PromptError: There is no prompt, or one cannot be read.
        """
        stream = self._working()
        pictures = pictured(self._prompts.active)
        asked = PromptSet()
        most = stream.settings.max_pixels
        asked.replace([read_message(message, pictures, most) for message in request.prompts])
        if not asked.reported:
            raise PromptError(
                f'{len(request.prompts)} prompt(s), and none is enabled and not negative: say what '
                'to find'
            )
        self._check([entry.prompt for entry in asked.enabled])
        image = _given(request.image)
        depth = _given(request.depth)
        if depth is not None and image is None:
            raise OnceError(
                'the request has depth and no image: give the image that it belongs to, or leave '
                "both empty for the camera's newest"
            )
        claims = ExitStack()
        if image is None:
            stream.images.claim()
            claims.callback(stream.images.release)
        if request.positions and (image is None or depth is not None):
            # Of depth of the request's own, positions may have to be moved to another frame.
            stream.depth.claim(own_depth=depth is not None)
            claims.callback(stream.depth.release, own_depth=depth is not None)
        return OnceRequest(
            image,
            depth,
            request.camera_info,
            asked.enabled,
            request.positions,
            wait,
            until,
            claims.close,
        )

    def answer(self, request: OnceRequest) -> OnceAnswer:
        """Answer a request, in a thread that may wait.

        Raises:
            OnceError: There is no image in time, or the model is not free in time.
            ImageConversionError: The image cannot be read.
            ClipsegError: The model refuses it.
        """
        stream = self._working()
        if request.image is None:
            message, partners = self._find_image(stream, request)
            rgb = stream.to_rgb(message)
            frame = FrameRequest.of(message, rgb, request.prompts, stream.settings)
        else:
            message = request.image
            partners = {'depth': request.depth, 'camera_info': request.info}
            rgb = image_to_rgb(message, stream.settings.max_pixels)
            frame = FrameRequest(message.header, rgb, request.prompts, stream.settings)
        found = self._segment(stream, frame, request)
        prompts = reported(request.prompts)
        pixels = compute_pixels(found, prompts, (), Scratch())
        result = FrameResult(message.header, frame.rgb, prompts, found, pixels)
        if not request.positions:
            return OnceAnswer(result)
        return self._locate(stream, result, partners, request)

    def _working(self) -> CameraStream:
        reason, stream = self._rest(), self._stream()
        if reason or stream is None or stream.worker is None:
            raise OnceError(reason or 'the node is not active')
        return stream

    def _find_image(self, stream: CameraStream, request: OnceRequest) -> tuple[Any, dict[str, Any]]:
        """Return the newest image, with its depth and calibration where they can be had."""
        depth_wanted = request.positions and not stream.depth.unavailable()
        patience = time.monotonic() + _DISCOVERY + stream.settings.depth.wait
        seen: deque[Any] = deque(maxlen=_CANDIDATES)
        while True:
            newest = stream.newest.message
            if newest is not None and (not seen or seen[-1] is not newest):
                seen.append(newest)
            if seen and not depth_wanted:
                return newest, {}
            for message in reversed(seen):
                partners = stream.depth.partners(stamp_of(message))
                if partners.keys() >= {'depth', 'camera_info'}:
                    return message, partners
            now = time.monotonic()
            if seen and now > min(patience, request.until - _LOOK):
                return newest, {}
            if now > request.until:
                raise OnceError(
                    f'no image arrived within {request.wait:g} s: /diagnostics says why'
                )
            self._working()
            time.sleep(_LOOK)

    def _segment(
        self, stream: CameraStream, frame: FrameRequest, request: OnceRequest
    ) -> Segmentation:
        """Have an image segmented between two frames of the camera."""
        errand = _Errand(lambda: stream.pipeline.segment_once(frame))
        self._line.append(errand)
        try:
            while self._line[0] is not errand or (
                self._pace.seconds_left() > 0 and stream.needs_model(_ACTIVE)
            ):
                self._wait_on(request)
            worker = stream.worker
            if worker is not None:
                worker.run(errand.run)
            while not errand.done.wait(_LOOK):
                self._wait_on(request)
        finally:
            errand.cancelled = True
            if errand.started:
                self._pace.spend(time.monotonic() - errand.started)
            self._line.remove(errand)
        if errand.error is not None:
            raise errand.error
        assert errand.found is not None
        return errand.found

    def _wait_on(self, request: OnceRequest) -> None:
        """Wait a moment; raises an OnceError where that is of no use any more."""
        self._working()
        if time.monotonic() > request.until:
            raise OnceError(
                f'the model was not free within {request.wait:g} s: the camera comes first, and '
                'other requests before this one; wait longer, or ask less often'
            )
        time.sleep(_LOOK)

    def _locate(
        self,
        stream: CameraStream,
        result: FrameResult,
        partners: dict[str, Any],
        request: OnceRequest,
    ) -> OnceAnswer:
        depth, info = partners.get('depth'), partners.get('camera_info')
        if depth is None or info is None:
            if request.image is not None:
                return OnceAnswer(result, remark='the request has no depth')
            missing = (
                stream.depth.unavailable() or 'depth and calibration of the image did not come'
            )
            return OnceAnswer(result, remark=missing)
        try:
            points, fault = stream.depth.locate(result, depth, info, request.until)
        except (DepthError, ImageConversionError) as error:
            return OnceAnswer(result, remark=str(error))
        return OnceAnswer(result, lambda message: add_positions(message, points), fault)


class _Errand:
    """One call of the model, in the thread that owns it.

    Attributes:
        done: Set at the end.
        found: What it returned.
        error: What it raised.
        started: When it was begun, of ``time.monotonic``; 0 before.
        cancelled: Whether nobody waits for it any more.
    """

    def __init__(self, act: Callable[[], Segmentation]) -> None:
        self._act = act
        self.done = threading.Event()
        self.found: Segmentation | None = None
        self.error: Exception | None = None
        self.started = 0.0
        self.cancelled = False

    def run(self) -> None:
        """Call the model, unless it was given up before."""
        if self.cancelled:
            return
        self.started = time.monotonic()
        try:
            self.found = self._act()
        # Raised again in the thread that waits.
        except Exception as error:
            self.error = error
        self.done.set()


def _given(image: Any) -> Any:
    """Return an image message, or None for one that nobody filled in."""
    return image if image.width or image.height or len(image.data) else None
