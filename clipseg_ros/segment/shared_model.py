"""One model for several nodes of a process: in memory once, and at work for all of them.

Images that wait for the model at the same time go through it in one call, where that is faster;
see :attr:`SharedSegmenter.max_batch`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.images import check_image
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import PromptFeatures
from clipseg_model.prompting.embedding import PromptEmbedder
from clipseg_model.prompts import Prompt, as_prompts, check_probability
from clipseg_model.registry import create_model
from clipseg_model.runtime.base import Runtime
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_ros.segment.turns import Turns

AUTOMATIC_BATCH = 8
"""Most images in one call where :attr:`SharedSegmenter.max_batch` is automatic."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Frame:
    """An image that waits for the model, and then what came of it.

    Attributes:
        owner: Whose image it is.
        pixels: Normalised, (1, 3, h, w), on the model's device.
        prompts: What to look for.
        settings: How.
        made: The point in the stream of a CUDA device at which ``pixels`` are there.
        logits: (P, h, w), on the device, once it has been served.
        answered: As ``made``, of ``logits``.
        error: Why there are none.
    """

    owner: SharedSegmenter
    pixels: Tensor
    prompts: list[Prompt]
    settings: SegmentSettings
    made: torch.cuda.Event | None
    logits: Tensor | None = None
    answered: torch.cuda.Event | None = None
    error: Exception | None = None


class ModelQueue:
    """The images that wait for one model.

    Attributes:
        turns: Who may use the model.
    """

    def __init__(self) -> None:
        self.turns: Turns[Frame] = Turns()
        self._fitting: int | None = None
        self._last: torch.cuda.Event | None = None

    def answer(self, frame: Frame, most: int) -> Tensor:
        """Waits for the model's answer to an image.

        Args:
            frame: The image.
            most: Most images that may go through the model with it.

        Returns:
            Logits (P, h, w).

        Raises:
            ClipsegError: The model failed on this image.
        """
        if self._fitting is not None:
            most = min(most, self._fitting)
        self.turns.together(frame, tuple(frame.pixels.shape), most, self._serve)
        if frame.error is not None:
            raise frame.error
        assert frame.logits is not None
        if frame.answered is not None:
            stream = torch.cuda.current_stream(frame.logits.device)
            stream.wait_event(frame.answered)
            frame.logits.record_stream(stream)
        return frame.logits

    @torch.inference_mode()
    def _serve(self, frames: list[Frame]) -> None:
        """Gives each image its logits or its own error."""
        # The streams of the nodes are in no order, but what the model reuses is the same.
        _wait_on_device(frames, [self._last, *(frame.made for frame in frames)])
        ready: list[tuple[Frame, PromptFeatures]] = []
        for frame in frames:
            try:
                how = frame.settings
                known = frame.owner.embedder.features(
                    frame.prompts, how.template, how.visual_method
                )
                ready.append((frame, known))
            except Exception as error:
                frame.error = error
        reason = _attempt(ready)
        if reason is not None and len(ready) == 1:
            ready[0][0].error = reason
        elif reason is not None:
            # One of them may be at fault, or all of them together.
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            for one in ready:
                one[0].error = _attempt([one])
            if all(frame.error is None for frame, _ in ready):
                self._fitting = len(ready) - 1
                logger.warning(
                    '%d images could not go through the model in one call, and %s from now on; set '
                    'the parameter max_batch: %s',
                    len(ready),
                    'go one by one' if self._fitting == 1 else f'at most {self._fitting} do',
                    reason,
                )
        device = frames[0].pixels.device
        if device.type == 'cuda':
            self._last = torch.cuda.current_stream(device).record_event()
            for frame in frames:
                frame.answered = self._last


def _wait_on_device(frames: Sequence[Frame], marks: Sequence[torch.cuda.Event | None]) -> None:
    for mark in marks:
        if mark is not None:
            torch.cuda.current_stream(frames[0].pixels.device).wait_event(mark)
    for frame in frames:
        if frame.pixels.device.type == 'cuda':
            frame.pixels.record_stream(torch.cuda.current_stream(frame.pixels.device))


def _attempt(ready: Sequence[tuple[Frame, PromptFeatures]]) -> Exception | None:
    """Segments images in one call; returns why that was not possible."""
    try:
        _segment(ready)
    except Exception as error:
        # Their frames hold tensors, of which there may have been too many.
        for each in (error, error.__cause__, error.__context__):
            if each is not None:
                traceback.clear_frames(each.__traceback__)
        return error
    return None


def _segment(ready: Sequence[tuple[Frame, PromptFeatures]]) -> None:
    """Encodes images together, and decodes those together that have equally many prompts."""
    if not ready:
        return
    segmenter = ready[0][0].owner
    if len(ready) == 1:
        frame, prompts = ready[0]
        frame.logits = segmenter.decode(segmenter.runtime.encode_image(frame.pixels), prompts)
        return
    features = segmenter.runtime.encode_image(torch.cat([frame.pixels for frame, _ in ready]))
    groups: dict[int, list[int]] = {}
    for number, (_, prompts) in enumerate(ready):
        groups.setdefault(len(prompts), []).append(number)
    for numbers in groups.values():
        part = features if len(groups) == 1 else features.select(numbers)
        known = PromptFeatures.stack([ready[number][1] for number in numbers])
        for number, logits in zip(numbers, segmenter.decode(part, known), strict=True):
            ready[number][0].logits = logits


def _goes_alone(settings: SegmentSettings) -> bool:
    """Whether images depend on answers (zoom) or on others (reuse), or memory is short."""
    return (
        settings.zoom is not None
        or settings.reuse_below > 0
        or settings.prompts_at_once is not None
    )


class SharedEmbedder(PromptEmbedder):
    """Embeds prompts when it is its turn; known ones at once.

    Args:
        queue: Of the model.
        words: As :class:`~clipseg_model.prompting.embedding.PromptEmbedder`.
    """

    def __init__(self, queue: ModelQueue, *words: Any) -> None:
        super().__init__(*words)
        self._queue = queue

    def conditions(self, prompts: Sequence[Prompt], *how: Any) -> Tensor:
        """As the method of :class:`~clipseg_model.prompting.embedding.PromptEmbedder`."""
        with self._queue.turns.mine():
            return super().conditions(prompts, *how)


class SharedSegmenter(Segmenter):
    """A segmenter of its own on a model that others use as well.

    What a node calls waits for its turn: ``segment``, ``infer``, ``prepare``, ``embed`` and
    ``warm_up``.

    Args:
        queue: Of the model.
        words: As :class:`~clipseg_model.segmenter.Segmenter`.

    Attributes:
        max_batch: Most images of several nodes that go through the model in one call; 1 has them
            take turns, and 0 leaves it to the runtime: :data:`AUTOMATIC_BATCH` where it gains by
            batches, 1 where it does not. Images that wait at the same time are batched where the
            model's input has one size for them, whatever their prompts; none waits for others.
            With zoom, ``reuse_below`` or ``prompts_at_once`` an image goes alone.
    """

    def __init__(self, queue: ModelQueue, *words: Any) -> None:
        super().__init__(*words)
        self._queue = queue
        self.embedder = SharedEmbedder(queue, self.runtime, self.card, self.preprocessor)
        self.max_batch = 0

    @property
    def batch_limit(self) -> int:
        """The most images in one call, 0 of :attr:`max_batch` resolved."""
        return self.max_batch or (AUTOMATIC_BATCH if self.runtime.batches else 1)

    @torch.inference_mode()
    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> Segmentation:
        """As the method of :class:`~clipseg_model.segmenter.Segmenter`, when it is its turn."""
        settings = settings or self.settings
        if _goes_alone(settings):
            with self._queue.turns.mine():
                return super().segment(image, prompts, threshold, settings)
        wanted = as_prompts(prompts)
        if threshold is not None:
            check_probability(threshold, 'The threshold')
        check_image(image)
        logits = self._line_up(self.preprocessor.pixels(image), wanted, settings)
        return self.read(logits, wanted, threshold, image.shape[:2])

    @torch.inference_mode()
    def infer(
        self,
        pixels: Tensor | None,
        prompts: Sequence[Prompt],
        settings: SegmentSettings | None = None,
    ) -> Tensor:
        """As the method of :class:`~clipseg_model.segmenter.Segmenter`, when it is its turn."""
        settings = settings or self.settings
        if _goes_alone(settings) or pixels is None:
            with self._queue.turns.mine():
                return super().infer(pixels, prompts, settings)
        height, width = pixels.shape[2:]
        shape = self.preprocessor.shape_of(height, width)
        resized = self.preprocessor.resize_tensor(pixels, shape)
        return self._line_up(self.preprocessor.normalise(resized), list(prompts), settings)

    @torch.inference_mode()
    def warm_up(self, height: int = 480, width: int = 640, prompts: int = 1) -> None:
        """As the method of :class:`~clipseg_model.segmenter.Segmenter`, when it is its turn."""
        with self._queue.turns.mine():
            super().warm_up(height, width, prompts)
            if not self.runtime.compiles_each_size:
                return
            pixels = self.preprocessor.pixels(np.zeros((height, width, 3), np.uint8))
            condition = self.runtime.embed_texts(['a'])[None]
            for size in range(2, self.batch_limit + 1):
                features = self.runtime.encode_image(pixels.repeat(size, 1, 1, 1))
                known = self.runtime.encode_prompts(condition.repeat(size, prompts, 1))
                self.decode(features, known)

    def _line_up(self, pixels: Tensor, prompts: list[Prompt], settings: SegmentSettings) -> Tensor:
        made = None
        if pixels.device.type == 'cuda':
            made = torch.cuda.current_stream(pixels.device).record_event()
        return self._queue.answer(Frame(self, pixels, prompts, settings, made), self.batch_limit)


class SharedModels:
    """Loads a model for the first who asks, and hands it to all others.

    It is freed when the last of them has let go of it.
    """

    def __init__(self) -> None:
        # The segmenters of the nodes keep a model alive, and nothing else does.
        self._runtimes: WeakValueDictionary[tuple[Any, ...], Runtime] = WeakValueDictionary()
        self._rest: dict[tuple[Any, ...], tuple[ModelCard, ModelQueue]] = {}

    def load(self, *words: Any) -> SharedSegmenter:
        """Loads a model, or takes the one that is there.

        Args:
            words: As :func:`~clipseg_model.registry.create_model` takes them. Nodes that give the
                same have one model.

        Returns:
            A segmenter for one node.

        Raises:
            ClipsegError: As :func:`~clipseg_model.registry.create_model`.
        """
        runtime = self._runtimes.get(words)
        if runtime is None:
            first = create_model(*words)
            runtime = first.runtime
            self._runtimes[words] = runtime
            self._rest[words] = (first.card, ModelQueue())
        card, queue = self._rest[words]
        return SharedSegmenter(queue, runtime, card)
