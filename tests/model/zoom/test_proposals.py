from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import ClipsegError, RegionError
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.zoom.proposals import CoarseProposals, GivenBoxes

HEIGHT, WIDTH = 240, 320
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def found(*logits: NDArray[np.float32], threshold: float = 0.5) -> Segmentation:
    results = [
        PromptResult(Prompt(f'thing {n}'), threshold, 0.5, True, one, HEIGHT, WIDTH)
        for n, one in enumerate(logits)
    ]
    return Segmentation(HEIGHT, WIDTH, results, 'none')


def blank() -> NDArray[np.float32]:
    """Logits of a quarter of the image's resolution, with nothing in them."""
    return np.full((60, 80), -6, np.float32)


class TestCoarse:
    def test_parts_of_each_prompt(self) -> None:
        first, second = blank(), blank()
        first[10:14, 20:26] = -1  # p = 0.27: off, and possible
        first[50:55, 70:72] = 3
        second[0:2, 0:2] = 0
        given = CoarseProposals(margin=0).propose(IMAGE, found(first, second, blank()))
        assert [(one.prompt, one.box) for one in given] == [
            (0, Box(276, 196, 292, 224)),  # the most probable first, with one pixel around it
            (0, Box(76, 36, 108, 60)),
            (1, Box(0, 0, 12, 12)),
        ]
        assert [one.confidence for one in given] == [3, -1, 0]

    def test_low_threshold(self) -> None:
        logits = blank()
        logits[10:14, 20:26] = -1
        assert CoarseProposals(low=0.26).propose(IMAGE, found(logits))
        assert not CoarseProposals(low=0.28).propose(IMAGE, found(logits))
        assert CoarseProposals(low=0.28).propose(IMAGE, found(logits, threshold=0.2))

    def test_margin(self) -> None:
        logits = blank()
        logits[20:24, 30:40] = 1
        (given,) = CoarseProposals(margin=0.5).propose(IMAGE, found(logits))
        assert given.box == Box(100, 60, 180, 116)

    def test_what_is_large_is_left_alone_and_so_is_what_lies_at_it(self) -> None:
        logits = blank()
        logits[10:50, 10:20] = 3
        logits[30:33, 21:24] = 3  # its margin reaches into the large part
        logits[30:33, 60:63] = 3
        given = CoarseProposals(margin=0.5, largest=0.5).propose(IMAGE, found(logits))
        assert [one.box for one in given] == [Box(232, 112, 260, 140)]
        assert len(CoarseProposals(margin=0.5, largest=1.0).propose(IMAGE, found(logits))) == 3

    @pytest.mark.parametrize(
        'options',
        [
            {'low': 0},
            {'low': 1.0},
            {'low': float('nan')},
            {'margin': -0.1},
            {'margin': float('nan')},
            {'largest': 0},
            {'largest': 1.1},
        ],
    )
    def test_out_of_range(self, options: dict[str, Any]) -> None:
        with pytest.raises(ClipsegError, match=r'proposals must be .*, not'):
            CoarseProposals(**options)


class TestGiven:
    def test_every_box_for_every_prompt(self) -> None:
        boxes = np.array([[10.5, 20, 30, 40], [300, 200, 99, 99]])
        given = GivenBoxes(boxes.tolist()).propose(IMAGE, found(blank(), blank()))
        assert [one.box for one in given] == [Box(10, 20, 41, 60), Box(300, 200, 320, 240)]
        assert [one.prompt for one in given] == [None, None]
        assert given[0].confidence > given[1].confidence

    def test_confidences(self) -> None:
        given = GivenBoxes([(0, 0, 9, 9), (9, 9, 9, 9)], [0.1, 0.8])
        assert [one.confidence for one in given.propose(IMAGE, found(blank()))] == [0.1, 0.8]
        with pytest.raises(RegionError, match='2 boxes need as many confidences, not 1'):
            GivenBoxes([(0, 0, 9, 9), (9, 9, 9, 9)], [0.1])

    @pytest.mark.parametrize('box', [(0, 0, 0, 5), (0, 0, float('nan'), 5), (1, 2, 3)])
    def test_a_bad_box_is_refused_before_there_is_an_image(self, box: tuple[float, ...]) -> None:
        with pytest.raises(RegionError, match='Box 2'):
            GivenBoxes([(0, 0, 9, 9), box])

    def test_a_box_outside_the_image(self) -> None:
        boxes = GivenBoxes([(0, 0, 9, 9), (400, 0, 9, 9)])
        with pytest.raises(RegionError, match=r'Box 2 .* outside the image of 320 × 240'):
            boxes.propose(IMAGE, found(blank()))

    def test_no_boxes(self) -> None:
        assert GivenBoxes([]).propose(IMAGE, found(blank())) == []
