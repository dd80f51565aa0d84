"""How the answers to prompts follow parameters and stamps while the node runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prompt_bench import RGB, Bench, close, probability_of
from ros_peers import (
    picture,
)

from clipseg_model.registry import create_model
from clipseg_model.video.steadying import Steadier, Steadying


def test_stamps_that_go_backwards(bench: Bench) -> None:
    bench.set(smoothing=1.0)
    try:
        plain = bench.show(at=500.0)['probability']
        for at in (499.0, 498.9, 10.0):
            assert close(bench.show(at=at)['probability'], plain)
    finally:
        bench.set(smoothing=0.0)
    other = picture(120, 160, seed=6)
    other[:20] = 0
    bench.set(smoothing=1.0)
    try:
        bench.show(at=700.0)
        back = bench.show(other, at=600.0)['probability']
    finally:
        bench.set(smoothing=0.0)
    assert close(back, bench.show(other)['probability']), 'not averaged with what came before'


def test_smoothing(bench: Bench, seeing_model: Path) -> None:
    other = RGB.copy()
    other[60:] = 255 - other[60:]
    segmenter, steadier = create_model(seeing_model, 'cpu'), Steadier()
    how = Steadying(smoothing=0.3, smoothing_reset=1.0)
    bench.set(smoothing=0.3, smoothing_reset=1.0)
    try:
        for rgb, at in ((RGB, 100.0), (other, 100.1), (other, 100.2), (RGB, 100.25)):
            found = segmenter.segment(rgb, ['the mug', 'red bowl'])
            expected = steadier.apply(found, at, rgb, how, 0.0).probability()
            assert close(bench.show(rgb, at=at)['probability'], expected)
        assert not close(expected, found.probability()), 'it does something'
    finally:
        bench.set(smoothing=0.0, smoothing_reset=0.06)


@pytest.mark.parametrize('parameters', [{'presence_threshold': 1.0}, {'min_area': 120 * 160 + 1}])
def test_what_is_absent_has_an_empty_mask(bench: Bench, parameters: dict[str, Any]) -> None:
    assert bench.show()['mask'].any()
    bench.set(**parameters)
    try:
        absent = bench.show()
        assert not absent['mask'].any()
        assert not absent['labels'].any()
        assert absent['probability'].any()
    finally:
        bench.set(presence_threshold=-1.0, min_area=0)
    assert bench.show()['mask'].any()


def test_template(bench: Bench, seeing_model: Path) -> None:
    bench.set(template='a {}')
    try:
        expected = probability_of(seeing_model, ['the mug', 'red bowl'], template='a {}')
        assert close(bench.show()['probability'], expected)
    finally:
        bench.set(template='')
    plain = probability_of(seeing_model, ['the mug', 'red bowl'])
    assert close(bench.show()['probability'], plain)
    assert not close(plain, expected)
    bench.set(template=' plain ')
    try:
        assert close(bench.show()['probability'], plain)
    finally:
        bench.set(template='')
