from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pixel_model import PixelModel, pixel_segmenter

from clipseg_model.errors import ClipsegError, RegionError
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.runtime.eager import EagerRuntime
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.zoom.proposals import CoarseProposals, GivenBoxes, Proposal
from clipseg_model.zoom.refinement import Zoom

SIZES = [(480, 640), (301, 401), (97, 533), (411, 83)]


def dark(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 20, np.uint8)


def model_of(segmenter: Segmenter) -> Any:
    assert isinstance(segmenter.model, PixelModel)
    return segmenter.model


class FixedProposals:
    """Proposes what it was given."""

    def __init__(self, *proposals: Proposal) -> None:
        self.proposals = list(proposals)

    def propose(self, image: NDArray[np.uint8], found: Segmentation) -> list[Proposal]:
        return self.proposals


class TestGeometry:
    @pytest.mark.parametrize('resize', ['square', 'aspect'])
    @pytest.mark.parametrize('size', SIZES)
    @pytest.mark.parametrize('place', [(0, 0), (1, 1), (0.5, 0.31), (0, 1), (0.97, 0.03)])
    def test_a_part_lies_where_it_was(
        self, size: tuple[int, int], place: tuple[float, float], resize: str
    ) -> None:
        """A ramp stays the same ramp through every resizing, unless something is shifted."""
        height, width = size
        w, h = width // 5, height // 5
        x, y = round(place[0] * (width - w)), round(place[1] * (height - h))
        box = Box(x, y, x + w, y + h)
        view = box.view(height, width, 0.3, 0.01)
        picture = dark(height, width)
        slope = 200 / max(view.width, view.height)
        columns = slope * np.arange(view.width)[None, :] * np.ones((view.height, 1))
        rows = slope * np.arange(view.height)[:, None] * np.ones((1, view.width))
        picture[(*view.slices, 0)] = np.rint(columns)
        picture[(*view.slices, 1)] = np.rint(rows)
        zoom = Zoom(GivenBoxes([(x, y, w, h)]), 'replace', context=0.3, least_view=0.01)
        segmenter = pixel_segmenter(zoom, 128, resize=resize)
        found = segmenter.segment(picture, ['red', 'green'])
        # Resizing holds the ramp's end constant over half a pixel of the model at the view's rim.
        rim = 2 + max(view.width, view.height) // 64
        inner = Box(
            max(box.left, view.left + rim),
            max(box.top, view.top + rim),
            min(box.right, view.right - rim),
            min(box.bottom, view.bottom - rim),
        )
        for channel, result in enumerate(found.results):
            level = result.resized_logits() / 0.1 + 127.5
            error = (level - picture[..., channel])[inner.slices]
            # Rounding to whole levels happens twice; a shift of half a pixel would be a mean error.
            assert abs(error.mean()) < 0.12 * slope + 0.1
            assert np.abs(error).max() < 1.6

    @pytest.mark.parametrize('size', SIZES)
    def test_small_things_get_their_exact_shape(self, size: tuple[int, int]) -> None:
        """Found by the model's own proposals, among them at the border and in the corner."""
        height, width = size
        picture = dark(height, width)
        truth = np.zeros((height, width), bool)
        side = max(5, min(size) // 20)
        for y, x in ((0, 0), (height // 2, width // 3), (height - side, width // 2)):
            truth[y : y + side, x : x + side] = True
        truth[height // 3 : height // 3 + side, width - side :] = True
        picture[truth, 0] = 255
        segmenter = pixel_segmenter(None, 64, threshold=0.5)
        whole = segmenter.segment(picture, ['red']).results[0].mask
        segmenter.zoom = Zoom(CoarseProposals(low=0.001), 'replace')
        close = segmenter.segment(picture, ['red']).results[0].mask

        def iou(mask: NDArray[np.bool_]) -> float:
            return float((mask & truth).sum() / (mask | truth).sum())

        assert iou(close) > 0.85
        assert iou(close) > iou(whole) + 0.05

    def test_every_output_shows_it(self) -> None:
        picture = dark(240, 320)
        picture[100:108, 200:208, 0] = 255
        segmenter = pixel_segmenter(Zoom(CoarseProposals(low=0.001), 'replace'), 32)
        found = segmenter.segment(picture, ['red', 'green'])
        assert found.results[0].instances()[0].centroid == pytest.approx((203.5, 103.5), abs=0.3)
        on = found.results[0].mask
        assert 40 < on.sum() < 90
        assert np.array_equal(found.mask() > 0, on)
        assert np.array_equal(found.labels() == 1, on)
        assert np.array_equal(found.confidence() > 0, on)
        assert found.probability()[103, 203] > 0.99
        segmenter.zoom = None
        assert not segmenter.segment(picture, ['red']).mask().any()


class TestWithAModel:
    def test_a_region_is_segmented_as_an_image_of_its_own(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        prompts = ['a mug', 'red chair', 'blue cup']
        box = Box(20, 15, 80, 60)
        segmenter.zoom = Zoom(GivenBoxes([(20, 15, 60, 45)]), 'replace', context=0)
        close = segmenter.segment(image, prompts)
        segmenter.zoom = None
        crop = segmenter.segment(np.ascontiguousarray(image[box.slices]), prompts)
        whole = segmenter.segment(image, prompts)
        for ours, part, before in zip(close.results, crop.results, whole.results, strict=True):
            np.testing.assert_allclose(
                ours.resized_logits()[box.slices], part.resized_logits(), atol=1e-4
            )
            outside = np.ones((90, 120), bool)
            outside[box.slices] = False
            np.testing.assert_array_equal(
                ours.resized_logits()[outside], before.resized_logits()[outside]
            )

    def test_an_answer_that_is_none_in_a_region(
        self, segmenter: Segmenter, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decode, answers = segmenter.decode, []

        def damaged(*words: Any, **options: Any) -> Any:
            answers.append(decode(*words, **options))
            return answers[-1] * (np.nan if len(answers) > 1 else 1)

        monkeypatch.setattr(segmenter, 'decode', damaged)
        segmenter.zoom = Zoom(GivenBoxes([(20, 15, 60, 45)]))
        with pytest.raises(ClipsegError, match='not finite'):
            segmenter.segment(image, ['a mug'])
        assert len(answers) == 2

    def test_by_its_own_proposals(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        segmenter.zoom = Zoom(CoarseProposals(largest=1.0))
        found = segmenter.segment(image, ['a mug', 'red chair'])
        assert any(result.close_ups is not None for result in found.results)
        assert found.labels().shape == (90, 120)


class TestJoining:
    def test_or_is_the_union_of_masks(self) -> None:
        """Equation 9 of Wu et al. 2023; the mask of max is the same."""
        generator = np.random.default_rng(0)
        picture = generator.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        boxes = [(3, 5, 60, 45), (40, 30, 64, 48), (100, 70, 60, 50)]
        segmenter = pixel_segmenter(None, 64)
        union = segmenter.segment(picture, ['red']).results[0].mask
        for box in boxes:
            one = Zoom(GivenBoxes([box]), 'replace', context=0)
            segmenter.zoom = one
            inside = np.zeros((120, 160), bool)
            inside[Box.around(box, 120, 160).slices] = True
            union |= segmenter.segment(picture, ['red']).results[0].mask & inside
        for name in ('or', 'max'):
            segmenter.zoom = Zoom(GivenBoxes(boxes), name, context=0)
            assert np.array_equal(segmenter.segment(picture, ['red']).results[0].mask, union)

    def test_or_decides_about_presence_part_by_part(self) -> None:
        picture = dark(240, 320)
        picture[30:40, 30:40, 0] = 255
        picture[200:210, 200:210, 0] = 140
        boxes = [(25, 25, 20, 15), (195, 198, 20, 15)]
        segmenter = pixel_segmenter(None, 32, presence_threshold=0.9)
        assert not segmenter.segment(picture, ['red']).results[0].presence
        segmenter.zoom = Zoom(GivenBoxes(boxes), 'or', least_view=0.01)
        (result,) = segmenter.segment(picture, ['red']).results
        assert result.presence
        assert result.mask[34, 34]
        # Its pixels are on, and not sure enough to count as present.
        assert not result.mask[204, 204]

    def test_or_adds_nothing_of_a_whole_that_is_absent(self) -> None:
        picture = dark(240, 320)
        picture[:, 250:, 0] = 140
        picture[30:40, 30:40, 0] = 255
        segmenter = pixel_segmenter(None, 32, presence_threshold=0.9)
        segmenter.zoom = Zoom(GivenBoxes([(25, 25, 20, 15)]), 'or', least_view=0.01)
        (result,) = segmenter.segment(picture, ['red']).results
        assert result.presence
        assert result.mask[34, 34]
        assert not result.mask[:, 250:].any()

    @pytest.mark.parametrize('combination', ['mean', 'replace', 'max'])
    def test_score_is_that_of_the_joined_answer(self, combination: str) -> None:
        """A closer look shows that what seemed to be one level is another."""
        picture = dark(240, 320)
        picture[96:112:2, 96:128:2, 0] = 255  # a quarter of its pixels: not half on, from afar
        segmenter = pixel_segmenter(None, 64)
        before = segmenter.segment(picture, ['red']).results[0]
        segmenter.zoom = Zoom(
            GivenBoxes([(96, 96, 32, 16)]), combination, context=0, least_view=0.01
        )
        after = segmenter.segment(picture, ['red']).results[0]
        assert before.score < 0.1
        assert after.score > before.score
        assert after.close_ups is not None

    @pytest.mark.parametrize('combination', ['mean', 'replace', 'max', 'or'])
    def test_presence_threshold_of_a_prompt_counts(self, combination: str) -> None:
        zoom = Zoom(GivenBoxes([(25, 25, 20, 15)]), combination, least_view=0.01)
        prompts = [Prompt('red'), Prompt('red', name='lenient', presence_threshold=0.0)]
        segmenter = pixel_segmenter(zoom, 32, presence_threshold=0.5)
        usual, lenient = segmenter.segment(dark(240, 320), prompts).results
        assert (usual.presence, lenient.presence) == (False, True)

    def test_a_closer_look_can_find_it_absent(self) -> None:
        class Wrong(PixelModel):
            """Sees red in every whole image, none in its parts."""

            def decode(self, features: Any, condition: Any) -> Any:
                return super().decode(features, condition) * 0 + (
                    4.0 if condition.dim() == 2 else -4.0
                )

        segmenter = pixel_segmenter(None, 32, presence_threshold=0.5)
        segmenter.runtime = EagerRuntime(Wrong(), segmenter.device)  # type: ignore[arg-type]
        assert segmenter.segment(dark(60, 80), ['red']).results[0].presence
        segmenter.zoom = Zoom(GivenBoxes([(0, 0, 80, 60)]), 'replace')
        result = segmenter.segment(dark(60, 80), ['red']).results[0]
        assert result.score == pytest.approx(1 / (1 + np.exp(4.0)), abs=1e-5)
        assert not result.presence
        assert not result.mask.any()


class TestCost:
    def test_without_regions_nothing_more_is_run(self) -> None:
        segmenter = pixel_segmenter(Zoom(), 32)
        found = segmenter.segment(dark(60, 80), ['red', 'green'])
        assert model_of(segmenter).encoded == [(1, 3, 32, 32)]
        assert [result.close_ups for result in found.results] == [None, None]

    def test_regions_are_batched(self) -> None:
        boxes = [(30 * (n % 10), 40 * (n // 10), 20, 15) for n in range(20)]
        segmenter = pixel_segmenter(
            Zoom(GivenBoxes(boxes), context=0, least_view=0.01, max_regions=20), 32
        )
        segmenter.segment(dark(240, 320), ['red', 'green', 'blue'])
        assert [shape[0] for shape in model_of(segmenter).encoded] == [1, 8, 8, 4]
        assert model_of(segmenter).decoded[2:] == [(8, 3, 3), (8, 3, 3), (4, 3, 3)]
        assert sum(b * p for b, p, _ in model_of(segmenter).decoded[2:]) == 60

    def test_each_prompt_of_a_region_gets_its_own_answer(self) -> None:
        picture = dark(240, 320)
        for number in range(9):
            picture[97:112, 30 * number + 5 : 30 * number + 25, number % 3] = 255
        boxes = [(30 * n + 5, 97, 20, 15) for n in range(9)]
        proposals = [
            Proposal(Box.around(box, 240, 320), prompt, 0.0)
            for number, box in enumerate(boxes)
            for prompt in ((number % 3,) if number < 6 else (0, 1, 2))
        ]
        zoom = Zoom(FixedProposals(*proposals), 'replace', 0, 0.01, max_regions=9)
        found = pixel_segmenter(zoom, 16).segment(picture, ['red', 'green', 'blue'])
        for channel, result in enumerate(found.results):
            assert np.array_equal(result.mask, picture[..., channel] == 255)

    def test_the_number_of_regions_is_shared_out_among_the_prompts(self) -> None:
        def at(number: int) -> Box:
            return Box(30 * number, 0, 30 * number + 20, 15)

        proposals = [Proposal(at(n), 0, 9.0 - n) for n in range(6)]
        proposals += [Proposal(at(n), 1, -float(n)) for n in (7, 8)]
        zoom = Zoom(FixedProposals(), context=0, least_view=0.01, max_regions=4)
        found = pixel_segmenter(None, 32).segment(dark(240, 320), ['red', 'green'])
        regions = zoom.regions(proposals, found)
        assert [list(region.boxes.items()) for region in regions] == [
            [(0, [at(0)])],
            [(1, [at(7)])],
            [(0, [at(1)])],
            [(1, [at(8)])],
        ]

    def test_what_one_view_shows_is_one_region(self) -> None:
        first, second = Box(100, 100, 120, 115), Box(125, 100, 130, 105)
        zoom = Zoom(FixedProposals(), context=1.0, least_view=0.01)
        found = pixel_segmenter(None, 32).segment(dark(240, 320), ['red', 'green', 'blue'])
        (region,) = zoom.regions(
            [Proposal(first, 0, 2), Proposal(second, 0, 1), Proposal(second, 2, 0)], found
        )
        assert region.boxes == {0: [first, second], 2: [second]}

    def test_the_cap_never_drops_what_is_in_view_anyway(self) -> None:
        first, second = Box(100, 100, 120, 115), Box(125, 100, 130, 105)
        zoom = Zoom(FixedProposals(), context=1.0, least_view=0.01, max_regions=1)
        found = pixel_segmenter(None, 32).segment(dark(240, 320), ['red'])
        far = Box(0, 0, 9, 9)
        regions = zoom.regions(
            [Proposal(first, 0, 2), Proposal(far, 0, 1), Proposal(second, 0, 0)], found
        )
        assert [region.boxes for region in regions] == [{0: [first, second]}]


class TestErrors:
    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'combination': 'sum'}, "not by 'sum'"),
            ({'context': -0.1}, r'0…10, not -0\.1'),
            ({'context': float('nan')}, 'not nan'),
            ({'least_view': 0}, 'above 0, up to 1, not 0'),
            ({'least_view': float('inf')}, 'not inf'),
            ({'max_regions': 0}, 'from 1, not 0'),
            ({'max_regions': 2.5}, r'from 1, not 2\.5'),
        ],
    )
    def test_settings(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(RegionError, match=message):
            Zoom(**options)

    def test_a_box_outside_one_image_does_not_spoil_the_next(self) -> None:
        segmenter = pixel_segmenter(Zoom(GivenBoxes([(100, 0, 20, 20)])), 32)
        with pytest.raises(RegionError, match=r'Box 1 .* outside the image of 80 × 60'):
            segmenter.segment(dark(60, 80), [Prompt('red')])
        assert segmenter.segment(dark(60, 120), ['red']).results[0].close_ups is not None
