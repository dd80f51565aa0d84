"""What a run of :mod:`training.train` needs to go on where it was: written, read, put back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from training.loop.run_folder import RunError, RunFolder
from training.loop.settings import Settings, differences


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: Steps that are done.
        best: Score of the best validation so far, where more is better.
        skipped: Broken records met, by kind.
    """

    step: int
    best: float | None
    skipped: Counter[str]


def snapshot(
    settings: Settings,
    frozen: str,
    samples: int,
    trained: dict[str, nn.Parameter],
    optimizer: Any,
    accelerator: Accelerator,
    done: Progress,
) -> dict[str, Any]:
    """Returns everything that a run needs to go on."""
    scaler = accelerator.scaler
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        'step': done.step,
        'best': done.best,
        'skipped': dict(done.skipped),
        'samples': samples,
        'settings': settings.model_dump(mode='json'),
        'frozen': frozen,
        'trained': {name: value.detach().cpu().clone() for name, value in trained.items()},
        'optimizer': optimizer.state_dict(),
        'scaler': None if scaler is None else scaler.state_dict(),
        'rng': {'cpu': torch.get_rng_state(), 'cuda': cuda},
    }


def load_state(folder: RunFolder, settings: Settings, resume: bool) -> dict[str, Any] | None:
    """Reads the checkpoint that a run goes on from; None where it begins.

    Raises:
        RunError: There is one and ``resume`` is false, or it is of other settings.
    """
    if not folder.last.exists():
        return None
    if not resume:
        raise RunError(f'{folder.last} exists: give --resume to go on, or another --output')
    state = folder.load(folder.last)
    now = settings.model_dump(mode='json')
    differ = differences(state['settings'], now)
    if settings.stream and state['settings'].get('workers') != settings.workers:
        # Shards are dealt to them.
        differ.append(f'workers: {state["settings"].get("workers")} then, {settings.workers} now')
    if differ:
        raise RunError(
            f'{folder.last} is of a run with other settings ({"; ".join(differ)}): go on with '
            f'those of {folder.path / "config.yaml"}, or begin another run with --init-from'
        )
    return state


def restore(
    state: dict[str, Any],
    frozen: str,
    samples: int,
    trained: dict[str, nn.Parameter],
    optimizer: Any,
    accelerator: Accelerator,
) -> Progress:
    """Puts a run back to where its checkpoint was written.

    Raises:
        RunError: The towers or the data are others than the run began with.
    """
    if state['samples'] != samples:
        raise RunError(
            f'the run began with {state["samples"]} samples, and there are {samples} now'
        )
    if state['frozen'] != frozen:
        raise RunError('the frozen towers are not those that the run began with: see `towers`')
    put(state['trained'], trained)
    optimizer.load_state_dict(state['optimizer'])
    if accelerator.scaler is not None and state['scaler'] is not None:
        accelerator.scaler.load_state_dict(state['scaler'])
    torch.set_rng_state(state['rng']['cpu'])
    if len(state['rng']['cuda']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state['rng']['cuda'])
    return Progress(state['step'], state['best'], Counter(state['skipped']))


@torch.no_grad()
def put(weights: dict[str, Tensor], trained: dict[str, nn.Parameter]) -> None:
    """Copies weights into the parameters of their names."""
    if weights.keys() != trained.keys():
        raise RunError(f'weights of other names: {sorted(weights.keys() ^ trained.keys())}')
    for name, value in weights.items():
        trained[name].copy_(value)
