"""The node ``segment`` with a model of a known duration in place of a real one.

    python -m training.benchmarks.node_peers.stand_in --milliseconds 30 --ros-args -p prompt:='a; b'

The time beyond those milliseconds is that of the node. The stand-in waits without using the
processor, as a host does while a GPU computes; each of its masks is a smooth blob of a tenth of the
image. Everything else of the process is that of the executable ``segment``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from clipseg_ros.process.tuning import tune_process

if __name__ == '__main__':
    tune_process()

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg_model.model_card import ModelCard
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_ros.process.runner import run_node
from clipseg_ros.segment.lifecycle import SegmentNode

LOGIT_SIZE = 256
"""Side of the logits: that of the bundled model's."""


def blob(number: int) -> NDArray[np.float32]:
    """Return logits (256, 256) float32 that are above 0 in an ellipse of a tenth of the area."""
    row, column = np.random.default_rng(number).uniform(0.2, 0.8, 2) * LOGIT_SIZE
    y, x = np.ogrid[:LOGIT_SIZE, :LOGIT_SIZE]
    distance = ((y - row) / 0.15) ** 2 + ((x - column) / 0.21) ** 2
    return (6.0 - 6.0 * distance / LOGIT_SIZE**2).clip(-8.0).astype(np.float32)


class StandIn:
    """Stand in for a :class:`clipseg_model.Segmenter`; each call takes a known time.

    Args:
        milliseconds: Of each call, whatever its prompts and images.
    """

    def __init__(self, milliseconds: float) -> None:
        self.device = torch.device('cpu')
        name = f'stand-in:{milliseconds:g}'
        self.card = ModelCard(name, 'stand-in', {}, LOGIT_SIZE)
        self.runtime = SimpleNamespace(
            describe=lambda: name,
            embed_texts=lambda texts: None,
            release_prompt_towers=lambda: None,
        )
        self._seconds = milliseconds * 1e-3
        self._logits: list[NDArray[np.float32]] = []

    def check_settings(self, settings: SegmentSettings) -> None:
        """Do nothing: it takes all settings alike."""

    def warm_up(self, prompts: int = 1) -> None:
        """Do nothing: there is nothing to warm up."""

    def prepare(self, prompts: Sequence[Prompt], settings: SegmentSettings | None = None) -> None:
        """Do nothing: prompts are taken as they are."""

    def release_caches(self) -> None:
        """Do nothing: nothing is kept."""

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> Segmentation:
        """Return a blob for each prompt, after the time."""
        due = time.perf_counter() + self._seconds
        while len(self._logits) < len(prompts):
            self._logits.append(blob(len(self._logits)))
        height, width = image.shape[:2]
        results = [
            PromptResult(
                prompt=prompt,
                threshold=0.5 if threshold is None else threshold,
                score=0.9,
                presence=True,
                logits=logits,
                height=height,
                width=width,
            )
            for prompt, logits in zip(prompts, self._logits, strict=False)
        ]
        time.sleep(max(0.0, due - time.perf_counter()))
        return Segmentation(height, width, results, self.card.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        arguments: Command line; that of the process where None.

    Returns:
        Exit status, as that of the executable ``segment``.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument('--milliseconds', type=float, required=True, help='of the model')
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)

    def load(*_: Any) -> Any:
        return StandIn(options.milliseconds)

    return run_node(lambda: SegmentNode(load=load), [sys.argv[0], *rest])


if __name__ == '__main__':
    raise SystemExit(main())
