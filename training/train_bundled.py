"""Train the bundled model on cached features of photographs and of rendered scenes.

    python -m training.train_bundled training/configs/bundled/everyday.yaml

docs/training.md has the commands before this one: what it starts with, and the caches. A run
writes a folder: its settings, ``log.jsonl``, and the newest state, from which ``--resume`` goes on,
also with more iterations.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.registry import load_model
from training.bundled.cache_features import feature_key
from training.bundled.cached import CachedData
from training.bundled.cached_settings import CachedSettings, load_cached_settings
from training.bundled.cached_training import CachedTraining
from training.bundled.optimizers import RunState
from training.datasets.photographs import PhotographFile
from training.datasets.samples import DataError
from training.loop.run_folder import RunError, RunFolder

LOG_EVERY = 25
"""Iterations between two lines of the log."""


def begin(settings: CachedSettings) -> tuple[CachedTraining, CachedData]:
    """Make the module and its data.

    Raises:
        RunError: The model to start with has no frozen features that could be cached.
        DataError: A cache is missing or of another model, a vocabulary is unknown, or the text
            tower cannot read a name.
    """
    model: Any = load_model(settings.start)[0]
    if not hasattr(model.backbone, 'deep'):
        raise RunError(
            f'{settings.start} is of the type {model.backbone.config()["type"]}, which has no '
            'stage to stride 32: make a start with python -m training.bundled.towers'
        )
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
    key = feature_key(model.backbone)
    data = CachedData(settings.cache, settings.sources, file.vocabulary, settings.views, key)
    for part in (model.backbone.stem, model.backbone.deep):
        part.requires_grad_(False)
    return CachedTraining(model).train(), data


def train(
    settings: CachedSettings, output: Path, resume: bool = False, init_from: Path | None = None
) -> None:
    """Run, or go on with, a training.

    Args:
        settings: What to train, on what, and how.
        output: Folder of the run.
        resume: Go on from the newest state there.
        init_from: ``state.pt`` of another run whose weights this one begins with.

    Raises:
        RunError: The folder holds another run, weights do not fit, or the loss is not finite.
        DataError: See :func:`begin`.
    """
    folder, state_path = RunFolder(output), output / 'state.pt'
    if state_path.exists() and not resume:
        raise RunError(f'{state_path} exists: give --resume to go on, or another --output')
    torch.manual_seed(settings.seed)
    module, data = begin(settings)
    if init_from is not None:
        module.load_state_dict(folder.load(init_from)['module'])
    corpus = folder.load(settings.corpus)
    state = RunState(module, settings, folder.load(state_path) if resume else None)
    dumped = settings.model_dump(mode='json')
    begun_with = str(init_from) if init_from else None
    folder.begin(dumped, state.iteration, 1, {'settings': dumped, 'init_from': begun_with})
    folder.trim_log(state.iteration)
    weights = settings.losses.model_dump()
    rng = np.random.default_rng([settings.seed, state.iteration])
    sums: dict[str, list[float]] = {}
    began = time.monotonic()
    while state.iteration < settings.iterations:
        iteration = state.iteration
        visual = iteration % settings.visual_every == 0
        texts = settings.texts + (not visual)
        batch = data.batch(settings.batch, texts, settings.window_at(iteration), visual, rng)
        rows = rng.integers(len(corpus['texts']), size=settings.distil)
        phrases = [corpus['texts'][row] for row in rows]
        noises = settings.word_noise, settings.word_dropout, settings.meaning_noise
        with torch.autocast('cpu', torch.bfloat16, enabled=settings.bf16):
            losses = module(batch, *noises)
            losses['distil'] = module.distil(phrases, corpus['vectors'][rows].float())
        total = sum((weights[name] * loss for name, loss in losses.items()), torch.tensor(0.0))
        if not torch.isfinite(total):
            raise RunError(f'the loss is not finite at iteration {iteration}: {losses}')
        total.backward()
        nn.utils.clip_grad_norm_(module.parameters(), settings.clip_norm)
        state.step()
        state.average.update_parameters(module)
        for name, loss in losses.items():
            sums.setdefault(name, []).append(loss.item())
        if state.iteration % LOG_EVERY == 0:
            means = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
            seconds = round(time.monotonic() - began, 1)
            folder.log({'iteration': state.iteration, 'seconds': seconds, **means})
            print(state.iteration, means, flush=True)
            sums.clear()
        last = state.iteration == settings.iterations
        if last or state.iteration % settings.save_every == 0:
            folder.save(state_path, state.snapshot())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('settings', type=Path, help='YAML file of the run')
    parser.add_argument('--output', type=Path, help='folder of the run (default: runs/train/NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the newest state')
    parser.add_argument('--init-from', type=Path, help='state.pt of another run: take its weights')
    args = parser.parse_args()
    try:
        settings = load_cached_settings(args.settings)
        output = args.output or Path('runs/train') / settings.name
        train(settings, output, args.resume, args.init_from)
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
