"""Out of memory in the middle of a frame: free what is kept, and try the frame again, smaller.

The memory that the model needs grows with the number of prompts that are decoded at once, so that
number is halved, on the same device. After a while without trouble all are tried at once again:
the program that took the memory may have ended. The answers are the same either way.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clipseg_model.cuda_streams import PendingSegmentation, StreamedSegmenter
from clipseg_model.errors import DeviceMemoryError
from clipseg_model.prompts import Prompt
from clipseg_model.runtime.base import memory_guard
from clipseg_model.runtime.devices import free_device_memory
from clipseg_model.segmentation import Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_ros.process.tuning import release_freed_memory
from clipseg_ros.segment.loading import NodeSegmenter

PATIENCE = 60.0  # Seconds after the last trouble until all prompts are tried at once again.

Answer = Segmentation | PendingSegmentation


def stream_on_gpu(segmenter: NodeSegmenter) -> StreamedSegmenter | None:
    """Return what keeps several frames under way on a CUDA device; None where it cannot."""
    if segmenter.device.type != 'cuda' or not segmenter.runtime.streams:
        return None
    return StreamedSegmenter(segmenter)


def give_back_memory() -> None:
    """Give back to the system what runtimes and the C library keep for later."""
    gc.collect()
    free_device_memory()
    release_freed_memory()


class MemoryRelief:
    """Segments frames with as many prompts at once as there is memory for.

    Not for use by two threads at once, :meth:`warning` excepted.

    Args:
        segmenter: The model.
        streamed: The same with several frames under way, which takes more memory; None to
            segment one after another.
        report: Logs one line on what was done.

    Attributes:
        at_once: Most prompts that were decoded at once in the last frame; None where there was no
            limit.
    """

    def __init__(
        self,
        segmenter: NodeSegmenter,
        streamed: StreamedSegmenter | None,
        report: Callable[[str], None],
    ) -> None:
        self.segmenter = segmenter
        self.at_once: int | None = None
        self._streamed, self._report = streamed, report
        self._last_trouble = 0.0

    def warning(self) -> str:
        """Return a warning while memory is short, else an empty string."""
        if self.at_once is None or self._is_over():
            return ''
        return (
            f'memory on {self.segmenter.device} is short: prompts are decoded {self.at_once} at a '
            'time, which is slower. End other programs, or choose a smaller model, fewer prompts '
            'or a precision of 16 bits'
        )

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        threshold: float | None,
        settings: SegmentSettings,
    ) -> Answer:
        """Segment an image, and once more with fewer prompts at once where memory runs out.

        Args:
            image: (H, W, 3) uint8 RGB.
            prompts: What to find.
            threshold: As :meth:`Segmenter.segment` takes it.
            settings: The same; ``prompts_at_once`` is set here.

        Returns:
            The answer; on a GPU it may still be under way there.

        Raises:
            DeviceMemoryError: Memory ran out the second time too.
            ClipsegError: As :meth:`Segmenter.segment`.
        """
        if self._is_over():
            self.at_once = None
        answer, problem = self._attempt(image, prompts, threshold, settings)
        if answer is not None:
            return answer
        self.at_once = max(1, min(self.at_once or len(prompts), len(prompts)) // 2)
        self._report(
            f'out of memory: given back what was kept, trying again on {self.segmenter.device} '
            f'with {self.at_once} of {len(prompts)} prompt(s) at a time. {problem}'
        )
        answer, problem = self._attempt(image, prompts, threshold, settings)
        if answer is None:
            raise DeviceMemoryError(problem)
        return answer

    def _is_over(self) -> bool:
        return time.monotonic() - self._last_trouble > PATIENCE

    def _attempt(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        threshold: float | None,
        settings: SegmentSettings,
    ) -> tuple[Answer | None, str]:
        """Return the answer; or None and the reason, with memory freed."""
        settings = replace(settings, prompts_at_once=self.at_once)
        try:
            with memory_guard(self.segmenter.runtime):
                if self._streamed and self.at_once is None and settings.zoom is None:
                    return self._streamed.start(image, prompts, threshold, settings), ''
                return self.segmenter.segment(image, prompts, threshold, settings), ''
        except DeviceMemoryError as error:
            problem = str(error)
        # Here, not above: while an error is handled, its traceback keeps what the model had made.
        self._last_trouble = time.monotonic()
        self.segmenter.release_caches()
        gc.collect()
        free_device_memory()
        return None, problem
