"""The order of samples: complete, shuffled, the same for any number of processes and workers."""

from __future__ import annotations

import pytest
import torch

from tests.training.tiny_runs import tiny_settings
from training.datasets.sources import open_source
from training.loop.feeding import DrawnPictures, Order, feed


def flat(order: Order, steps: int) -> list[tuple[int, int]]:
    return [place for step in range(steps) for part in order.places(step) for place in part]


def test_every_sample_comes_once_an_epoch_in_another_order():
    seen = flat(Order(10, seed=0, batch=4), 5)
    assert [epoch for epoch, _ in seen] == [0] * 10 + [1] * 10
    first, second = ([index for e, index in seen if e == epoch] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != sorted(first)
    assert seen != flat(Order(10, seed=1, batch=4), 5)
    # A batch that is larger than the data.
    assert len({index for _, index in flat(Order(3, seed=0, batch=8), 1)}) == 3


def test_processes_and_parts_share_the_batch():
    whole = Order(10, seed=3, batch=8)
    shares = [Order(10, 3, 8, accumulate=2, rank=rank, processes=2) for rank in (0, 1)]
    for step in range(6):
        parts = [part for share in shares for part in share.places(step)]
        assert [len(part) for part in parts] == [2] * 4
        assert sorted(place for part in parts for place in part) == sorted(whole.places(step)[0])


def test_a_step_can_be_asked_for_in_any_order():
    order = Order(10, seed=0, batch=4)
    late = order.places(40)
    order.places(0)
    assert order.places(40) == late


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match='make it a multiple of 6'):
        Order(10, 0, 8, accumulate=2, processes=3)
    with pytest.raises(ValueError, match='no samples'):
        Order(0, 0, 8)


def test_loading_processes_change_nothing():
    settings = tiny_settings()
    drawn = DrawnPictures(open_source(settings.data), settings.prompts, 0)
    order = Order(10, 0, 4, accumulate=2)
    alone, helped = ([*feed(drawn, order, 1, 4, workers)] for workers in (0, 2))
    assert len(alone) == len(helped) == 3
    for one, other in zip(alone, helped, strict=True):
        assert [load.places for load in one] == [load.places for load in other]
        assert [load.batch.texts for load in one] == [load.batch.texts for load in other]
        for left, right in zip(one, other, strict=True):
            assert torch.equal(left.batch.images, right.batch.images)
            assert torch.equal(left.batch.text_weights, right.batch.text_weights)
