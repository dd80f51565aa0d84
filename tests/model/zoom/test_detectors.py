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
from clipseg_model.regions import Box
from clipseg_model.zoom.detectors import DetectorProposals, list_detectors, load_detector
from clipseg_model.zoom.proposals import Proposal
from clipseg_model.zoom.refinement import Zoom

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
    return DetectorProposals(detector, CATEGORIES, wanted, **options).propose(IMAGE, found)


class TestProposals:
    def test_detections_that_are_sure_and_show_something(self) -> None:
        proposals = propose(FixedDetector(CUP, CHAIR, UNSURE, SLIVER))
        assert [one.box for one in proposals] == [Box(10, 20, 50, 61), Box(100, 20, 160, 120)]
        assert [one.confidence for one in proposals] == pytest.approx([0.9, 0.6])
        assert [one.prompt for one in proposals] == [None, None]

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
        with pytest.raises(RegionError, match=r"no category 'cups'\. Did you mean 'cup'.*chair"):
            propose(FixedDetector(CUP), 'cups')

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
        proposer = DetectorProposals(FixedDetector(CUP), CATEGORIES, ['cup'])
        segmenter = pixel_segmenter(Zoom(proposer, 'or', context=0), 32)
        mask = segmenter.segment(picture, ['red']).results[0].mask
        assert np.array_equal(mask, picture[..., 0] == 255)


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
        detector, categories = load_detector(path, SMALLEST, CATEGORIES)
        assert categories == CATEGORIES
        assert not detector.training
        for key, value in detector.state_dict().items():
            assert torch.equal(value, state[key])
        proposer = DetectorProposals(detector, categories, min_score=0.0)
        found = pixel_segmenter(None, 32).segment(IMAGE, ['red'])
        for proposal in proposer.propose(IMAGE, found):
            assert Box(0, 0, 160, 120).holds(proposal.box)

    def test_weights_of_another_detector(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(state, tmp_path / 'a.pth')
        with pytest.raises(CheckpointError, match=r'does not fit .* 91 categories'):
            load_detector(tmp_path / 'a.pth', SMALLEST)

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r'no file .*none\.pth.* download'):
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
