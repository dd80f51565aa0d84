from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.video.presence import PresenceGate

MUG = Prompt('mug')


def found(score: float, prompt: Prompt = MUG, on: int = 16) -> Segmentation:
    """One prompt of 8 × 8 pixels, of which some are on."""
    logits = np.full(64, -4.0, np.float32)
    logits[:on] = 4.0
    result = PromptResult(prompt, 0.5, score, True, logits.reshape(8, 8), 8, 8)
    return Segmentation(8, 8, [result], 'tiny')


def decide(gate: PresenceGate, *scores: float, start: float = 0.0) -> list[bool]:
    said = []
    for number, score in enumerate(scores):
        made = gate.decide(found(score), start + number / 10, 0.8, 0.1)
        said.append(made.results[0].presence)
    return said


def test_hysteresis() -> None:
    said = decide(PresenceGate(), 0.75, 0.79, 0.81, 0.75, 0.71, 0.69, 0.75, 0.8)
    assert said == [False, False, True, True, True, False, False, True]


def test_what_is_absent_has_an_empty_mask() -> None:
    [result] = PresenceGate().decide(found(0.5), 0.0, 0.8).results
    assert not result.presence
    assert not result.mask.any()
    assert found(0.5).results[0].mask.any()


def test_what_the_model_took_for_absent_may_be_present() -> None:
    absent = found(0.7)
    absent = replace(absent, results=[replace(absent.results[0], presence=False)])
    [result] = PresenceGate().decide(absent, 0.0, 0.6).results
    assert result.presence
    assert result.mask.sum() == 16


@pytest.mark.parametrize('start', [-5.0, 1.2])
def test_a_gap_or_stamps_that_go_back_forget(start: float) -> None:
    gate = PresenceGate()
    assert decide(gate, 0.9, 0.75) == [True, True]
    assert decide(gate, 0.75, start=start) == [False]


def test_the_same_stamp_again_does_not_forget() -> None:
    gate = PresenceGate()
    assert decide(gate, 0.9) == [True]
    assert decide(gate, 0.75) == [True]


def test_a_changed_prompt_begins_as_absent() -> None:
    gate = PresenceGate()
    decide(gate, 0.9)
    [result] = gate.decide(found(0.75, Prompt('blue mug', name='mug')), 0.1, 0.8, 0.1).results
    assert not result.presence


@pytest.mark.parametrize(('own', 'present'), [(0.9, False), (0.85, True), (0.0, True)])
def test_a_prompt_may_have_its_own_threshold(own: float, present: bool) -> None:
    prompt = Prompt('mug', presence_threshold=own)
    [result] = PresenceGate().decide(found(0.86, prompt), 0.0, 0.99).results
    assert result.presence is present


@pytest.mark.parametrize(('min_area', 'present'), [(0, True), (16, True), (17, False)])
def test_least_area(min_area: int, present: bool) -> None:
    [result] = PresenceGate().decide(found(0.9), 0.0, 0.8, 0.1, min_area).results
    assert result.presence is present
    assert int(result.mask.sum()) == (16 if present else 0)


def test_forget() -> None:
    gate = PresenceGate()
    decide(gate, 0.9)
    gate.forget()
    assert decide(gate, 0.75, start=0.1) == [False]
