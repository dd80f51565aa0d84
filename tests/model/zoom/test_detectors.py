from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pixel_model import pixel_segmenter
from safetensors.torch import save_file
from torch import Tensor, nn

from clipseg_model.errors import CheckpointError, RegionError
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.weights.torchvision_store import list_detectors
from clipseg_model.zoom.detectors import Detection, DetectorProposals, plain_name
from clipseg_model.zoom.model_detector import ModelDetector
from clipseg_model.zoom.proposals import Proposal
from clipseg_model.zoom.refinement import Zoom
from clipseg_model.zoom.torchvision_detectors import TorchvisionDetector, load_detector

CATEGORIES = ['__background__', 'cup', 'dining table', 'chair']
IMAGE = np.full((120, 160, 3), 20, np.uint8)


SMALLEST = 'ssdlite320_mobilenet_v3_large'


@pytest.fixture(scope='module')
def state() -> dict[str, Tensor]:
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(SMALLEST, weights=None, weights_backbone=None, num_classes=4)
    return model.state_dict()


class FixedDetector(nn.Module):
    """Answers as torchvision's detectors do."""

    def __init__(self, *rows: tuple[float, float, float, float, int, float]) -> None:
        super().__init__()
        self.rows = rows
        self.seen: list[Tensor] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.seen += images
        return [
            {
                'boxes': torch.tensor([row[:4] for row in self.rows]).reshape(-1, 4),
                'labels': torch.tensor([row[4] for row in self.rows], dtype=torch.int64),
                'scores': torch.tensor([row[5] for row in self.rows]),
            }
        ]


CUP = (10.2, 20.0, 50.0, 60.5, 1, 0.9)
CHAIR = (100.0, 20.0, 200.0, 130.0, 3, 0.6)
UNSURE = (0.0, 0.0, 30.0, 30.0, 1, 0.2)
SLIVER = (-4.0, 10.0, 0.5, 90.0, 1, 0.9)


def propose(detector: nn.Module, *wanted: str, **options: Any) -> list[Proposal]:
    found = pixel_segmenter(None, 32).segment(IMAGE, ['red'])
    detect = TorchvisionDetector(detector, CATEGORIES)
    return DetectorProposals(detect, CATEGORIES, wanted, **options).propose(IMAGE, found)


class TestProposals:
    def test_detections_that_are_sure_and_show_something(self) -> None:
        proposals = propose(FixedDetector(CUP, CHAIR, UNSURE, SLIVER))
        assert [one.box for one in proposals] == [Box(10, 20, 50, 61), Box(100, 20, 160, 120)]
        assert [one.confidence for one in proposals] == pytest.approx([0.9, 0.6])
        assert [one.prompt for one in proposals] == [0, 0]

    def test_by_category(self) -> None:
        detector = FixedDetector(CUP, CHAIR)
        assert [one.box.left for one in propose(detector, ' Chair')] == [100]
        assert len(propose(detector, 'chair', 'cup')) == 2
        assert propose(detector, 'dining table') == []

    def test_least_score(self) -> None:
        assert len(propose(FixedDetector(CUP, UNSURE), min_score=0.1)) == 2

    def test_nothing_detected(self) -> None:
        assert propose(FixedDetector()) == []

    def test_the_detector_sees_the_image_in_0_to_1(self) -> None:
        detector = FixedDetector(CUP)
        propose(detector)
        assert tuple(detector.seen[0].shape) == (3, 120, 160)
        torch.testing.assert_close(detector.seen[0], torch.full((3, 120, 160), 20 / 255))

    def test_an_unknown_category(self) -> None:
        with pytest.raises(RegionError, match=r"no category 'cupp'\. Did you mean 'cup'.*chair"):
            propose(FixedDetector(CUP), 'cupp')

    @pytest.mark.parametrize('score', [-0.1, 1.1, float('nan')])
    def test_a_score_out_of_range(self, score: float) -> None:
        with pytest.raises(RegionError, match='in 0…1'):
            propose(FixedDetector(CUP), min_score=score)

    @pytest.mark.parametrize('row', [(float('nan'), 0, 9, 9, 1, 0.9), (0, 0, 9, 9, 1, np.inf)])
    def test_answers_that_are_not_finite(self, row: Any) -> None:
        with pytest.raises(CheckpointError, match='not finite'):
            propose(FixedDetector(row))

    def test_zoom_by_it(self) -> None:
        picture = IMAGE.copy()
        picture[30:34, 20:24, 0] = 255
        detect = TorchvisionDetector(FixedDetector(CUP), CATEGORIES)
        proposer = DetectorProposals(detect, CATEGORIES, ['cup'])
        segmenter = pixel_segmenter(Zoom(proposer, 'or', context=0), 32)
        mask = segmenter.segment(picture, ['red']).results[0].mask
        assert np.array_equal(mask, picture[..., 0] == 255)


def detections(*rows: tuple[str, float, float]) -> Any:
    """A detector in one function: (category, left, score), boxes of 20 × 20 pixels."""

    def detect(image: Any, names: Any) -> list[Detection]:
        detect.asked = list(names)
        return [Detection(name, score, (left, 30, left + 20, 50)) for name, left, score in rows]

    detect: Any = detect
    return detect


def regions_of(proposer: DetectorProposals, *prompts: Prompt | str) -> list[list[int]]:
    """The left edge of each prompt's regions."""
    found = pixel_segmenter(None, 32).segment(IMAGE, ['red'] * len(prompts))
    for result, prompt in zip(found.results, prompts, strict=True):
        one = Prompt(prompt) if isinstance(prompt, str) else prompt
        object.__setattr__(result, 'prompt', one)
    proposals = proposer.propose(IMAGE, found)
    return [[one.box.left for one in proposals if one.prompt == n] for n in range(len(prompts))]


class TestCategories:
    """Q_k of ClsCLIP+: the regions of category k."""

    ROWS = (('cup', 0, 0.9), ('chair', 40, 0.8), ('cup', 80, 0.7), ('airplane', 120, 0.6))
    NAMES = ('__background__', 'cup', 'chair', 'airplane', 'wine glass', 'tv')

    def test_each_prompt_gets_the_regions_of_its_own_category(self) -> None:
        proposer = DetectorProposals(detections(*self.ROWS), self.NAMES)
        assert regions_of(proposer, 'cup', 'chair', 'tv') == [[0, 80], [40], []]

    def test_names_are_compared_without_what_is_no_difference(self) -> None:
        proposer = DetectorProposals(detections(*self.ROWS), self.NAMES)
        asked = ['the Cup', 'chairs', 'aeroplane', 'wine_glasses']
        # There is no wine glass.
        assert regions_of(proposer, *asked) == [[0, 80], [40], [120], []]
        assert plain_name('bus') == 'bus'
        assert plain_name('glass') == 'glass'
        assert plain_name('a tv monitor') == plain_name('tvmonitor') == 'tv'

    @pytest.mark.parametrize(
        ('plural', 'category'),
        [
            ('wine glasses', 'wine glass'),
            ('two-seat couches', 'two-seat couch'),
            ('the buses', 'bus'),
            ('knives', 'knife'),
            ('loaves', 'loaf'),
            ('strawberries', 'strawberry'),
            ('cookies', 'cookie'),
            ('vases', 'vase'),
            ('horses', 'horse'),
            ('toothbrushes', 'toothbrush'),
            ('potatoes', 'potato'),
            ('skis', 'skis'),
            ('scissors', 'scissors'),
            ('TVs', 'tv'),
            ('sofas', 'couch'),
        ],
    )
    def test_plurals(self, plural: str, category: str) -> None:
        detect = detections((category, 0, 0.9), ('dog', 40, 0.9))
        given = DetectorProposals(detect, [category, 'dog'])
        assert regions_of(given, plural, category) == [[0], [0]]
        assert regions_of(DetectorProposals(detect, [category, 'dog'], [plural]), 'red') == [[0]]
        by_hand = DetectorProposals(detect, ['dog'], categories_of={category: 'dog'})
        assert regions_of(by_hand, plural) == [[40]]

    @pytest.mark.parametrize('word', ['bus', 'wine glass', 'tennis', 'octopus', 'dress'])
    def test_words_that_end_like_plurals(self, word: str) -> None:
        proposer = DetectorProposals(detections((word[:-1], 0, 0.9), (word, 40, 0.9)), [word])
        assert regions_of(proposer, word) == [[40]]

    def test_a_detector_of_any_names_is_asked_in_the_singular(self) -> None:
        detect = detections(('wine glass', 0, 0.9))
        assert regions_of(DetectorProposals(detect), 'the wine glasses', 'buses') == [[0], []]
        assert detect.asked == ['bus', 'wine glass']

    def test_by_the_name_of_a_prompt_that_has_one(self) -> None:
        proposer = DetectorProposals(detections(*self.ROWS), self.NAMES)
        assert regions_of(proposer, Prompt('a place to sit', name='chair')) == [[40]]

    def test_a_category_may_be_named_for_a_prompt(self) -> None:
        given = {'something to drink from': 'cup'}
        proposer = DetectorProposals(detections(*self.ROWS), self.NAMES, categories_of=given)
        assert regions_of(proposer, 'Something to drink from', 'chair') == [[0, 80], [40]]
        with pytest.raises(RegionError, match="no category 'cups and saucers'"):
            DetectorProposals(detections(), self.NAMES, categories_of={'a': 'cups and saucers'})

    def test_a_prompt_that_names_no_category_gets_all_that_are_looked_at(self) -> None:
        proposer = DetectorProposals(detections(*self.ROWS), self.NAMES)
        picture = Prompt(image=IMAGE)
        assert regions_of(proposer, 'something red', picture) == 2 * [[0, 40, 80, 120]]
        some = DetectorProposals(detections(*self.ROWS), self.NAMES, ['cup'])
        assert regions_of(some, 'something red', 'chair') == [[0, 80], []]

    def test_a_detector_of_any_names_is_asked_for_those_of_the_prompts(self) -> None:
        detect = detections(('red mug', 0, 0.9), ('book', 40, 0.9))
        assert regions_of(DetectorProposals(detect), 'the red mug', 'book') == [[0], [40]]
        assert detect.asked == ['book', 'red mug']

    def test_a_model_is_a_detector_of_any_names(self) -> None:
        picture = IMAGE.copy()
        picture[40:80, 20:60, 0] = 255
        picture[40:80, 100:140, 1] = 255
        detect = ModelDetector(pixel_segmenter(None, 160))
        seen = detect(picture, ['red', 'green'])
        assert [one.category for one in seen] == ['red', 'green']
        for one, left in zip(seen, (20, 100), strict=True):
            assert one.box == pytest.approx((left, 40, left + 40, 80), abs=1.5)
            assert 0.5 < one.score <= 1
        assert detect(picture, []) == []


class TestUnionOfRegions:
    """Equation 9 of Wu et al. unites regions alone."""

    def picture(self) -> Any:
        picture = IMAGE.copy()
        # One thing in a region, and one that no region has.
        picture[30:50, 40:60, 0] = 255
        picture[90:110, 100:120, 0] = 255
        return picture

    def test_what_lies_in_no_region_is_not_on(self) -> None:
        proposer = DetectorProposals(detections(('red', 40, 0.9)), None)
        picture = self.picture()
        for combination, expected in (('regions', 400), ('or', 800)):
            zoom = Zoom(proposer, combination, context=0)
            result = pixel_segmenter(zoom, 160).segment(picture, ['red']).results[0]
            assert result.mask.sum() == pytest.approx(expected, abs=40)
        outside = Zoom(proposer, 'regions', context=0)
        found = pixel_segmenter(outside, 160).segment(picture, ['red'])
        assert found.results[0].probability[100, 110] < 1e-6
        assert found.probability()[100, 110] < 1e-6

    def test_a_prompt_without_regions_is_found_nowhere(self) -> None:
        proposer = DetectorProposals(detections(('green', 40, 0.9)), None)
        zoom = Zoom(proposer, 'regions', context=0)
        found = pixel_segmenter(zoom, 160).segment(self.picture(), ['red', 'green'])
        assert [int(result.mask.sum()) for result in found.results] == [0, 0]
        assert found.results[0].score < 1e-6
        nothing = Zoom(DetectorProposals(detections(), None), 'regions')
        found = pixel_segmenter(nothing, 160).segment(self.picture(), ['red'])
        assert not found.mask().any()
        sure = pixel_segmenter(nothing, 160, presence_threshold=0.5)
        assert not sure.segment(self.picture(), ['red']).results[0].presence

    def test_overlapping_regions_are_united(self) -> None:
        proposer = DetectorProposals(detections(('red', 30, 0.9), ('red', 44, 0.8)), None)
        zoom = Zoom.published(proposer)
        result = pixel_segmenter(zoom, 160).segment(self.picture(), ['red']).results[0]
        assert (zoom.combination, zoom.context) == ('regions', 0)
        truth = np.zeros((120, 160), bool)
        truth[30:50, 40:60] = True
        assert (result.mask & truth).sum() / (result.mask | truth).sum() > 0.9
        assert not result.mask[90:].any()


class TestLoading:
    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_weights_of_torchvision(
        self, state: dict[str, Tensor], tmp_path: Path, suffix: str
    ) -> None:
        path = tmp_path / f'detector{suffix}'
        if suffix == '.pth':
            torch.save(state, path)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        detector = load_detector(path, SMALLEST, CATEGORIES)
        assert detector.categories == CATEGORIES
        assert not detector.module.training
        for key, value in detector.module.state_dict().items():
            assert torch.equal(value, state[key])
        proposer = DetectorProposals(detector, detector.categories, min_score=0.0)
        found = pixel_segmenter(None, 32).segment(IMAGE, ['red'])
        for proposal in proposer.propose(IMAGE, found):
            assert Box(0, 0, 160, 120).holds(proposal.box)

    def test_weights_of_another_detector(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(state, tmp_path / 'a.pth')
        with pytest.raises(CheckpointError, match=r'does not fit .* 91 categories'):
            load_detector(tmp_path / 'a.pth', SMALLEST)

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r'no file .*none\.pth.*clipseg download'):
            load_detector(tmp_path / 'none.pth', SMALLEST)
        for name, message in (('bad.pth', 'refused'), ('bad.safetensors', 'not a readable')):
            (tmp_path / name).write_bytes(b'not weights')
            with pytest.raises(CheckpointError, match=message):
                load_detector(tmp_path / name, SMALLEST)
        torch.save([1, 2], tmp_path / 'list.pth')
        with pytest.raises(CheckpointError, match='holds a list and not a set of weights'):
            load_detector(tmp_path / 'list.pth', SMALLEST)

    def test_a_pickle_that_would_run_code_is_refused(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / 'ran',)

        torch.save({'weight': Evil()}, tmp_path / 'evil.pth')
        with pytest.raises(CheckpointError, match='could run code'):
            load_detector(tmp_path / 'evil.pth', SMALLEST)
        assert not (tmp_path / 'ran').exists()

    def test_an_unknown_detector(self, tmp_path: Path) -> None:
        with pytest.raises(RegionError, match='no detector'):
            load_detector(tmp_path / 'a.pth', 'yolo')
        assert 'fasterrcnn_resnet50_fpn_v2' in list_detectors()
