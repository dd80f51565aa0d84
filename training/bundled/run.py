"""A training run of a bundled model: its folder, its loop, its log, and how it ends.

:mod:`training.train_bundled` and :mod:`training.train_tabletop` say what is trained, and on what.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from clipseg_model.errors import ClipsegError
from training.bundled.optimizers import RateSettings, RunState
from training.console import write_figures
from training.datasets.samples import StrictSettings
from training.loop.run_folder import RunError, RunFolder
from training.loop.stopping import EXIT_CODE, RunStopped, StopRequest

LOG_EVERY = 25
"""Iterations between two lines of the log."""


class RunSettings(RateSettings, Protocol):
    """What a run reads of its settings, besides their rates."""

    @property
    def name(self) -> str:
        """Of the run."""

    @property
    def losses(self) -> StrictSettings:
        """Factors of the losses, by name."""

    @property
    def clip_norm(self) -> float:
        """Largest norm of the gradients."""

    @property
    def save_every(self) -> int:
        """Iterations between two checkpoints."""

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return all settings."""


SettingsT = TypeVar('SettingsT', bound=RunSettings)


class Training(ABC):
    """What a run trains, and on what.

    Attributes:
        module: Holds all that is trained; ``state.pt`` has its weights.
        stem_rate: The learning rate of the model's stem, relative.
    """

    module: nn.Module
    stem_rate: float = 1.0

    def begin(self, state: RunState) -> Mapping[str, Any]:
        """Take the state that the run begins with; return what its record shall say."""
        return {}

    @abstractmethod
    def steps(self, start: int) -> Iterator[tuple[dict[str, Tensor], Any]]:
        """Yield, from an iteration on, its losses by name, and what they were computed on."""


def run(
    settings: RunSettings,
    output: Path,
    accelerator: Accelerator,
    training: Callable[[], Training],
    resume: bool = False,
    init_from: Path | None = None,
) -> None:
    """Run, or go on with, a training.

    Args:
        settings: Rates, weights of the losses, iterations.
        output: Folder of the run.
        accelerator: The processes of the run.
        training: Makes what is trained.
        resume: Go on from the newest state there, if there is one yet.
        init_from: ``state.pt`` of another run whose weights this one begins with.

    Raises:
        RunStopped: It was asked to stop by SIGTERM, and can go on from ``state.pt``.
        RunError: The folder holds another run or is in use, weights do not fit, the loss is not
            finite, or the disk refuses.
    """
    folder = RunFolder(output, last='state.pt')
    claim = folder.claimed() if accelerator.is_main_process else contextlib.nullcontext()
    with claim, StopRequest().heard() as asked:
        if folder.last.exists() and not resume:
            raise RunError(f'{folder.last} exists: give --resume to go on, or another --output')
        _run(settings, folder, accelerator, training(), asked, init_from)


def _run(
    settings: RunSettings,
    folder: RunFolder,
    accelerator: Accelerator,
    training: Training,
    asked: StopRequest,
    init_from: Path | None,
) -> None:
    module, main = training.module, accelerator.is_main_process
    if init_from is not None:
        module.load_state_dict(folder.load(init_from)['module'])
    saved = folder.load(folder.last) if folder.last.exists() else None
    state = RunState(module, settings, saved, training.stem_rate)
    more = training.begin(state)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if main:
        dumped = settings.model_dump(mode='json')
        begun_with = str(init_from) if init_from else None
        record = {'settings': dumped, 'init_from': begun_with, **more}
        folder.begin(dumped, state.iteration, accelerator.num_processes, record)
        folder.trim_log(state.iteration)
        print(f'{sum(value.numel() for value in trained):,} weights to train')
    # No process trains before the folder is seen to be free.
    accelerator.wait_for_everyone()
    weights = settings.losses.model_dump()
    with _Log(folder, state.iteration, settings.iterations, main) as log:
        for losses, shown in training.steps(state.iteration):
            total = sum((weights[name] * loss for name, loss in losses.items()), torch.tensor(0.0))
            if not torch.isfinite(total):
                raise not_finite(folder, losses, shown, state.iteration, accelerator.process_index)
            accelerator.backward(total)
            accelerator.clip_grad_norm_(trained, settings.clip_norm)
            state.step()
            stopping = _agree(accelerator, asked)
            last = state.iteration == settings.iterations
            if main:
                state.average.update_parameters(module)
                log.add(losses)
                if last or stopping or state.iteration % settings.save_every == 0:
                    folder.save(folder.last, state.snapshot())
            if stopping and not last:
                accelerator.wait_for_everyone()
                raise RunStopped(
                    f'asked to stop: {folder.last} is of iteration {state.iteration}; go on with '
                    '--resume'
                )
    accelerator.end_training()


def _agree(accelerator: Accelerator, asked: StopRequest) -> bool:
    """Learn whether any process was asked to stop."""
    if accelerator.num_processes == 1:
        return bool(asked)
    mine = torch.tensor(int(bool(asked)), device=accelerator.device)
    return bool(accelerator.reduce(mine, 'sum').item())


def not_finite(
    folder: RunFolder, losses: Mapping[str, Tensor], shown: Any, iteration: int, rank: int
) -> RunError:
    """Write down what a loss that is not finite was computed on."""
    path = folder.path / f'non_finite_{iteration}_{rank}.json'
    values = {name: loss.item() for name, loss in losses.items()}
    write_figures(path, {'losses': {name: str(value) for name, value in values.items()}, **shown})
    return RunError(
        f'the loss is not finite at iteration {iteration}: {values}; what it was computed on is '
        f'in {path}'
    )


class _Log:
    """Shows how far a run is, and writes the mean losses of :data:`LOG_EVERY` iterations."""

    def __init__(self, folder: RunFolder, start: int, length: int, shown: bool) -> None:
        self._folder, self._began = folder, time.monotonic()
        self._bar = tqdm(initial=start, total=length, disable=not shown, mininterval=10)
        self._done = start
        self._losses: dict[str, list[float]] = defaultdict(list)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of the next iteration."""
        self._bar.update()
        self._done += 1
        for name, loss in losses.items():
            self._losses[name].append(loss.item())
        if self._done % LOG_EVERY:
            return
        means = {name: round(sum(of) / len(of), 4) for name, of in self._losses.items()}
        seconds = round(time.monotonic() - self._began, 1)
        self._folder.log({'iteration': self._done, 'seconds': seconds, **means})
        self._bar.set_postfix(means)
        self._losses.clear()


def command(
    description: str | None,
    load: Callable[[Path], SettingsT],
    train: Callable[[SettingsT, Path, bool, Path | None], None],
) -> None:
    """Run the command line of a training."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('settings', type=Path, help='YAML file of the run')
    parser.add_argument('--output', type=Path, help='folder of the run (default: runs/train/NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the newest state')
    parser.add_argument('--init-from', type=Path, help='state.pt of another run: take its weights')
    args = parser.parse_args()
    try:
        settings = load(args.settings)
        output = args.output or Path('runs/train') / settings.name
        train(settings, output, args.resume, args.init_from)
    except RunStopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(EXIT_CODE) from stopped
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error
