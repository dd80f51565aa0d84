"""Pipeline the frames of a GPU: one is uploaded and another downloaded while a third is computed.

Three CUDA streams, each with work of its own, and pinned host memory at both ends::

    upload     | frame 3 | frame 4 |
    compute              | frame 3 | frame 4 |
    download                       | frame 3 | frame 4 |

The host only enqueues work. It waits in :meth:`PendingSegmentation.result`, which belongs into the
thread that publishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import DeviceError, RegionError
from clipseg_model.images import check_image
from clipseg_model.prompts import Prompt
from clipseg_model.runtime.devices import Device
from clipseg_model.segmentation import Segmentation
from clipseg_model.settings import SegmentSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEPTH = 2
"""Frames under way at once: one that is computed, and one before or after it."""


class CudaStreams:
    """The streams ``upload``, ``compute`` and ``download`` of a CUDA device.

    Raises:
        DeviceError: It is not a CUDA device.
    """

    def __init__(self, device: Device) -> None:
        if device.type != 'cuda':
            raise DeviceError(
                f'Frames are pipelined on CUDA devices, not on {str(device)!r}: call '
                'Segmenter.segment() there'
            )
        import torch

        self._torch = torch
        place = torch.device(str(device))
        self._streams = {
            name: torch.cuda.Stream(place) for name in ('upload', 'compute', 'download')
        }
        # The weights may still be on their way.
        for stream in self._streams.values():
            stream.wait_stream(torch.cuda.current_stream(place))

    def use(self, name: str) -> AbstractContextManager[Any]:
        """Enqueue the work of a ``with`` block on a stream."""
        context: AbstractContextManager[Any] = self._torch.cuda.stream(self._streams[name])
        return context

    def record(self, name: str) -> torch.cuda.Event:
        """Return an event that occurs once all work enqueued on a stream so far is done."""
        # A blocking event lets the waiting thread sleep: the host's cores belong to the robot.
        event = self._torch.cuda.Event(blocking=True)
        event.record(self._streams[name])
        return event

    def wait_event(self, name: str, event: torch.cuda.Event) -> None:
        """Let the work that is enqueued on a stream from now on wait for an event."""
        self._streams[name].wait_event(event)

    def synchronize(self, event: torch.cuda.Event) -> None:
        """Block the host until an event has occurred."""
        event.synchronize()

    def keep(self, tensor: Tensor, name: str) -> None:
        """Keep the memory of a tensor from being reused while a stream still reads it."""
        tensor.record_stream(self._streams[name])

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate pinned host memory."""
        return self._torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


class PendingSegmentation:
    """A frame under way; ``read`` waits for the logits and makes a result of them."""

    def __init__(self, read: Callable[[], Segmentation]) -> None:
        self._read = read
        self._found: Segmentation | None = None

    def result(self) -> Segmentation:
        """Wait, in any one thread, for the results; ClipsegError where logits are not finite."""
        if self._found is None:
            self._found = self._read()
        return self._found


class StreamableSegmenter(Protocol):
    """What :class:`StreamedSegmenter` needs of a segmenter, with the methods of ``Segmenter``."""

    device: Device
    settings: SegmentSettings

    def prepare(
        self, prompts: Sequence[str | Prompt], settings: SegmentSettings | None = None
    ) -> list[Prompt]:
        """See :meth:`Segmenter.prepare`."""

    def is_still(self, image: NDArray[np.uint8], settings: SegmentSettings | None = None) -> bool:
        """See :meth:`Segmenter.is_still`."""

    def infer(
        self,
        pixels: Tensor | None,
        prompts: Sequence[Prompt],
        settings: SegmentSettings | None = None,
    ) -> Tensor:
        """See :meth:`Segmenter.infer`."""

    def read(
        self,
        logits: NDArray[np.float32],
        prompts: Sequence[Prompt],
        threshold: float | None,
        size: tuple[int, int],
    ) -> Segmentation:
        """See :meth:`Segmenter.read`."""


class StreamedSegmenter:
    """Segments frames one after another, with several under way on the device.

    Args:
        segmenter: The model on a device; not used by others meanwhile.
        streams: Those of ``segmenter.device`` where None.
        depth: Most frames under way; :meth:`start` waits for the oldest beyond it.

    Raises:
        DeviceError: The device is not a CUDA device, and no streams are given.
    """

    def __init__(
        self, segmenter: StreamableSegmenter, streams: CudaStreams | None = None, depth: int = DEPTH
    ) -> None:
        self._segmenter = segmenter
        self._streams = CudaStreams(segmenter.device) if streams is None else streams
        self._depth = depth
        self._uploads: deque[tuple[Tensor, Any]] = deque()
        self._under_way: deque[Any] = deque()

    def start(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> PendingSegmentation:
        """Hand a frame to the device; arguments are those of :meth:`Segmenter.predict`.

        The image, (H, W, 3) uint8 RGB, is copied before this returns. Zoom is refused: where to
        look closely depends on the answer, for which the device would have to wait.

        Raises:
            ImageError: It is no such image.
            PromptError: As :meth:`Segmenter.predict`.
            RegionError: The settings have zoom.
        """
        check_image(image)
        streams, segmenter = self._streams, self._segmenter
        settings = settings or segmenter.settings
        if settings.zoom is not None:
            raise RegionError('Frames are not pipelined with zoom: set zoom None in the settings')
        while len(self._under_way) >= self._depth:
            streams.synchronize(self._under_way.popleft())
        with streams.use('compute'):
            wanted = segmenter.prepare(prompts, settings)
        pixels = None
        if not segmenter.is_still(image, settings):
            pixels = self._upload(image)
            streams.wait_event('compute', streams.record('upload'))
        with streams.use('compute'):
            if pixels is not None:
                streams.keep(pixels, 'compute')
            logits = segmenter.infer(pixels, wanted, settings)
        streams.wait_event('download', streams.record('compute'))
        with streams.use('download'):
            streams.keep(logits, 'download')
            host = streams.pinned(logits.shape, logits.dtype)
            host.copy_(logits, non_blocking=True)
        arrived = streams.record('download')
        self._under_way.append(arrived)
        size, reused = (image.shape[0], image.shape[1]), pixels is None

        # Whoever waits for the answer keeps this function, which must not keep the device's memory.
        def read() -> Segmentation:
            streams.synchronize(arrived)
            found = segmenter.read(host.numpy(), wanted, threshold, size)
            return replace(found, reused=reused)

        return PendingSegmentation(read)

    def _upload(self, image: NDArray[np.uint8]) -> Tensor:
        """Upload the image through one of two pinned buffers: uint8 (1, 3, H, W)."""
        buffer = self._buffer(image.shape)
        np.copyto(buffer.numpy(), image)
        with self._streams.use('upload'):
            pixels = buffer.to(str(self._segmenter.device), non_blocking=True)
            if pixels is buffer:
                pixels = buffer.clone()
        self._uploads.append((buffer, self._streams.record('upload')))
        return pixels.permute(2, 0, 1)[None]

    def _buffer(self, shape: tuple[int, ...]) -> Tensor:
        """Return a pinned buffer that the device has read to its end."""
        if len(self._uploads) >= 2:
            buffer, read = self._uploads.popleft()
            self._streams.synchronize(read)
            if tuple(buffer.shape) == shape:
                return buffer
        import torch

        return self._streams.pinned(shape, torch.uint8)
