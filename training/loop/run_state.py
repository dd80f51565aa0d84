"""State of a run of :mod:`training.train`: what a checkpoint keeps and restores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from training.loop.learner import Learner
from training.loop.run_folder import RunError, RunFolder
from training.loop.settings import Settings, differences, without_places
from training.loop.stopping import StopRequest


@dataclass
class Run:
    """A run under way: its parts, and its progress."""

    settings: Settings
    folder: RunFolder
    accelerator: Accelerator
    learner: Learner
    optimizer: Any
    samples: int  #: to train on
    frozen: str  #: fingerprint of what is not trained
    step: int = 0  #: steps that are done
    best: float | None = None  #: score of the best validation so far; more is better
    skipped: Counter[str] = field(default_factory=Counter)  #: broken records met, by kind
    unmeasured: bool = False  #: the validation that belongs to this step was broken off
    asked: StopRequest = field(default_factory=StopRequest)  #: of this process
    stopping: bool = False  #: whether any process was asked to stop

    def agree(self, count: int) -> int:
        """Sum a count of pixels over all processes, 1 at least; learn whether any shall stop."""
        mine = torch.tensor([count, bool(self.asked)], device=self.accelerator.device)
        total, stop = self.accelerator.reduce(mine, 'sum').tolist()
        self.stopping = bool(stop)
        return max(total, 1)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the trained weights, by name, on the CPU."""
        trained = self.learner.trained()
        return {name: value.detach().cpu().clone() for name, value in trained.items()}

    def snapshot(self) -> dict[str, Any]:
        """Return everything that the run needs to go on."""
        scaler = self.accelerator.scaler
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            'step': self.step,
            'best': self.best,
            'unmeasured': self.unmeasured,
            'skipped': dict(self.skipped),
            'samples': self.samples,
            'settings': self.settings.model_dump(mode='json'),
            'frozen': self.frozen,
            'trained': self.weights(),
            'optimizer': self.optimizer.state_dict(),
            'scaler': None if scaler is None else scaler.state_dict(),
            'rng': {'cpu': torch.get_rng_state(), 'cuda': cuda},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put the run back to a :meth:`snapshot`; RunError where towers or data are others."""
        if state['samples'] != self.samples:
            raise RunError(
                f'the run began with {state["samples"]} samples, and there are {self.samples} now'
            )
        if state['frozen'] != self.frozen:
            raise RunError('the frozen towers are not those that the run began with: see `towers`')
        put(state['trained'], self.learner.trained())
        self.optimizer.load_state_dict(state['optimizer'])
        scaler = self.accelerator.scaler
        if scaler is not None and state['scaler'] is not None:
            scaler.load_state_dict(state['scaler'])
        torch.set_rng_state(state['rng']['cpu'])
        if len(state['rng']['cuda']) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state['rng']['cuda'])
        self.step, self.best = state['step'], state['best']
        self.unmeasured = state.get('unmeasured', False)
        self.skipped = Counter(state['skipped'])


def load_state(
    folder: RunFolder, settings: Settings, resume: bool, moved: bool = False
) -> dict[str, Any] | None:
    """Read the checkpoint that a run goes on from; None where it begins.

    Args:
        folder: Of the run.
        settings: As they are now.
        resume: Go on from the checkpoint.
        moved: Data and weights may lie elsewhere than they did.

    Raises:
        RunError: There is one and ``resume`` is false, or it is of other settings.
    """
    if not folder.last.exists():
        return None
    if not resume:
        raise RunError(f'{folder.last} exists: give --resume to go on, or another --output')
    state = folder.load(folder.last)
    then, now = state['settings'], settings.model_dump(mode='json')
    elsewhere = not differences(without_places(then), without_places(now))
    differ = [] if moved and elsewhere else differences(then, now)
    if settings.streams and state['settings'].get('workers') != settings.workers:
        # Shards are dealt to them.
        differ.append(f'workers: {state["settings"].get("workers")} then, {settings.workers} now')
    if differ:
        remedy = (
            'if the same data and weights lie there, add --moved'
            if elsewhere and not moved
            else f'go on with those of {folder.path / "config.yaml"}, or begin another run with '
            '--init-from'
        )
        raise RunError(
            f'{folder.last} is of a run with other settings ({"; ".join(differ)}): {remedy}'
        )
    return state


@torch.no_grad()
def put(weights: Mapping[str, Tensor], trained: dict[str, nn.Parameter]) -> None:
    """Copy weights into the parameters of their names."""
    if weights.keys() != trained.keys():
        raise RunError(f'weights of other names: {sorted(weights.keys() ^ trained.keys())}')
    for name, value in weights.items():
        trained[name].copy_(value)
