"""Optimizers, learning rates and the moving average of the bundled model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn


class RateSettings(Protocol):
    """What :class:`RunState` reads of a run's settings."""

    @property
    def learning_rate(self) -> float:
        """Highest learning rate."""

    @property
    def weight_decay(self) -> float:
        """Weight decay of matrices."""

    @property
    def average(self) -> float:
        """Decay of the weights' moving average."""

    def rate_factor(self, iteration: int) -> float:
        """Return the share of the learning rates of an iteration, 0…1."""


class RunState:
    """Weights, their moving average, optimizers and learning rates of a run.

    Only the main process updates ``average``.

    Args:
        joint: Module with the weights.
        settings: Rates and decays.
        saved: What :meth:`snapshot` returned.
        stem_rate: The stem's learning rate, relative.
    """

    def __init__(
        self,
        joint: nn.Module,
        settings: RateSettings,
        saved: Mapping[str, Any] | None = None,
        stem_rate: float = 1.0,
    ) -> None:
        self.joint = joint
        self.average = moving_average(joint, settings.average)
        self.iteration = 0
        # Their type changes when accelerate wraps them.
        self._optimizers: list[Any] = build_optimizers(joint, settings, stem_rate)
        if saved is not None:
            self.iteration = saved['iteration']
            joint.load_state_dict(saved['module'])
            self.average.module.load_state_dict(saved['average'])
            self.average.n_averaged.fill_(self.iteration)
            for optimizer, state in zip(self._optimizers, saved['optimizers'], strict=True):
                given = [(group['lr'], group['weight_decay']) for group in optimizer.param_groups]
                optimizer.load_state_dict(state)
                # Rates and decays are those of the settings, not the saved ones.
                for group, (rate, decay) in zip(optimizer.param_groups, given, strict=True):
                    group['initial_lr'], group['weight_decay'] = rate, decay
        # The rates of the iteration that comes next.
        last = self.iteration - 1
        self._schedules = [
            LambdaLR(optimizer, settings.rate_factor, last) for optimizer in self._optimizers
        ]

    def prepare(self, accelerator: Accelerator) -> nn.Module:
        """Move everything to the device, and return the module to call."""
        self.average.to(accelerator.device)
        module, *self._optimizers = accelerator.prepare(self.joint, *self._optimizers)
        return module

    def step(self) -> None:
        """Move the weights along their gradients, and set the next learning rates."""
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        self.iteration += 1

    def snapshot(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            'module': self.joint.state_dict(),
            'average': self.average.module.state_dict(),
            'optimizers': [optimizer.state_dict() for optimizer in self._optimizers],
            'iteration': self.iteration,
        }


def build_optimizers(
    module: nn.Module, settings: RateSettings, stem_rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the transformer blocks, AdamW for all else.

    Muon (Jordan et al. 2024) learns these towers two to three times faster than AdamW alone; its
    updates are scaled to AdamW's size (Liu et al. 2025), so that one learning rate serves both.
    """
    matrices: list[nn.Parameter] = []
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        stem = name.startswith('model.backbone.stem.')
        if '.blocks.' in name and parameter.dim() == 2:
            matrices.append(parameter)
        else:
            groups.setdefault((stem, parameter.dim() > 1), []).append(parameter)
    rate = settings.learning_rate
    adamw = torch.optim.AdamW(
        [
            {
                'params': parameters,
                'lr': rate * stem_rate if stem else rate,
                'weight_decay': settings.weight_decay if matrix else 0.0,
            }
            for (stem, matrix), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
    )
    return [adamw, Muon(matrices, rate, settings.weight_decay)]


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024), its updates scaled to AdamW's size (Liu et al. 2025).

    torch's own computes in bfloat16, which takes CPUs without instructions for it ten seconds a
    step where float32 takes a tenth of one.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {'lr': lr, 'weight_decay': weight_decay, 'momentum': 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one step."""
        for group in self.param_groups:
            for parameter in group['params']:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state['momentum'] = torch.zeros_like(parameter)
                momentum = state['momentum'].lerp_(parameter.grad, 1 - group['momentum'])
                update = orthogonal(parameter.grad.lerp(momentum, group['momentum']))
                parameter.mul_(1 - group['lr'] * group['weight_decay'])
                scale = 0.2 * max(parameter.shape) ** 0.5
                parameter.add_(update, alpha=-group['lr'] * scale)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Find the nearest matrix of singular values near 1 by Newton and Schulz's iteration."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def moving_average(module: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a module that follows it as an exponential moving average, fast at first."""

    def follow(averages: PARAM_LIST, weights: PARAM_LIST, count: Tensor | int) -> None:
        number = int(count)
        step = get_ema_multi_avg_fn(min(decay, (1 + number) / (10 + number)))
        step(averages, weights, count)

    return AveragedModel(module, multi_avg_fn=follow).requires_grad_(False)
