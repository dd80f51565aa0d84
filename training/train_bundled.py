"""Train the bundled model on cached features of photographs and of rendered scenes.

    python -m training.train_bundled training/configs/bundled/everyday.yaml

docs/training.md has the commands before this one: what it starts with, and the caches. A run
writes a folder: its settings, ``log.jsonl``, and the newest state, from which ``--resume`` goes
on, also with more iterations. SIGTERM makes it write the state and stop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipseg_model.errors import PromptError
from clipseg_model.registry import load_model
from clipseg_model.runtime.base import has_bf16
from training.bundled.cache_features import feature_key
from training.bundled.cached import CachedData
from training.bundled.cached_settings import CachedSettings, load_cached_settings
from training.bundled.cached_training import CachedTraining
from training.bundled.run import Training, command, run
from training.datasets.photographs import PhotographFile
from training.datasets.samples import DataError
from training.loop.processes import begin_accelerator
from training.loop.run_folder import RunError, RunFolder


def train(
    settings: CachedSettings, output: Path, resume: bool = False, init_from: Path | None = None
) -> None:
    """Run, or go on with, a training; see :func:`training.bundled.run.run`.

    Raises:
        RunError: There are several processes, which this training has no use for.
    """
    accelerator = begin_accelerator(device='cpu')
    if accelerator.num_processes > 1:
        raise RunError('training.train_bundled runs in one process: start it with python -m')
    run(settings, output, accelerator, lambda: OnCache(settings), resume, init_from)


class OnCache(Training):
    """Training on cached features, in one process on the CPU.

    Raises:
        RunError: The model to start with has no frozen features that could be cached.
        DataError: A cache is missing or of another model, a vocabulary is unknown, or the text
            tower cannot read a name.
    """

    def __init__(self, settings: CachedSettings) -> None:
        torch.manual_seed(settings.seed)
        self._settings = settings
        model: Any = load_model(settings.start)[0]
        if not hasattr(model.backbone, 'deep'):
            raise RunError(
                f'{settings.start} is of the type {model.backbone.config()["type"]}, which has no '
                'stage to stride 32: make a start with python -m training.bundled.towers'
            )
        vocabulary = read_vocabulary(settings, model)
        key = feature_key(model.backbone)
        self._data = CachedData(settings.cache, settings.sources, vocabulary, settings.views, key)
        self._corpus = RunFolder(settings.corpus.parent).load(settings.corpus)
        for part in (model.backbone.stem, model.backbone.deep):
            part.requires_grad_(False)
        self.module: CachedTraining = CachedTraining(model).train()

    def steps(self, start: int) -> Iterator[tuple[dict[str, Tensor], Any]]:
        """Yield the losses of each iteration, and the texts that it asked for."""
        settings, module, corpus = self._settings, self.module, self._corpus
        rng = np.random.default_rng([settings.seed, start])
        noises = settings.word_noise, settings.word_dropout, settings.meaning_noise
        bf16 = settings.bf16 and has_bf16()
        if bf16 != settings.bf16:
            print('in float32: this CPU has no instructions for bf16, and is slower with it')
        for iteration in range(start, settings.iterations):
            visual = iteration % settings.visual_every == 0
            texts = settings.texts + (not visual)
            window = settings.window_at(iteration)
            batch = self._data.batch(settings.batch, texts, window, visual, rng)
            rows = rng.integers(len(corpus['texts']), size=settings.distil)
            phrases = [corpus['texts'][row] for row in rows]
            with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
                losses = module(batch, *noises)
                losses['distil'] = module.distil(phrases, corpus['vectors'][rows].float())
            yield losses, {'texts': batch.texts, 'phrases': phrases}


def read_vocabulary(settings: CachedSettings, model: Any) -> Mapping[str, list[str]]:
    """Read the names of each source; DataError where the text tower cannot read one."""
    file = PhotographFile(settings.annotations, settings.annotations.parent)
    for source, names in file.vocabulary.items():
        try:
            for name in names:
                model.backbone.text.tokenize([name])
        except PromptError as error:
            raise DataError(
                f'{settings.annotations}: the name {name!r} of the source {source!r} cannot be '
                f'trained ({error}): rename the category'
            ) from error
    return file.vocabulary


def main() -> None:
    """Run the command line."""
    command(__doc__, load_cached_settings, train)


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
