"""On a GPU: a frame is uploaded and another downloaded while a third is computed.

Three streams of the device, each with work of its own, and memory that the device can reach by
itself (pinned) at both ends::

    upload     | frame 3 | frame 4 |
    compute              | frame 3 | frame 4 |
    download                       | frame 3 | frame 4 |

The host only hands over work; it waits in :meth:`PendingSegmentation.result`, which belongs into
the thread that publishes. On a CPU there is nothing to overlap, and :func:`make_lanes` refuses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.errors import DeviceError
from clipseg_model.images import check_image
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter

__all__ = ['Lanes', 'OverlappedSegmenter', 'PendingSegmentation', 'make_lanes']

DEPTH = 2
"""Frames under way at once: one that is computed, and one before or after it."""


class Lanes(Protocol):
    """The streams of a device, and what is needed to order work between them.

    :class:`CudaLanes` is the real one; tests have one that runs everything at once and keeps a
    record.
    """

    def lane(self, name: str) -> AbstractContextManager[Any]:
        """What is done inside goes onto the stream ``upload``, ``compute`` or ``download``."""
        ...

    def mark(self, name: str) -> Any:
        """A point in a stream: what was put onto it so far."""
        ...

    def after(self, name: str, mark: Any) -> None:
        """What is put onto a stream from now on waits on the device for a mark."""
        ...

    def wait(self, mark: Any) -> None:
        """The host waits for a mark."""
        ...

    def hold(self, tensor: Tensor, name: str) -> None:
        """Keeps memory that a stream still uses from being given to another."""
        ...

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory that the device can reach by itself."""
        ...


class CudaLanes:
    """Streams of a CUDA device.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._streams = {
            name: torch.cuda.Stream(device) for name in ('upload', 'compute', 'download')
        }
        # The weights may still be on their way.
        for stream in self._streams.values():
            stream.wait_stream(torch.cuda.current_stream(device))

    def lane(self, name: str) -> AbstractContextManager[Any]:
        """See :class:`Lanes`."""
        context: AbstractContextManager[Any] = torch.cuda.stream(self._streams[name])
        return context

    def mark(self, name: str) -> torch.cuda.Event:
        """See :class:`Lanes`."""
        # A blocking event lets the waiting thread sleep: the host's cores belong to the robot.
        event = torch.cuda.Event(blocking=True)
        event.record(self._streams[name])
        return event

    def after(self, name: str, mark: torch.cuda.Event) -> None:
        """See :class:`Lanes`."""
        self._streams[name].wait_event(mark)

    def wait(self, mark: torch.cuda.Event) -> None:
        """See :class:`Lanes`."""
        mark.synchronize()

    def hold(self, tensor: Tensor, name: str) -> None:
        """See :class:`Lanes`."""
        tensor.record_stream(self._streams[name])

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """See :class:`Lanes`."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


def make_lanes(device: torch.device) -> CudaLanes:
    """The streams of a device.

    Raises:
        DeviceError: It is no CUDA device.
    """
    if device.type != 'cuda':
        raise DeviceError(
            f'Frames are overlapped on CUDA devices, not on {str(device)!r}: call '
            'Segmenter.segment() there'
        )
    return CudaLanes(device)


@dataclass(frozen=True)
class _Answer:
    """Logits on their way to the host, the mark after which they are there, and their source."""

    logits: Tensor
    arrived: Any
    reused: bool


class PendingSegmentation:
    """A frame under way.

    Attributes:
        prompts: What is looked for.
    """

    def __init__(
        self,
        owner: OverlappedSegmenter,
        answer: _Answer,
        prompts: list[Prompt],
        threshold: float | None,
        size: tuple[int, int],
    ) -> None:
        self.prompts = prompts
        self._owner, self._answer = owner, answer
        self._threshold, self._size = threshold, size
        self._found: Segmentation | None = None

    def result(self) -> Segmentation:
        """Waits for the logits and returns what they mean; may be called by any one thread.

        Raises:
            ClipsegError: The logits are not finite.
        """
        if self._found is None:
            self._found = self._owner.finish(
                self._answer, self.prompts, self._threshold, self._size
            )
        return self._found


class OverlappedSegmenter:
    """Segments the frames of one size after another, with several under way.

    Args:
        segmenter: The model on a device; not used by others meanwhile. Without zoom: where to
            look closely depends on the answer, for which the device would have to wait.
        lanes: The device's streams; those of ``segmenter.device`` where None.
        depth: Most frames under way; :meth:`start` waits for the oldest beyond it.

    Raises:
        DeviceError: The device is no CUDA device, and no lanes are given.
        ValueError: The segmenter zooms.
    """

    def __init__(
        self, segmenter: Segmenter, lanes: Lanes | None = None, depth: int = DEPTH
    ) -> None:
        if segmenter.zoom is not None:
            raise ValueError('frames cannot overlap with zoom: set segmenter.zoom = None')
        self._segmenter = segmenter
        self._lanes: Lanes = make_lanes(segmenter.device) if lanes is None else lanes
        self._depth = depth
        self._uploads: deque[tuple[Tensor, Any]] = deque()
        self._under_way: deque[Any] = deque()

    @torch.inference_mode()
    def start(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
    ) -> PendingSegmentation:
        """Hands a frame to the device.

        Args:
            image: (H, W, 3) uint8 RGB; copied before this returns.
            prompts: As :meth:`Segmenter.predict` takes them.
            threshold: As :meth:`Segmenter.predict` takes it.

        Raises:
            ImageError: It is no such image.
            PromptError: As :meth:`Segmenter.predict`.
        """
        check_image(image)
        lanes, segmenter = self._lanes, self._segmenter
        while len(self._under_way) >= self._depth:
            lanes.wait(self._under_way.popleft())
        with lanes.lane('compute'):
            wanted = segmenter.prepare(prompts)
        pixels = None
        if not segmenter.is_still(image):
            pixels = self._upload(image)
            lanes.after('compute', lanes.mark('upload'))
        with lanes.lane('compute'):
            if pixels is not None:
                lanes.hold(pixels, 'compute')
            logits = segmenter.infer(pixels, wanted)
        lanes.after('download', lanes.mark('compute'))
        with lanes.lane('download'):
            lanes.hold(logits, 'download')
            host = lanes.pinned(logits.shape, logits.dtype)
            host.copy_(logits, non_blocking=True)
        arrived = lanes.mark('download')
        self._under_way.append(arrived)
        height, width = image.shape[:2]
        answer = _Answer(host, arrived, reused=pixels is None)
        return PendingSegmentation(self, answer, wanted, threshold, (height, width))

    def finish(
        self,
        answer: _Answer,
        prompts: list[Prompt],
        threshold: float | None,
        size: tuple[int, int],
    ) -> Segmentation:
        """Waits for an answer and reads it; see :meth:`PendingSegmentation.result`."""
        self._lanes.wait(answer.arrived)
        found = self._segmenter.read(answer.logits, prompts, threshold, size)
        return replace(found, reused=answer.reused)

    def _upload(self, image: NDArray[np.uint8]) -> Tensor:
        """The image on the device, uint8 (1, 3, H, W), through one of two pinned buffers."""
        buffer = self._buffer(image.shape)
        np.copyto(buffer.numpy(), image)
        with self._lanes.lane('upload'):
            pixels = buffer.to(self._segmenter.device, non_blocking=True)
            if pixels is buffer:
                pixels = buffer.clone()
        self._uploads.append((buffer, self._lanes.mark('upload')))
        return pixels.permute(2, 0, 1)[None]

    def _buffer(self, shape: tuple[int, ...]) -> Tensor:
        """A pinned buffer that the device has read to its end."""
        if len(self._uploads) >= 2:
            buffer, read = self._uploads.popleft()
            self._lanes.wait(read)
            if tuple(buffer.shape) == shape:
                return buffer
        return self._lanes.pinned(shape, torch.uint8)
