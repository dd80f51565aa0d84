"""Train the bundled model on rendered scenes.

    torchrun --nproc_per_node 2 -m training.train_tabletop training/configs/tabletop.yaml
    accelerate launch --multi_gpu -m training.train_tabletop training/configs/tabletop.yaml

A run writes a folder: its settings, git commit and environment, ``log.jsonl``, and the newest
state, from which ``--resume`` goes on. SIGTERM makes it write the state and stop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import Tensor

from clipseg_model.modeling.clipseg import build_clipseg
from training.bundled.inputs import draw_window, prepare
from training.bundled.losses import JointTraining
from training.bundled.optimizers import RunState
from training.bundled.run import Training, command, run
from training.bundled.settings import Settings, load_settings
from training.datasets.tabletop import TabletopViews, endless_rows, make_batch
from training.loop.processes import begin_accelerator
from training.loop.run_folder import RunError


def train(
    settings: Settings, output: Path, resume: bool = False, init_from: Path | None = None
) -> None:
    """Run, or go on with, a training; see :func:`training.bundled.run.run`."""
    accelerator = begin_accelerator('bf16')
    run(settings, output, accelerator, lambda: OnScenes(settings, accelerator), resume, init_from)


class OnScenes(Training):
    """Training on rendered scenes, in any number of processes.

    Raises:
        RunError: The frozen weights are another model's.
        DataError: There are no rendered views.
    """

    def __init__(self, settings: Settings, accelerator: Accelerator) -> None:
        set_seed(settings.seed)
        self._settings, self._accelerator = settings, accelerator
        self.module: JointTraining = build_module(settings)
        self.stem_rate = settings.stem_rate
        self._views = TabletopViews(settings.data.folder / 'train')

    def begin(self, state: RunState) -> Mapping[str, Any]:
        """Move everything to its device."""
        joint = self.module
        if self._settings.compile:
            for part in (joint.model.decoder, joint.towers.stem, *joint.towers.blocks):
                part.compile(dynamic=False)
        self._called = state.prepare(self._accelerator)
        return {'views': len(self._views)}

    def steps(self, start: int) -> Iterator[tuple[dict[str, Tensor], Any]]:
        """Yield the losses of each iteration, and the scenes that it saw."""
        for rows, arguments in self._inputs(start):
            with self._accelerator.autocast():
                losses = self._called(*arguments)
            yield losses, {'scenes': [self._views.records[view]['seed'] for view in rows]}

    def _inputs(self, start: int) -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:
        """Yield the views of each iteration, and what the module is called with."""
        settings, views = self._settings, self._views
        data, rank = settings.data, self._accelerator.process_index
        rng = np.random.default_rng([settings.seed, rank, start])
        generator = torch.Generator().manual_seed(settings.seed + 1000 * rank + start)
        shuffled = endless_rows(len(views), rng)
        drawing = (data.texts, data.more_texts, data.absent_share, data.support_size)
        device = self._accelerator.device
        for iteration in range(start, settings.iterations):
            stage = settings.stage(iteration)
            rows = [next(shuffled) for _ in range(stage.batch)]
            batch = make_batch(views, rows, *drawing, rng)
            window = draw_window(views.size, stage.input_size, data.wide_share, rng)
            yield rows, prepare(batch, self.module.towers, settings, window, generator, device)


def build_module(settings: Settings) -> JointTraining:
    """Build the model, its losses and frozen parts; RunError where those are another model's."""
    joint = JointTraining(build_clipseg(settings.model))
    _, surplus = joint.towers.load_state_dict(load_file(settings.frozen), strict=False)
    if surplus:
        raise RunError(f'{settings.frozen} does not fit the model: surplus keys {surplus}')
    joint.towers.stem.blocks[settings.stem_from :].requires_grad_(True)
    return joint


def main() -> None:
    """Run the command line."""
    command(__doc__, load_settings, train)


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
