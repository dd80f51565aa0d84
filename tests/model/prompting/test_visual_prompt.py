from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from clipseg_model.errors import ImageError, PromptError
from clipseg_model.modeling.masked_attention import SCOPES
from clipseg_model.prompting.visual_prompt import (
    DEFAULT_METHOD,
    METHODS,
    box_mask,
    visual_prompt,
)
from clipseg_model.registry import get_card, list_models

RED, GREEN = (210, 20, 20), (40, 200, 40)


def scene(
    box: tuple[int, int, int, int], height: int = 90, width: int = 120
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red box (top, left, bottom, right) on green."""
    image = np.full((height, width, 3), GREEN, np.uint8)
    mask = np.zeros((height, width), bool)
    top, left, bottom, right = box
    mask[top:bottom, left:right] = True
    image[mask] = RED
    return image, mask


def pattern(height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """Random colours, no channel of which is below 20."""
    return np.random.default_rng(0).integers(20, 256, (height, width, 3), dtype=np.uint8)


def disc(size: int = 64, radius: float = 14) -> NDArray[np.bool_]:
    rows, columns = np.indices((size, size)) - size // 2
    return rows**2 + columns**2 <= radius**2


def names(**wanted: object) -> list[str]:
    """The methods that have these attributes."""
    return [
        name
        for name, method in METHODS.items()
        if all(getattr(method, key) == value for key, value in wanted.items())
    ]


def test_every_row_of_the_papers_table() -> None:
    assert list(METHODS) == [
        'attention_cls_last',
        'attention_cls',
        'attention_all',
        'red_on_grey',
        'red_outline',
        'background_50',
        'background_10',
        'background_0',
        'blur',
        'blur_10',
        'crop_large',
        'crop',
        'crop_blur',
        'crop_10',
        'crop_blur_10',
        'blur_10_crop',
        # "Highlight mask" of the ablation.
        'blur_1_50',
    ]
    assert DEFAULT_METHOD == 'crop_blur_10'
    assert tuple(m.attention for m in METHODS.values() if m.attention) == SCOPES
    assert all(method.summary for method in METHODS.values())


class TestWholePicture:
    """Methods that keep the picture as it is, at its own size, so that each pixel can be told."""

    @pytest.mark.parametrize(
        ('method', 'intensity'), [('background_50', 0.5), ('background_10', 0.1)]
    )
    def test_background_is_exactly_scaled(self, method: str, intensity: float) -> None:
        image, mask = pattern(), disc()
        prompt = visual_prompt(image, mask, 64, method)
        np.testing.assert_array_equal(prompt[mask], image[mask])
        expected = (np.float32(intensity) * image[~mask].astype(np.float32)).round()
        np.testing.assert_array_equal(prompt[~mask], expected)

    def test_background_at_nothing_is_black(self) -> None:
        image, mask = pattern(), disc()
        prompt = visual_prompt(image, mask, 64, 'background_0')
        np.testing.assert_array_equal(prompt[mask], image[mask])
        assert not prompt[~mask].any()

    def test_background_fades_to_the_ground(self) -> None:
        image, mask = pattern(), disc()
        ground = (124.0, 116.0, 104.0)
        prompt = visual_prompt(image, mask, 64, 'background_0', ground)
        assert np.unique(prompt[~mask], axis=0).tolist() == [[124, 116, 104]]
        tenth = visual_prompt(image, mask, 64, 'background_10', ground)[~mask]
        np.testing.assert_allclose(tenth, 0.1 * image[~mask] + 0.9 * np.array(ground), atol=0.51)

    def test_background_is_blurred_by_three_of_352_pixels(self) -> None:
        image = np.zeros((352, 352, 3), np.uint8)
        image[40, :] = 255
        prompt = visual_prompt(image, disc(352, 60), 352, 'blur').astype(float)
        profile = prompt[:80, 300, 0]
        assert profile.sum() == pytest.approx(255, rel=0.05)
        spread = np.sqrt((profile * (np.arange(80) - 40) ** 2).sum() / profile.sum())
        assert spread == pytest.approx(3, rel=0.1)

    @pytest.mark.parametrize('size', [352, 176])
    def test_the_ablations_background_is_blurred_by_a_pixel_and_halved(self, size: int) -> None:
        image = np.zeros((size, size, 3), np.uint8)
        image[40, :] = 255
        prompt = visual_prompt(image, disc(size, 20), size, 'blur_1_50').astype(float)
        profile = prompt[:80, -10, 0]
        assert profile.sum() == pytest.approx(0.5 * 255, rel=0.05)
        spread = np.sqrt((profile * (np.arange(80) - 40) ** 2).sum() / profile.sum())
        assert spread == pytest.approx(size / 352, rel=0.15)

    def test_blurred_background_at_a_tenth(self) -> None:
        image, mask = pattern(), disc()
        blurred = visual_prompt(image, mask, 64, 'blur').astype(float)
        prompt = visual_prompt(image, mask, 64, 'blur_10')
        np.testing.assert_allclose(prompt[~mask], 0.1 * blurred[~mask], atol=0.6)

    @pytest.mark.parametrize('method', ['blur', 'blur_10'])
    def test_object_is_not_blurred(self, method: str) -> None:
        image, mask = pattern(), disc()
        prompt = visual_prompt(image, mask, 64, method)
        np.testing.assert_array_equal(prompt[mask], image[mask])
        assert not np.array_equal(prompt[~mask], image[~mask])

    def test_dyed_object_is_red_on_grey(self) -> None:
        image, mask = pattern(), disc()
        prompt = visual_prompt(image, mask, 64, 'red_on_grey').astype(float)
        grey = image @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(prompt[~mask], np.repeat(grey[~mask][:, None], 3, 1), atol=1)
        np.testing.assert_allclose(prompt[mask][:, 0], grey[mask], atol=1)
        np.testing.assert_allclose(prompt[mask][:, 1], 0.2 * grey[mask], atol=1)
        np.testing.assert_array_equal(prompt[mask][:, 1], prompt[mask][:, 2])

    @pytest.mark.parametrize('size', [64, 352])
    def test_outline_is_at_the_rim_only(self, size: int) -> None:
        image, mask = pattern(size, size), disc(size, size / 4)
        prompt = visual_prompt(image, mask, size, 'red_outline')
        drawn = (prompt != image).any(axis=2)
        assert np.unique(prompt[drawn], axis=0).tolist() == [[255, 0, 0]]
        rows, columns = np.indices((size, size)) - size // 2
        distance = np.abs(np.hypot(rows, columns) - size / 4)
        width = 5 * size / 352
        assert distance[drawn].max() <= width / 2 + 1.5
        # All around, without a gap.
        red = (prompt == (255, 0, 0)).all(axis=2)
        turns = np.unique(np.degrees(np.arctan2(rows, columns))[red] // 10)
        assert len(turns) >= 36
        assert red.sum() == pytest.approx(2 * np.pi * size / 4 * max(width, 1), rel=0.4)

    def test_the_image_itself_is_not_painted(self) -> None:
        image, mask = pattern(), disc()
        image.setflags(write=False)
        before = image.copy()
        for method in METHODS:
            visual_prompt(image, mask, 64, method)
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize('method', names(paint='outline') + names(paint='dye'))
    def test_an_object_below_one_pixel_of_the_prompt_image(self, method: str) -> None:
        image = np.full((640, 640, 3), 100, np.uint8)
        mask = np.zeros((640, 640), bool)
        mask[300, 300] = True
        prompt = visual_prompt(image, mask, 64, method).astype(int)
        redness = prompt[..., 0] - prompt[..., 1]
        assert np.unravel_index(redness.argmax(), redness.shape) == (30, 30)
        assert redness.max() > 0

    @pytest.mark.parametrize('method', ['attention_cls_last', 'attention_cls', 'attention_all'])
    def test_attention_leaves_the_pixels_alone(self, method: str) -> None:
        np.testing.assert_array_equal(visual_prompt(pattern(), disc(), 64, method), pattern())


class TestCrops:
    @pytest.mark.parametrize(('method', 'context'), [('crop', 0.1), ('crop_large', 0.5)])
    def test_context(self, method: str, context: float) -> None:
        """40 px and the context on each side make the square."""
        image, mask = scene((80, 80, 120, 120), 200, 200)
        prompt = visual_prompt(image, mask, 120, method)
        assert prompt[0, 0].tolist() == list(GREEN)
        red = prompt[:, :, 0] > 100
        assert red.mean() == pytest.approx(1 / (1 + 2 * context) ** 2, rel=0.05)

    def test_treatments_of_the_background(self) -> None:
        image, mask = pattern(350, 350), disc(350, 140)
        # 281 px and a tenth on each side make 338: nothing is resampled.
        cropped = visual_prompt(image, mask, 338, 'crop').astype(np.float32)
        dark = visual_prompt(image, mask, 338, 'crop_10')
        blurred = visual_prompt(image, mask, 338, 'crop_blur').astype(np.float32)
        both = visual_prompt(image, mask, 338, 'crop_blur_10')
        inside, outside = disc(338, 138), ~disc(338, 143)
        for prompt in (dark, blurred, both):
            np.testing.assert_array_equal(prompt[inside], cropped[inside])
        np.testing.assert_allclose(dark[outside], 0.1 * cropped[outside], atol=0.51)
        np.testing.assert_allclose(both[outside], 0.1 * blurred[outside], atol=0.6)
        assert np.abs(blurred[outside] - cropped[outside]).mean() > 30


def test_the_default_is_the_papers_best() -> None:
    image, mask = scene((20, 30, 60, 70))
    expected = visual_prompt(image, mask, 64, 'crop_blur_10')
    assert np.array_equal(visual_prompt(image, mask, 64), expected)


@pytest.mark.parametrize('size', [32, 64, 352])
def test_object_fills_the_middle_and_background_is_a_tenth(size: int) -> None:
    image, mask = scene((20, 30, 60, 70))
    prompt = visual_prompt(image, mask, size)
    assert prompt.shape == (size, size, 3)
    assert prompt.dtype == np.uint8
    # 40 px and a margin of 10 % on each side make a square of 48.
    assert prompt[size // 2, size // 2].tolist() == list(RED)
    inside = prompt[:, :, 0] > 100
    assert inside.mean() == pytest.approx((40 / 48) ** 2, abs=0.06)
    corner = prompt[0, 0].astype(float)
    np.testing.assert_allclose(corner, 0.1 * np.array(GREEN), atol=3)


class TestAsReleased:
    """The order of the published code: darken and blur the whole picture, then crop and pad."""

    def made(
        self, image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int = 352
    ) -> NDArray[np.float64]:
        return visual_prompt(image, mask, size, 'blur_10_crop', (124, 116, 104)).astype(float)

    @pytest.mark.parametrize('box', [(100, 150, 180, 250), (0, 0, 40, 90), (300, 20, 352, 30)])
    def test_every_pixel_of_a_picture_of_that_size(self, box: tuple[int, int, int, int]) -> None:
        """Written anew from what the published code does, with another library's blur."""
        image, mask = pattern(352, 352), np.zeros((352, 352), bool)
        top, left, bottom, right = box
        mask[top:bottom, left:right] = True
        ground = np.array((124.0, 116.0, 104.0))
        blurred = ndimage.gaussian_filter(image.astype(float), (3, 3, 0), mode='mirror')
        faded = np.where(mask[..., None], image, 0.1 * blurred + 0.9 * ground)
        across, down = right - left, bottom - top
        part = faded[
            int(max(top - 0.1 * down, 0)) : int(min(bottom + 0.1 * down, 352)),
            int(max(left - 0.1 * across, 0)) : int(min(right + 0.1 * across, 352)),
        ]
        side = max(part.shape[:2])
        padded = np.tile(ground, (side, side, 1))
        y, x = (side - part.shape[0]) // 2, (side - part.shape[1]) // 2
        padded[y : y + part.shape[0], x : x + part.shape[1]] = part
        nearest = np.arange(352) * side // 352
        expected = padded[nearest][:, nearest]
        np.testing.assert_allclose(self.made(image, mask), expected, atol=1)

    def test_it_is_far_from_ours(self) -> None:
        image, mask = pattern(352, 352), disc(352, 40)
        ours = visual_prompt(image, mask, 352, 'crop_blur_10', (124, 116, 104)).astype(float)
        assert np.abs(self.made(image, mask) - ours).mean() > 10

    def test_margins_are_of_each_side_and_the_rest_is_ground(self) -> None:
        image, mask = scene((40, 20, 50, 100), 120, 120)
        prompt = self.made(image, mask, 120)
        red = prompt[:, :, 0] > 180
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        assert np.ptp(columns) + 1 == pytest.approx(100, abs=2), '80 of 96 px, at 120'
        assert np.ptp(rows) + 1 == pytest.approx(12.5, abs=2), '10 of 96 px'
        assert prompt[0, 0].tolist() == prompt[-1, -1].tolist() == [124, 116, 104]
        # A margin of 1 px above the object, darkened green, and nothing of the picture beyond.
        assert (prompt[: rows[0] - 3] == (124, 116, 104)).all()

    @pytest.mark.parametrize(('height', 'width'), [(90, 240), (240, 90)])
    def test_pictures_that_are_not_square_keep_their_proportions(
        self, height: int, width: int
    ) -> None:
        image, mask = scene((30, 30, 60, 60), height, width)
        red = self.made(image, mask, 96)[:, :, 0] > 180
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=2)

    def test_an_object_that_falls_between_the_pixels(self) -> None:
        image, mask = np.full((700, 700, 3), 50, np.uint8), np.zeros((700, 700), bool)
        image[301, 301], mask[301, 301] = 255, True
        assert self.made(image, mask, 64).shape == (64, 64, 3)

    def test_the_cards_of_released_weights_name_it(self) -> None:
        for name in list_models():
            released = name.startswith('clipseg-rd')
            wanted = 'blur_10_crop' if released else 'crop_blur_10'
            assert get_card(name).visual_method == wanted


def test_background_is_blurred_and_the_object_is_not() -> None:
    image, mask = scene((20, 30, 60, 70))
    stripes = (np.indices(mask.shape).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = np.repeat(stripes[:, :, None], 3, axis=2)
    plain = visual_prompt(image, mask, 48, 'crop').astype(float)
    prompt = visual_prompt(image, mask, 48).astype(float)
    middle, border = np.s_[16:32, 16:32], np.s_[:2, :]
    np.testing.assert_array_equal(prompt[middle], plain[middle])
    assert prompt[border].std() / 0.1 < plain[border].std()


def test_crop_keeps_the_background() -> None:
    image, mask = scene((20, 30, 60, 70))
    prompt = visual_prompt(image, mask, 48, 'crop')
    assert prompt[0, 0].tolist() == list(GREEN)
    assert prompt[24, 24].tolist() == list(RED)


def test_proportions_are_kept() -> None:
    image, mask = scene((40, 10, 50, 90))
    red = visual_prompt(image, mask, 96)[:, :, 0] > 100
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(8, rel=0.2)


@pytest.mark.parametrize(
    'box', [(0, 0, 10, 10), (80, 110, 90, 120), (0, 0, 90, 120), (0, 50, 90, 54), (45, 60, 46, 61)]
)
@pytest.mark.parametrize('method', METHODS)
def test_objects_at_the_edge_and_of_any_size(box: tuple[int, int, int, int], method: str) -> None:
    image, mask = scene(box)
    prompt = visual_prompt(image, mask, 48, method)
    assert prompt.shape == (48, 48, 3)
    if method == 'red_outline':
        assert (prompt == (255, 0, 0)).all(axis=2).any()
    else:
        without = visual_prompt(np.full_like(image, GREEN), mask, 48, method)
        assert (prompt != without).any()


def test_outside_of_the_image_is_black() -> None:
    image, mask = scene((0, 0, 90, 120))
    prompt = visual_prompt(image, mask, 48, 'crop')
    assert not prompt[0].any()
    assert not prompt[-1].any()


def test_without_a_mask_the_whole_image_is_the_prompt() -> None:
    image, _ = scene((20, 30, 60, 70))
    prompt = visual_prompt(image, None, 30)
    assert prompt.shape == (30, 30, 3)
    assert prompt[0, 0].tolist() == list(GREEN)
    assert (prompt[:, :, 0] > 100).mean() == pytest.approx(1600 / (90 * 120), abs=0.03)


def test_what_cannot_be_a_visual_prompt() -> None:
    image, mask = scene((20, 30, 60, 70))
    with pytest.raises(PromptError, match=r"'glow'.*red_outline.*crop_blur_10"):
        visual_prompt(image, mask, 48, 'glow')
    with pytest.raises(PromptError, match='empty'):
        visual_prompt(image, np.zeros_like(mask), 48)
    with pytest.raises(PromptError, match=r'\(90, 120\), not \(10, 120\)'):
        visual_prompt(image, mask[:10], 48)
    with pytest.raises(ImageError, match='float'):
        visual_prompt(image.astype(float), mask, 48)  # type: ignore[arg-type]


class TestBoxes:
    @pytest.mark.parametrize(
        ('box', 'expected'),
        [
            ((3, 2, 4, 5), np.s_[2:7, 3:7]),
            ((-2, -1, 4, 5), np.s_[0:4, 0:2]),
            ((8, 7, 50, 50), np.s_[7:9, 8:12]),
            ((0, 0, 12, 9), np.s_[:, :]),
        ],
    )
    def test_pixels(self, box: tuple[int, int, int, int], expected: tuple[slice, slice]) -> None:
        mask = np.zeros((9, 12), bool)
        mask[expected] = True
        np.testing.assert_array_equal(box_mask(box, 9, 12), mask)

    @pytest.mark.parametrize(
        ('box', 'message'),
        [
            ((3, 2, 0, 5), r'\(3, 2, 0, 5\) has no area.*1 px at least'),
            ((3, 2, 5, -1), 'no area'),
            ((12, 2, 5, 5), 'outside of its image, which is 12 px wide and 9 px high'),
            ((3, -9, 5, 5), 'outside'),
        ],
    )
    def test_what_is_no_box(self, box: tuple[int, int, int, int], message: str) -> None:
        with pytest.raises(PromptError, match=message):
            box_mask(box, 9, 12)
