from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import clipseg_model.segmentation as segmentation_module
from clipseg_model.errors import PromptError, RegionError
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.segmentation import PromptResult, Segmentation

HEIGHT, WIDTH = 90, 130


def smooth_logits(seed: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(0, 3, (6, 8)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (64, 48), interpolation=cv2.INTER_CUBIC))


def result(seed: int, threshold: float = 0.5, presence: bool = True) -> PromptResult:
    return PromptResult(
        Prompt(f'thing {seed}'), threshold, 0.9, presence, smooth_logits(seed), HEIGHT, WIDTH
    )


def segmentation(*results: PromptResult) -> Segmentation:
    return Segmentation(HEIGHT, WIDTH, list(results), 'tiny')


def winners(found: Segmentation) -> NDArray[np.int64]:
    """The definition, written out: the most probable of the prompts whose mask is on."""
    probabilities = np.stack([x.probability for x in found.results]).astype(np.float64)
    masks = np.stack([x.mask for x in found.results])
    best = np.where(masks, probabilities, -1).argmax(axis=0)
    return np.where(masks.any(axis=0), best + 1, 0)


CASES = {
    'one': [result(0)],
    'three': [result(0), result(1), result(2)],
    'thresholds': [result(0, 0.3), result(1, 0.7), result(2, 0.5)],
    'absent': [result(0), result(1, presence=False), result(2)],
    'none': [result(0, presence=False), result(1, presence=False)],
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def found(request: pytest.FixtureRequest) -> Segmentation:
    return segmentation(*request.param)


class TestOnePrompt:
    @pytest.mark.parametrize('threshold', [0.05, 0.5, 0.8, 0.99])
    def test_mask_is_the_thresholded_probability(self, threshold: float) -> None:
        one = result(3, threshold)
        assert one.mask.dtype == bool
        assert one.probability.dtype == np.float32
        assert 0 < one.mask.mean() < 1
        # Rounding may decide where the probability is the threshold to six digits.
        clear = np.abs(one.probability - threshold) > 1e-6
        assert np.array_equal(one.mask[clear], (one.probability > threshold)[clear])

    def test_probability_is_that_of_the_resized_logits(self) -> None:
        one = result(3)
        resized = cv2.resize(one.logits, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(one.probability, 1 / (1 + np.exp(-resized)), atol=1e-6)

    def test_an_absent_prompt_has_a_probability_and_no_mask(self) -> None:
        here, absent = result(3), result(3, presence=False)
        assert np.array_equal(here.probability, absent.probability)
        assert not absent.mask.any()
        assert absent.mask.shape == (HEIGHT, WIDTH)

    def test_geometry(self) -> None:
        """A block of logits becomes the same block of the image, whatever the proportions."""
        logits = np.full((8, 8), -5, np.float32)
        logits[2:4, 4:8] = 5
        one = PromptResult(Prompt('a'), 0.5, 1.0, True, logits, 80, 160)
        expected = np.zeros((80, 160), bool)
        expected[20:40, 80:160] = True
        # Bilinear interpolation rounds the two inner corners off.
        assert np.count_nonzero(one.mask ^ expected) < 0.03 * np.count_nonzero(expected)
        rows, columns = np.flatnonzero(one.mask.any(axis=1)), np.flatnonzero(one.mask.any(axis=0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (20, 39, 80, 159)


class TestCost:
    """What a consumer did not ask for is not made."""

    @pytest.fixture(autouse=True)
    def _count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sigmoids = self.resizes = 0
        resize, real = PromptResult.resized_logits, segmentation_module.sigmoid

        def counted_resize(
            one: PromptResult, out: NDArray[np.float32] | None = None
        ) -> NDArray[np.float32]:
            self.resizes += 1
            return resize(one, out)

        def counted_sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
            self.sigmoids += 1
            return real(logits)

        monkeypatch.setattr(PromptResult, 'resized_logits', counted_resize)
        monkeypatch.setattr(segmentation_module, 'sigmoid', counted_sigmoid)

    def test_masks_and_labels_need_no_sigmoid(self) -> None:
        found = segmentation(result(0), result(1), result(2, presence=False))
        assert self.resizes == 0
        found.mask()
        assert self.resizes == 2
        found.labels()
        found.labels([3, 4, 5])
        assert (self.resizes, self.sigmoids) == (4, 0)
        found.mask()
        assert self.resizes == 4, 'the labels say where the mask is'
        found.confidence()
        assert (self.resizes, self.sigmoids) == (4, 1)

    def test_masks_that_were_made_are_not_made_again(self) -> None:
        found = segmentation(result(0), result(1))
        expected = np.any([one.mask for one in found.results], axis=0)
        assert np.array_equal(found.mask() > 0, expected)
        assert self.resizes == 2

    def test_what_is_nowhere_on_is_not_resized(self) -> None:
        """The peak at the model's own resolution tells."""
        on, off = result(0), result(1, 0.99999)
        assert off.logits.max() < off.cut
        found = segmentation(on, off)
        assert not off.mask.any()
        assert np.array_equal(found.mask() > 0, on.mask)
        assert np.array_equal(found.labels() > 0, on.mask)
        assert self.resizes == 3

    def test_a_single_pixel_on_is_found(self) -> None:
        logits = np.full((8, 8), -5, np.float32)
        logits[3, 4] = 5
        one = PromptResult(Prompt('a'), 0.5, 1.0, True, logits, 80, 160)
        assert one.can_be_on
        assert one.mask.any()


class TestManyPrompts:
    def test_mask_is_the_union(self, found: Segmentation) -> None:
        union = np.any([x.mask for x in found.results], axis=0)
        assert np.array_equal(found.mask(), np.where(union, 255, 0))
        assert found.mask().dtype == np.uint8

    def test_labels_are_the_winners(self, found: Segmentation) -> None:
        labels = found.labels()
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, winners(found))
        assert np.array_equal(labels > 0, found.mask() > 0)
        assert set(np.unique(found.mask())) <= {0, 255}

    def test_confidence_is_the_winners(self, found: Segmentation) -> None:
        labels, confidence = found.labels(), found.confidence()
        assert confidence.dtype == np.uint8
        assert not confidence[labels == 0].any()
        for number, one in enumerate(found.results, start=1):
            expected = np.rint(255 * one.probability[labels == number])
            difference = confidence[labels == number].astype(int) - expected
            assert np.abs(difference).max(initial=0) <= 1e-3

    def test_probability_is_the_winners_everywhere(self, found: Segmentation) -> None:
        labels, probability = found.labels(), found.probability()
        assert probability.dtype == np.float32
        highest = np.max([x.probability for x in found.results], axis=0)
        np.testing.assert_allclose(probability[labels == 0], highest[labels == 0], atol=1e-6)
        for number, one in enumerate(found.results, start=1):
            here = labels == number
            np.testing.assert_allclose(probability[here], one.probability[here], atol=1e-6)

    def test_a_low_threshold_wins_over_a_likelier_prompt_that_is_off(self) -> None:
        likely = np.full((4, 4), 0.4, np.float32)  # p = 0.60
        unlikely = np.full((4, 4), -0.4, np.float32)  # p = 0.40
        found = Segmentation(
            4,
            4,
            [
                PromptResult(Prompt('a'), 0.9, 0.6, True, likely, 4, 4),
                PromptResult(Prompt('b'), 0.3, 0.4, True, unlikely, 4, 4),
            ],
            'tiny',
        )
        assert (found.labels() == 2).all()
        assert (found.confidence() == 102).all()
        np.testing.assert_allclose(found.probability(), 0.401312, atol=1e-5)

    def test_the_earlier_of_equals_wins(self) -> None:
        found = segmentation(result(1), result(1))
        assert set(np.unique(found.labels())) == {0, 1}

    def test_ids(self) -> None:
        found = segmentation(*CASES['three'])
        labels = found.labels([254, 7, 7])
        expected = np.array([0, 254, 7, 7], np.uint8)[found.labels()]
        assert np.array_equal(labels, expected)
        assert labels.dtype == np.uint8

    @pytest.mark.parametrize('ids', [[1, 2], [1, 2, 0], [1, 2, 255], [1, 2, -3]])
    def test_ids_that_are_wrong(self, ids: list[int]) -> None:
        with pytest.raises(PromptError, match='id'):
            segmentation(*CASES['three']).labels(ids)

    def test_254_prompts(self) -> None:
        logits = np.full((254, 1, 254), -3, np.float32)
        for number in range(254):
            logits[number, 0, number] = 3
        results = [
            PromptResult(Prompt(f'thing {n}'), 0.5, 1.0, True, logits[n], 1, 254)
            for n in range(254)
        ]
        found = Segmentation(1, 254, results, 'tiny')
        assert found.labels()[0].tolist() == list(range(1, 255))

    def test_arrays_are_the_callers_own(self, found: Segmentation) -> None:
        for make in (found.mask, found.labels, found.confidence, found.probability):
            before = make().copy()
            make()[:] = 77
            assert np.array_equal(make(), before)


class TestWithin:
    REGION, SHAPE = Box(23, 11, 23 + WIDTH, 11 + HEIGHT), (HEIGHT + 40, WIDTH + 50)

    def test_outside_is_zero_and_inside_as_before(self, found: Segmentation) -> None:
        whole = found.within(self.REGION, *self.SHAPE)
        assert (whole.height, whole.width) == self.SHAPE
        assert whole.region == self.REGION
        assert found.region is None
        pairs = [(getattr(found, n)(), getattr(whole, n)())
                 for n in ('mask', 'labels', 'confidence', 'probability')]  # fmt: skip
        for before, after in zip(found.results, whole.results, strict=True):
            pairs += [(before.mask, after.mask), (before.probability, after.probability)]
        for before, after in pairs:
            right = np.zeros(self.SHAPE, before.dtype)
            right[self.REGION.slices] = before
            np.testing.assert_array_equal(after, right)

    def test_instances_have_boxes_of_the_whole_image(self) -> None:
        [before] = segmentation(result(0)).results
        [after] = segmentation(before).within(self.REGION, *self.SHAPE).results
        boxes = [instance.box for instance in before.instances()]
        assert boxes
        moved = [(x + 23, y + 11, width, height) for x, y, width, height in boxes]
        assert [instance.box for instance in after.instances()] == moved

    @pytest.mark.parametrize(
        ('region', 'words'),
        [
            (Box(0, 0, WIDTH - 1, HEIGHT), 'is not of the size'),
            (Box(60, 0, 60 + WIDTH, HEIGHT), 'out'),
        ],
    )
    def test_a_region_that_does_not_fit(self, region: Box, words: str) -> None:
        with pytest.raises(RegionError, match=words):
            segmentation(result(0)).within(region, *self.SHAPE)
