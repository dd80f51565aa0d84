from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.calibration import logit, sigmoid
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.video.smoothing import TemporalSmoother, picture_change, thumbnail
from clipseg_model.video.steadying import Steadier, Steadying

HEIGHT, WIDTH = 60, 80
MUG = Prompt('mug')


def scene(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.kron(small, np.ones((height // 6, width // 8, 1), np.uint8))


def found(probability: float, *prompts: Prompt, side: int = 8) -> Segmentation:
    logits = np.full((side, side), logit(probability), np.float32)
    results = [
        PromptResult(prompt, 0.5, probability, True, logits, HEIGHT, WIDTH)
        for prompt in prompts or (MUG,)
    ]
    return Segmentation(HEIGHT, WIDTH, results, 'tiny')


def probability_of(segmentation: Segmentation, number: int = 0) -> float:
    return float(sigmoid(segmentation.results[number].logits).mean())


def smooth(smoother: TemporalSmoother, value: float, stamp: float, **options: object) -> float:
    image = options.pop('image', scene())
    prompts = options.pop('prompts', (MUG,))
    made = smoother.smooth(found(value, *prompts), stamp, image, 0.2, 0.06, **options)  # type: ignore
    return probability_of(made)


def test_a_step_is_followed_as_an_exponential_does() -> None:
    smoother = TemporalSmoother()
    smooth(smoother, 0.1, 10.0)
    for stamp in (10.05, 10.1, 10.2, 10.6):
        value = smooth(smoother, 0.9, stamp)
        expected = 0.9 - 0.8 * math.exp(-(stamp - 10.0) / 0.2)
        assert value == pytest.approx(expected, abs=1e-5)


def test_the_frame_rate_makes_no_difference() -> None:
    slow, fast = TemporalSmoother(), TemporalSmoother()
    smooth(slow, 0.2, 0.0)
    smooth(fast, 0.2, 0.0)
    for number in range(1, 31):
        last_fast = smooth(fast, 0.8, number / 100)
    for number in range(1, 4):
        last_slow = smooth(slow, 0.8, number / 10)
    assert last_fast == pytest.approx(last_slow, abs=1e-5)


def test_noise_of_the_mask_falls() -> None:
    smoother, rng = TemporalSmoother(), np.random.default_rng(0)
    raw = rng.normal(0.5, 0.1, 400)
    made = [smooth(smoother, value, n / 30) for n, value in enumerate(raw)]
    # Of independent noise, an average with share a of each leaves a / (2 - a) of the variance.
    share = 1 - math.exp(-1 / 30 / 0.2)
    assert np.var(made[50:]) / np.var(raw[50:]) == pytest.approx(share / (2 - share), rel=0.4)


def test_score_is_that_of_the_average() -> None:
    smoother = TemporalSmoother()
    smoother.smooth(found(0.1), 0.0, scene(), 0.2, 0.06)
    made = smoother.smooth(found(0.9), 0.1, scene(), 0.2, 0.06)
    assert made.results[0].score == pytest.approx(probability_of(made), abs=1e-5)
    assert 0.1 < made.results[0].score < 0.9


@pytest.mark.parametrize(
    ('stamp', 'reason'), [(10.0, 'back'), (9.9, 'back'), (-5.0, 'back'), (11.1, 'gap')]
)
def test_stamps_that_do_not_advance_or_jump_start_anew(stamp: float, reason: str) -> None:
    smoother = TemporalSmoother()
    smooth(smoother, 0.1, 10.0)
    assert smooth(smoother, 0.9, stamp) == pytest.approx(0.9, abs=1e-6)
    assert smoother.restarts[reason] == 1
    assert smooth(smoother, 0.1, stamp + 0.1) > 0.3, 'and goes on from there'


def test_another_view_starts_anew_and_a_darker_one_does_not() -> None:
    smoother = TemporalSmoother()
    smooth(smoother, 0.1, 0.0, image=scene(1))
    assert smooth(smoother, 0.9, 0.1, image=scene(2)) == pytest.approx(0.9, abs=1e-6)
    assert smoother.restarts['motion'] == 1
    darker = (scene(2).astype(int) - 20).clip(0, 255).astype(np.uint8)
    assert smooth(smoother, 0.1, 0.2, image=darker) > 0.3


def test_slow_motion_adds_up() -> None:
    """No two frames differ by the limit, but those of an average would."""
    smoother, wide = TemporalSmoother(), np.hstack((scene(1), scene(2)))
    steps = [np.roll(wide, -n, axis=1)[:, :WIDTH] for n in range(80)]
    between = [picture_change(thumbnail(a), thumbnail(b)) for a, b in pairwise(steps)]
    assert max(between) < 0.06
    for number, image in enumerate(steps):
        smooth(smoother, 0.5, number / 30, image=np.ascontiguousarray(image))
    assert smoother.restarts['motion'] > 1


def test_an_image_of_another_size_starts_anew() -> None:
    smoother = TemporalSmoother()
    smooth(smoother, 0.1, 0.0)
    value = smooth(smoother, 0.9, 0.1, image=scene(0, 120, 160))
    assert value == pytest.approx(0.9, abs=1e-6)
    assert smoother.restarts['size'] == 1


def test_a_new_or_changed_prompt_starts_anew_and_the_others_do_not() -> None:
    smoother = TemporalSmoother()
    bowl, changed = Prompt('bowl'), Prompt('big bowl', name='bowl')
    smoother.smooth(found(0.1, MUG, bowl), 0.0, scene(), 0.2, 0.06)
    made = smoother.smooth(found(0.9, changed, MUG), 0.1, scene(), 0.2, 0.06)
    assert probability_of(made, 0) == pytest.approx(0.9, abs=1e-6)
    assert probability_of(made, 1) == pytest.approx(0.9 - 0.8 * math.exp(-0.5), abs=1e-5)
    again = smoother.smooth(found(0.1, bowl), 0.2, scene(), 0.2, 0.06)
    assert probability_of(again) == pytest.approx(0.1, abs=1e-6), 'what was gone is forgotten'


def test_no_time_constant_leaves_everything_as_it_is() -> None:
    smoother = TemporalSmoother()
    one = found(0.3)
    assert smoother.smooth(one, 0.0, scene(), 0.0, 0.06) is one
    smooth(smoother, 0.1, 0.1)
    smoother.smooth(one, 0.2, scene(), 0.0, 0.06)
    assert smooth(smoother, 0.9, 0.3) == pytest.approx(0.9, abs=1e-6), 'off forgets'


def test_certain_logits_stay_finite() -> None:
    smoother = TemporalSmoother()
    big = found(0.5)
    for stamp, value in ((0.0, 200.0), (0.1, 200.0), (0.2, -200.0)):
        big.results[0].logits[:] = value
        made = smoother.smooth(big, stamp, scene(), 0.2, 0.06)
        assert np.isfinite(made.results[0].logits).all()


def test_change_is_between_nothing_and_all() -> None:
    black, white = np.zeros((60, 80, 3), np.uint8), np.full((60, 80, 3), 255, np.uint8)
    board = np.zeros((48, 64, 3), np.uint8)
    board[:, :32] = 255
    assert picture_change(thumbnail(black), thumbnail(black)) == 0
    assert picture_change(thumbnail(black), thumbnail(white)) == pytest.approx(0, abs=1e-6)
    assert picture_change(thumbnail(board), thumbnail(255 - board)) == pytest.approx(1, abs=0.01)
    assert thumbnail(np.zeros((1, 1, 3), np.uint8)).shape == (24, 32)


def test_steadier_smooths_before_it_decides() -> None:
    steadier, how = Steadier(), Steadying(smoothing=0.5, presence_hysteresis=0.0)
    assert steadier.apply(found(0.95), 0.0, scene(), how, 0.9).results[0].presence
    [kept] = steadier.apply(found(0.7), 0.02, scene(), how, 0.9).results
    assert kept.presence, 'a single weak frame is averaged away'
    steadier.forget()
    [dropped] = steadier.apply(found(0.7), 0.04, scene(), how, 0.9).results
    assert not dropped.presence
    own = Steadying(presence_threshold=0.6)
    assert steadier.apply(found(0.7), 9.0, scene(), own, 0.9).results[0].presence
