"""What a resumed run takes from its settings, and the moving average of the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training.bundled.optimizers import RunState, moving_average
from training.bundled.settings import Settings


def settings(**changes) -> Settings:
    return Settings(
        **{
            'name': 'tiny',
            'model': {},
            'frozen': 'frozen.safetensors',
            'data': {'folder': 'views'},
            'stages': [{'iterations': 10, 'input_size': 64}],
            'learning_rate': 0.01,
            'warmup': 0,
            'decay': 0,
            **changes,
        }
    )


class Joint(nn.Module):
    """Has a part of every kind that the optimizers tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({'blocks': nn.ModuleList([nn.Linear(4, 4)])})
        self.model = nn.ModuleDict({'backbone': nn.ModuleDict({'stem': nn.Linear(4, 4)})})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model['backbone']['stem'](self.towers['blocks'][0](x))


def begin(saved: dict | None = None, **changes) -> RunState:
    chosen = settings(**changes)
    return RunState(Joint(), chosen, saved, chosen.stem_rate)


def stepped(state: RunState, steps: int) -> RunState:
    for _ in range(steps):
        state.joint(torch.ones(1, 4)).sum().backward()
        state.step()
    return state


def groups(state: RunState) -> list[dict]:
    return [group for optimizer in state._optimizers for group in optimizer.param_groups]


class TestResume:
    @pytest.fixture
    def saved(self) -> dict:
        return copy.deepcopy(stepped(begin(), 3).snapshot())

    def test_rates_and_weight_decay_are_those_of_the_settings(self, saved):
        changes = {'learning_rate': 0.002, 'stem_rate': 0.5, 'weight_decay': 0.3}
        fresh, resumed = (groups(begin(state, **changes)) for state in (None, saved))
        for name in ('lr', 'weight_decay'):
            assert [group[name] for group in resumed] == [group[name] for group in fresh]
        assert {group['lr'] for group in resumed} == {0.002, 0.001}

    def test_the_next_step_has_the_rate_too(self, saved):
        state = stepped(begin(saved, learning_rate=0.002), 1)
        assert {group['lr'] for group in groups(state)} == {0.002, 0.0002}

    def test_a_state_without_first_rates_goes_on(self, saved):
        for optimizer in saved['optimizers']:
            for group in optimizer['param_groups']:
                del group['initial_lr']
        state = begin(saved)
        assert state.iteration == 3
        assert {group['lr'] for group in groups(state)} == {0.01, 0.001}

    def test_moments_go_on(self, saved):
        adamw, _ = stepped(begin(saved), 1)._optimizers
        assert {int(state['step']) for state in adamw.state.values()} == {4}


def test_the_average_follows_fast_at_first_and_then_with_its_decay():
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = moving_average(module, decay=0.5)
    seen = []
    nn.init.ones_(module.weight)
    average.n_averaged.fill_(1)
    for _ in range(3):
        average.update_parameters(module)
        seen.append(float(average.module.weight))
    # (1 + n) / (10 + n) for n = 1, 2, 3 is less than the decay of 0.5.
    left = [2 / 11, 2 / 11 * 3 / 12, 2 / 11 * 3 / 12 * 4 / 13]
    assert seen == pytest.approx([1 - value for value in left])
    average.n_averaged.fill_(1000)
    nn.init.zeros_(module.weight)
    average.update_parameters(module)
    assert float(average.module.weight) == pytest.approx(seen[-1] / 2)


def test_the_average_is_moved_in_one_step(monkeypatch):
    """A value that is asked of each parameter would wait for the GPU each time."""
    calls = []
    original = torch._foreach_lerp_

    def counted(averages, *arguments):
        calls.append(len(averages))
        return original(averages, *arguments)

    monkeypatch.setattr(torch, '_foreach_lerp_', counted)
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    average = moving_average(module, decay=0.9)
    for _ in range(2):
        average.update_parameters(module)
    assert calls == [4]
