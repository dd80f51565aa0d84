from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import RegionError
from clipseg_model.regions import Box, CloseUp, CloseUps

HEIGHT, WIDTH = 97, 133


def constant(value: float) -> NDArray[np.float32]:
    return np.full((HEIGHT, WIDTH), value, np.float32)


class TestBox:
    @pytest.mark.parametrize(
        ('rectangle', 'expected'),
        [
            ((10, 20, 30, 40), (10, 20, 40, 60)),
            ((10.2, 20.9, 1.1, 0.05), (10, 20, 12, 21)),
            ((-5, -5, 10, 10), (0, 0, 5, 5)),
            ((130, 90, 50, 50), (130, 90, 133, 97)),
            ((-100, -100, 1000, 1000), (0, 0, 133, 97)),
            (('1', '2', '3.5', '4'), (1, 2, 5, 6)),
        ],
    )
    def test_covers_a_rectangle(
        self, rectangle: tuple[float, ...], expected: tuple[int, ...]
    ) -> None:
        assert Box.around(rectangle, HEIGHT, WIDTH) == Box(*expected)

    @pytest.mark.parametrize(
        ('rectangle', 'message'),
        [
            ((10, 20, 0, 40), r'Box 3 has no area \(x 10, y 20, width 0, height 40\)'),
            ((10, 20, 30, -1), 'no area'),
            ((10, float('nan'), 30, 40), 'finite'),
            ((10, 20, float('inf'), 40), 'finite'),
            ((10, 20, 30), 'four numbers'),
            (('a', 20, 30, 40), 'four numbers'),
            (None, 'four numbers'),
            ((133, 20, 30, 40), 'outside the image of 133 × 97'),
            ((10, -40, 30, 40), 'outside the image'),
        ],
    )
    def test_what_is_no_box(self, rectangle: tuple[float, ...], message: str) -> None:
        with pytest.raises(RegionError, match=message):
            Box.around(rectangle, HEIGHT, WIDTH, 'Box 3')

    @pytest.mark.parametrize('edges', [(3, 3, 3, 9), (5, 3, 4, 9), (-1, 0, 4, 9)])
    def test_no_empty_box_is_made(self, edges: tuple[int, int, int, int]) -> None:
        with pytest.raises(RegionError, match='left < right'):
            Box(*edges)


class TestView:
    @pytest.mark.parametrize('size', [(97, 133), (480, 640), (31, 500), (3, 2), (1, 1)])
    def test_holds_the_box_lies_inside_and_has_the_images_proportions(
        self, size: tuple[int, int]
    ) -> None:
        height, width = size
        generator = np.random.default_rng(0)
        for _ in range(200):
            x, y = generator.uniform(-0.2, 1, 2) * (width, height)
            w, h = generator.uniform(0.25, 0.6, 2) * (width, height) + 1
            box = Box.around((x, y, w, h), height, width)
            context = float(generator.uniform(0, 2))
            view = box.view(height, width, context, 0.1)
            assert Box(0, 0, width, height).holds(view)
            assert view.holds(box)
            assert abs(view.width - view.height * width / height) <= 2 + width / height

    def test_context_and_least_size(self) -> None:
        box = Box(300, 200, 340, 230)
        assert box.view(480, 640, 0.5, 0.01) == Box(280, 185, 360, 245)
        assert box.view(480, 640, 0, 0.5) == Box(160, 95, 480, 335)
        # At the border it is moved, not cut.
        assert Box(0, 450, 40, 480).view(480, 640, 0.5, 0.01) == Box(0, 420, 80, 480)
        assert box.view(480, 640, 10, 0.01) == Box(0, 0, 640, 480)


class TestPasting:
    def close_up(self, box: Box, value: float, view: Box | None = None) -> CloseUp:
        return CloseUp(view or box, (box,), np.full((16, 16), value, np.float32))

    @pytest.mark.parametrize(
        ('name', 'expected'), [('mean', 2.0), ('replace', 5.0), ('max', 5.0), ('or', 5.0)]
    )
    def test_where_the_part_is_higher(self, name: str, expected: float) -> None:
        logits = constant(-1)
        box = Box(7, 11, 40, 90)
        CloseUps((self.close_up(box, 5),), name).paste(logits)
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[11:90, 7:40] = True
        np.testing.assert_allclose(logits, np.where(inside, expected, -1))

    @pytest.mark.parametrize(
        ('name', 'expected'), [('mean', -2.0), ('replace', -5.0), ('max', 1.0), ('or', 1.0)]
    )
    def test_where_the_part_is_lower(self, name: str, expected: float) -> None:
        logits = constant(1)
        box = Box(0, 0, 5, 5)
        CloseUps((self.close_up(box, -5),), name).paste(logits)
        np.testing.assert_allclose(logits[:5, :5], expected)
        assert (logits[5:] == 1).all()
        assert (logits[:, 5:] == 1).all()

    def test_or_leaves_what_stays_off_as_it_was(self) -> None:
        logits = constant(-3)
        close_ups = CloseUps((self.close_up(Box(0, 0, 9, 9), -1),), 'or', cut=-0.5)
        close_ups.paste(logits)
        assert (logits == -3).all()
        CloseUps(close_ups.parts, 'max', cut=-0.5).paste(logits)
        assert (logits[:9, :9] == -1).all()

    @pytest.mark.parametrize('name', ['mean', 'replace', 'max', 'or'])
    def test_the_highest_counts_where_parts_overlap_in_any_order(self, name: str) -> None:
        parts = (self.close_up(Box(0, 0, 20, 20), 4), self.close_up(Box(10, 10, 30, 30), -4))
        first, second = constant(-6), constant(-6)
        CloseUps(parts, name).paste(first)
        CloseUps(parts[::-1], name).paste(second)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first[10:20, 10:20], first[0, 0])

    def test_a_part_counts_in_its_boxes_and_is_placed_by_its_view(self) -> None:
        view = Box(20, 30, 52, 62)
        ramp = np.tile(np.arange(32, dtype=np.float32), (32, 1))
        part = CloseUp(view, (Box(25, 35, 30, 40), Box(50, 30, 52, 31)), ramp)
        logits = constant(-9)
        CloseUps((part,), 'replace').paste(logits)
        expected = constant(-9)
        expected[35:40, 25:30] = np.arange(5, 10)
        expected[30, 50:52] = (30, 31)
        np.testing.assert_array_equal(logits, expected)

    def test_the_same_at_a_lower_resolution(self) -> None:
        """Sampling the pasted logits at the coarse pixels' centres, without making them."""
        smooth = np.random.default_rng(0).normal(0, 3, (4, 5)).astype(np.float32)
        part = CloseUp(
            Box(31, 17, 121, 77), (Box(40, 20, 100, 70),), np.asarray(cv2.resize(smooth, (90, 60)))
        )
        coarse = np.full((24, 33), -8, np.float32)
        for name in ('mean', 'replace', 'max', 'or'):
            close_ups = CloseUps((part,), name, cut=-7.5)
            full = np.full((HEIGHT, WIDTH), -8, np.float32)
            close_ups.paste(full)
            small = coarse.copy()
            close_ups.paste_small(small, HEIGHT, WIDTH)
            x = ((np.arange(33) + 0.5) * WIDTH / 33 - 0.5).round().astype(int)
            y = ((np.arange(24) + 0.5) * HEIGHT / 24 - 0.5).round().astype(int)
            inner = (slice(6, 16), slice(11, 24))
            assert np.abs(small - full[np.ix_(y, x)])[inner].max() < 0.6
            assert (small[:, :9] == -8).all()
            assert (small[19:] == -8).all()

    def test_a_part_too_small_for_the_lower_resolution(self) -> None:
        coarse = np.full((4, 4), -1, np.float32)
        CloseUps((self.close_up(Box(0, 0, 2, 2), 5),), 'max').paste_small(coarse, 100, 100)
        assert (coarse == -1).all()

    def test_an_unknown_combination(self) -> None:
        with pytest.raises(RegionError, match="mean, replace, max, or, regions, not by 'sum'"):
            CloseUps((), 'sum')
