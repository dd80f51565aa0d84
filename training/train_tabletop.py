"""Train the bundled model on rendered scenes.

    torchrun --nproc_per_node 2 -m training.train_tabletop training/configs/tabletop.yaml
    accelerate launch --multi_gpu -m training.train_tabletop training/configs/tabletop.yaml

A run writes a folder: its settings, git commit and environment, ``log.jsonl``, and the newest
state, from which ``--resume`` goes on.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from clipseg_model.errors import ClipsegError
from clipseg_model.modeling.clipseg import build_clipseg
from training.bundled.inputs import draw_window, prepare
from training.bundled.losses import JointTraining
from training.bundled.optimizers import RunState
from training.bundled.settings import Settings, load_settings
from training.console import write_figures
from training.datasets.tabletop import TabletopViews, endless_rows, make_batch
from training.loop.processes import begin_accelerator
from training.loop.run_folder import RunError, RunFolder

#: Iterations between two lines of the log.
LOG_EVERY = 50


def train(
    settings: Settings, output: Path, resume: bool = False, init_from: Path | None = None
) -> None:
    """Run, or go on with, a training.

    Args:
        settings: What to train, on what, and how.
        output: Folder of the run.
        resume: Go on from the newest state there.
        init_from: ``state.pt`` of another run whose weights this one begins with.

    Raises:
        RunError: The folder holds another run, weights do not fit, or the loss is not finite.
    """
    folder, state_path = RunFolder(output), output / 'state.pt'
    if state_path.exists() and not resume:
        raise RunError(f'{state_path} exists: give --resume to go on, or another --output')
    accelerator = begin_accelerator('bf16')
    set_seed(settings.seed)
    joint = build_module(settings)
    if init_from is not None:
        joint.load_state_dict(folder.load(init_from)['module'])
    state = RunState(joint, settings, folder.load(state_path) if resume else None)
    if settings.compile:
        for part in (joint.model.decoder, joint.towers.stem, *joint.towers.blocks):
            part.compile(dynamic=False)
    module = state.prepare(accelerator)
    trained = [parameter for parameter in joint.parameters() if parameter.requires_grad]
    views = TabletopViews(settings.data.folder / 'train')
    if accelerator.is_main_process:
        dumped = settings.model_dump(mode='json')
        begun_with = str(init_from) if init_from else None
        record = {'settings': dumped, 'views': len(views), 'init_from': begun_with}
        folder.begin(dumped, state.iteration, accelerator.num_processes, record)
        folder.trim_log(state.iteration)
        print(f'{len(views)} views, {sum(p.numel() for p in trained):,} trainable parameters')
    log = _Log(folder, state.iteration, settings.iterations, accelerator.is_main_process)
    weights = settings.losses.model_dump()
    for rows, arguments in inputs(settings, views, joint, state.iteration, accelerator):
        with accelerator.autocast():
            losses = module(*arguments)
        total = sum((weights[name] * loss for name, loss in losses.items()), torch.tensor(0.0))
        if not torch.isfinite(total):
            raise not_finite(folder, views, rows, state.iteration, accelerator.process_index)
        accelerator.backward(total)
        accelerator.clip_grad_norm_(trained, settings.clip_norm)
        state.step()
        if not accelerator.is_main_process:
            continue
        state.average.update_parameters(joint)
        log.add(losses)
        last = state.iteration == settings.iterations
        if last or state.iteration % settings.save_every == 0:
            folder.save(state_path, state.snapshot())
    accelerator.end_training()


def build_module(settings: Settings) -> JointTraining:
    """Build the model, its losses and frozen parts; RunError where those are another model's."""
    joint = JointTraining(build_clipseg(settings.model))
    _, surplus = joint.towers.load_state_dict(load_file(settings.frozen), strict=False)
    if surplus:
        raise RunError(f'{settings.frozen} does not fit the model: surplus keys {surplus}')
    joint.towers.stem.blocks[settings.stem_from :].requires_grad_(True)
    return joint


def inputs(
    settings: Settings,
    views: TabletopViews,
    joint: JointTraining,
    start: int,
    accelerator: Accelerator,
) -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:
    """Yield the views of each iteration from ``start`` on, and what ``joint`` is called with."""
    data, rank = settings.data, accelerator.process_index
    rng = np.random.default_rng([settings.seed, rank, start])
    generator = torch.Generator().manual_seed(settings.seed + 1000 * rank + start)
    shuffled = endless_rows(len(views), rng)
    drawing = (data.texts, data.more_texts, data.absent_share, data.support_size)
    for iteration in range(start, settings.iterations):
        stage = settings.stage(iteration)
        rows = [next(shuffled) for _ in range(stage.batch)]
        batch = make_batch(views, rows, *drawing, rng)
        window = draw_window(views.size, stage.input_size, data.wide_share, rng)
        device = accelerator.device
        yield rows, prepare(batch, joint.towers, settings, window, generator, device)


def not_finite(
    folder: RunFolder, views: TabletopViews, rows: list[int], iteration: int, rank: int
) -> RunError:
    """Write down which scenes made a loss that is not finite."""
    seeds = [views.records[view]['seed'] for view in rows]
    write_figures(folder.path / f'non_finite_{iteration}_{rank}.json', seeds)
    return RunError(f'the loss is not finite at iteration {iteration}, scenes {seeds}')


class _Log:
    """Shows how far a run is, and writes the mean losses of :data:`LOG_EVERY` iterations."""

    def __init__(self, folder: RunFolder, start: int, length: int, shown: bool) -> None:
        self._folder, self._began = folder, time.monotonic()
        self._bar = tqdm(initial=start, total=length, disable=not shown, mininterval=10)
        self._done = self._since = start
        self._sums: dict[str, float] = defaultdict(float)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of the next iteration."""
        self._bar.update()
        self._done += 1
        for name, loss in losses.items():
            self._sums[name] += loss.item()
        if self._done % LOG_EVERY:
            return
        count = self._done - self._since
        means = {name: round(value / count, 4) for name, value in self._sums.items()}
        seconds = round(time.monotonic() - self._began, 1)
        self._folder.log({'iteration': self._done, 'seconds': seconds, **means})
        self._bar.set_postfix(means)
        self._sums.clear()
        self._since = self._done


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
        settings = load_settings(args.settings)
        output = args.output or Path('runs/train') / settings.name
        train(settings, output, args.resume, args.init_from)
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
