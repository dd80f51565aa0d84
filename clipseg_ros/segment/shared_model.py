"""One model for the nodes of several cameras in one process: in memory once, at work for all.

Images that wait for the model at the same time go through it in one call, where that is faster;
see :attr:`SharedSegmenter.max_batch`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from clipseg_model.features import PromptFeatures
from clipseg_model.images import check_image
from clipseg_model.inference import concatenate
from clipseg_model.model_card import ModelCard
from clipseg_model.prompting.embedding import PromptEmbedder
from clipseg_model.prompts import Prompt, as_prompts, check_probability
from clipseg_model.registry import create_model
from clipseg_model.runtime.base import Runtime
from clipseg_model.runtime.devices import free_device_memory
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_ros.segment.turns import Turns

if TYPE_CHECKING:
    import torch

AUTOMATIC_BATCH = 8
"""Most images in one call where :attr:`SharedSegmenter.max_batch` is automatic."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class QueuedImage:
    """An image that waits for the model, and then its logits.

    Attributes:
        segmenter: The segmenter of its camera.
        pixels: Normalised, (1, 3, h, w): an array of numpy, or a tensor on a CUDA device, where the
            answer then stays.
        prompts: What to look for.
        settings: How.
        made: The event of a CUDA device after which ``pixels`` are there.
        logits: (P, h, w), where the pixels are, once it has been served.
        answered: The event after which ``logits`` are there.
        error: Why there are no logits.
    """

    segmenter: Segmenter
    pixels: Any
    prompts: list[Prompt]
    settings: SegmentSettings
    made: torch.cuda.Event | None = None
    logits: Any = None
    answered: torch.cuda.Event | None = None
    error: Exception | None = None

    @property
    def on_device(self) -> bool:
        """Whether the pixels lie on a CUDA device, as a tensor."""
        return not isinstance(self.pixels, np.ndarray) and self.pixels.device.type == 'cuda'

    @property
    def answers_tensors(self) -> bool:
        """Whether pixels and answer are tensors of torch."""
        return not isinstance(self.pixels, np.ndarray)


class ModelQueue:
    """The images that wait for one model.

    Attributes:
        turns: Who may use the model.
    """

    def __init__(self) -> None:
        self.turns: Turns[QueuedImage] = Turns()
        self._fitting: int | None = None
        self._last: torch.cuda.Event | None = None

    def answer(self, image: QueuedImage, most: int) -> Any:
        """Wait for the model's logits (P, h, w) of an image.

        Args:
            image: The image.
            most: Most images of one call, this one included.

        Raises:
            ClipsegError: The model failed on this image.
        """
        if self._fitting is not None:
            most = min(most, self._fitting)
        kind = (image.answers_tensors, *image.pixels.shape)
        self.turns.together(image, kind, most, self._serve)
        if image.error is not None:
            raise image.error
        assert image.logits is not None
        if image.answered is not None:
            stream = _stream_of(image.logits)
            stream.wait_event(image.answered)
            image.logits.record_stream(stream)
        return image.logits

    def _serve(self, images: list[QueuedImage]) -> None:
        """Give each image its logits or its own error."""
        # The CUDA streams of the nodes are not ordered, and they share the memory of the model.
        _wait_on_device(images, [self._last, *(image.made for image in images)])
        ready: list[tuple[QueuedImage, PromptFeatures]] = []
        for image in images:
            try:
                known = image.segmenter.prompt_features(image.prompts, image.settings)
                ready.append((image, known))
            except Exception as error:
                image.error = error
        reason = _attempt(ready)
        if reason is not None and len(ready) == 1:
            ready[0][0].error = reason
        elif reason is not None:
            # One image may be at fault, or their number.
            free_device_memory()
            for one in ready:
                one[0].error = _attempt([one])
            if all(image.error is None for image, _ in ready):
                self._fitting = len(ready) - 1
                logger.warning(
                    '%d images could not go through the model in one call, and %s from now on; set '
                    'the parameter max_batch: %s',
                    len(ready),
                    'go one by one' if self._fitting == 1 else f'at most {self._fitting} do',
                    reason,
                )
        if images[0].on_device:
            self._last = _stream_of(images[0].pixels).record_event()
            for image in images:
                image.answered = self._last


def _wait_on_device(
    images: Sequence[QueuedImage], events: Sequence[torch.cuda.Event | None]
) -> None:
    if not images[0].on_device:
        return
    stream = _stream_of(images[0].pixels)
    for event in events:
        if event is not None:
            stream.wait_event(event)
    for image in images:
        image.pixels.record_stream(stream)


def _stream_of(tensor: torch.Tensor) -> torch.cuda.Stream:
    """Return the stream that this thread works on, of the CUDA device of a tensor."""
    import torch

    return torch.cuda.current_stream(tensor.device)


def _attempt(ready: Sequence[tuple[QueuedImage, PromptFeatures]]) -> Exception | None:
    """Segment images in one call; return why that was not possible."""
    try:
        _segment(ready)
    except Exception as error:
        # The frames of the traceback hold tensors, of which there may have been too many.
        for each in (error, error.__cause__, error.__context__):
            if each is not None:
                traceback.clear_frames(each.__traceback__)
        return error
    return None


def _segment(ready: Sequence[tuple[QueuedImage, PromptFeatures]]) -> None:
    """Encode images together, and decode those together that have equally many prompts."""
    if not ready:
        return
    segmenter = ready[0][0].segmenter
    if len(ready) == 1:
        image, prompts = ready[0]
        features = segmenter.runtime.encode_image(image.pixels)
        image.logits = segmenter.decode(features, prompts, on_device=image.answers_tensors)
        return
    tensors = ready[0][0].answers_tensors
    pixels = concatenate([image.pixels for image, _ in ready])
    features = segmenter.runtime.encode_image(pixels)
    groups: dict[int, list[int]] = {}
    for number, (_, prompts) in enumerate(ready):
        groups.setdefault(len(prompts), []).append(number)
    for numbers in groups.values():
        part = features if len(groups) == 1 else features.select(numbers)
        known = PromptFeatures.stack([ready[number][1] for number in numbers])
        answers = segmenter.decode(part, known, on_device=tensors)
        for number, logits in zip(numbers, answers, strict=True):
            ready[number][0].logits = logits


def _goes_alone(settings: SegmentSettings) -> bool:
    """Return whether images depend on answers (zoom) or others (reuse), or memory is short."""
    return (
        settings.zoom is not None
        or settings.reuse_below > 0
        or settings.prompts_at_once is not None
    )


class SharedEmbedder(PromptEmbedder):
    """Takes a turn for prompts that it does not know; known ones do not wait."""

    def __init__(self, queue: ModelQueue, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue = queue

    def conditions(self, *arguments: Any) -> NDArray[np.float32]:
        """See :meth:`clipseg_model.prompting.embedding.PromptEmbedder.conditions`."""
        with self._queue.turns.mine():
            return super().conditions(*arguments)


class SharedSegmenter:
    """The segmenter of one camera, on a model that those of other cameras use as well.

    It has the methods of :class:`~clipseg_model.segmenter.Segmenter` that a node calls; each that
    uses the model waits for its turn.

    Attributes:
        max_batch: Most images of several nodes that go through the model in one call: of those
            that wait at the same time, of one input size; none waits for others. 1 has them take
            turns, 0 is :data:`AUTOMATIC_BATCH` where the runtime gains by batches, else 1.
            With zoom, ``reuse_below`` or ``prompts_at_once`` an image goes alone.
    """

    def __init__(self, queue: ModelQueue, runtime: Runtime, card: ModelCard) -> None:
        self._queue, self._own = queue, Segmenter(runtime, card)
        self._own.embedder = SharedEmbedder(queue, runtime, card, self._own.preprocessor)
        self.card, self.runtime = card, runtime
        self.device = self._own.device
        self.settings, self.still = self._own.settings, self._own.still
        self.max_batch = 0
        # These do not use the model, or take a turn in the embedder.
        self.check_settings, self.is_still = self._own.check_settings, self._own.is_still
        self.prepare, self.read = self._own.prepare, self._own.read
        self.release_caches = self._own.release_caches

    @property
    def batch_limit(self) -> int:
        """The most images in one call, where 0 of :attr:`max_batch` is resolved."""
        return self.max_batch or (AUTOMATIC_BATCH if self.runtime.batches else 1)

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> Segmentation:
        """See :meth:`clipseg_model.segmenter.Segmenter.segment`."""
        settings = settings or self.settings
        if _goes_alone(settings):
            with self._queue.turns.mine():
                return self._own.segment(image, prompts, threshold, settings)
        wanted = as_prompts(prompts)
        if threshold is not None:
            check_probability(threshold, 'The threshold')
        check_image(image)
        logits = self._line_up(self._own.preprocessor.pixels(image), wanted, settings)
        return self.read(logits, wanted, threshold, image.shape[:2])

    def infer(
        self,
        pixels: Any,
        prompts: Sequence[Prompt],
        settings: SegmentSettings | None = None,
    ) -> Any:
        """See :meth:`clipseg_model.segmenter.Segmenter.infer`."""
        settings = settings or self.settings
        if _goes_alone(settings) or pixels is None:
            with self._queue.turns.mine():
                return self._own.infer(pixels, prompts, settings)
        runtime: Any = self.runtime
        shape = self._own.preprocessor.shape_of(*pixels.shape[2:])
        return self._line_up(runtime.prepare(pixels, shape), list(prompts), settings)

    def warm_up(self, height: int = 480, width: int = 640, prompts: int = 1) -> None:
        """See :meth:`clipseg_model.segmenter.Segmenter.warm_up`; for each size of a batch."""
        with self._queue.turns.mine():
            self._own.warm_up(height, width, prompts)
            if not self.runtime.compiles_each_size:
                return
            pixels = self._own.preprocessor.pixels(np.zeros((height, width, 3), np.uint8))
            condition = self.runtime.embed_texts(['a'])[None]
            for size in range(2, self.batch_limit + 1):
                features = self.runtime.encode_image(np.tile(pixels, (size, 1, 1, 1)))
                known = self.runtime.encode_prompts(np.tile(condition, (size, prompts, 1)))
                self._own.decode(features, known)

    def _line_up(self, pixels: Any, prompts: list[Prompt], settings: SegmentSettings) -> Any:
        image = QueuedImage(self._own, pixels, prompts, settings)
        if image.on_device:
            image.made = _stream_of(pixels).record_event()
        return self._queue.answer(image, self.batch_limit)


class SharedModels:
    """Loads a model once for all nodes that ask for it, and frees it with the last of them."""

    def __init__(self) -> None:
        # The segmenters of the nodes keep a model alive, and nothing else does.
        self._runtimes: WeakValueDictionary[tuple[Any, ...], Runtime] = WeakValueDictionary()
        self._rest: dict[tuple[Any, ...], tuple[ModelCard, ModelQueue]] = {}

    def load(self, *arguments: Any) -> SharedSegmenter:
        """Return a segmenter for one node; those of the same arguments share one model.

        Arguments and errors are those of :func:`~clipseg_model.registry.create_model`.
        """
        runtime = self._runtimes.get(arguments)
        if runtime is None:
            first = create_model(*arguments)
            runtime = first.runtime
            self._runtimes[arguments] = runtime
            self._rest[arguments] = (first.card, ModelQueue())
        card, queue = self._rest[arguments]
        return SharedSegmenter(queue, runtime, card)
