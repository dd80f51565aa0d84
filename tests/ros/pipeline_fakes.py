"""Stand-ins for the model and the publishers of a pipeline, which count what a frame costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import Segmentation
from clipseg_ros.outputs.result import FrameResult
from training.benchmarks.node_peers.stand_in import StandIn


class CountingModel(StandIn):
    """Answers at once, and keeps the images that it was given."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.images: list[NDArray[np.uint8]] = []

    def segment(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], *args: Any, **options: Any
    ) -> Segmentation:
        self.images.append(image)
        return super().segment(image, prompts, *args, **options)


class FakeOutputs:
    """Says who subscribes, and keeps what is done."""

    def __init__(self, *subscribed: str) -> None:
        self.subscribed = list(subscribed)
        self.opened: list[str] = []
        self.published: list[str] = []
        self.pixels: dict[str, NDArray[Any]] = {}

    def wanted(self) -> list[str]:
        return list(self.subscribed)

    def open_image(self, name: str, result: FrameResult) -> NDArray[Any]:
        self.opened.append(name)
        height, width = result.rgb.shape[:2]
        shape = (height, width, 3) if name in ('overlay', 'labels/color') else (height, width)
        dtype = {'probability': np.float32, 'instances': np.uint16}.get(name, np.uint8)
        self.pixels[name] = np.zeros(shape, dtype)
        return self.pixels[name]

    def publish_image(self, name: str) -> None:
        self.published.append(name)

    def segment_array(self, result: FrameResult) -> str:
        return 'segments'

    def publish(self, name: str, message: str) -> None:
        assert name == message
        self.published.append(name)

    def publish_png(self, name: str, pixels: NDArray[np.uint8], result: FrameResult) -> None:
        self.pixels[f'{name}/compressed'] = pixels.copy()
        self.published.append(f'{name}/compressed')

    def publish_jpeg(
        self, name: str, pixels: NDArray[np.uint8], result: FrameResult, quality: int
    ) -> None:
        self.quality = quality
        self.pixels[f'{name}/compressed'] = pixels.copy()
        self.published.append(f'{name}/compressed')
