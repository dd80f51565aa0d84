from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_calls import Calls, with_card
from numpy.typing import NDArray
from PIL import Image

from clipseg_model.modeling.preprocessing import normalise_tensor, resize_by_torch
from clipseg_model.pixels.preprocessing import input_shape
from clipseg_model.pixels.resizing import resize_antialiased
from clipseg_model.segmenter import Segmenter


class TestInputShape:
    @pytest.mark.parametrize('size', [(480, 640), (1, 1), (2000, 10)])
    def test_square(self, size: tuple[int, int]) -> None:
        assert input_shape(*size, 352, 16) == (352, 352)

    @pytest.mark.parametrize(
        ('size', 'expected'),
        [
            ((480, 640), (304, 400)),
            ((640, 480), (400, 304)),
            ((500, 500), (352, 352)),
            ((720, 1280), (256, 464)),
            ((10, 10_000), (32, 3872)),
            ((1, 1), (352, 352)),
        ],
    )
    def test_aspect(self, size: tuple[int, int], expected: tuple[int, int]) -> None:
        assert input_shape(*size, 352, 16, 'aspect') == expected

    def test_aspect_keeps_about_the_area(self) -> None:
        for height, width in [(480, 640), (1080, 1920), (900, 300), (333, 777)]:
            h, w = input_shape(height, width, 352, 16, 'aspect')
            assert h % 16 == w % 16 == 0
            assert h * w == pytest.approx(352 * 352, rel=0.1)
            assert w / h == pytest.approx(width / height, rel=0.1)

    @pytest.mark.parametrize('size', [(1, 60_000), (60_000, 1), (1, 100_000_000)])
    @pytest.mark.parametrize('side', [16, 64, 352, 4096])
    def test_aspect_never_takes_more_than_its_area(self, size: tuple[int, int], side: int) -> None:
        h, w = input_shape(*size, side, 16, 'aspect')
        assert min(h, w) == 32
        assert h * w <= max(side * side, 64 * 64)


class TestWithoutTorch:
    @pytest.mark.parametrize(
        'size', [(480, 640), (720, 1280), (400, 370), (64, 64), (20, 33), (2000, 40), (352, 500)]
    )
    def test_is_resized_bit_for_bit(self, size: tuple[int, int]) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        for shape in ((64, 64), (224, 288), (352, 352)):
            found = resize_antialiased(picture, shape)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, resize_by_torch(picture, shape))

    def test_is_normalised_bit_for_bit(self, segmenter: Segmenter) -> None:
        levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
        expected = normalise_tensor(torch.from_numpy(levels), segmenter.runtime.traits)
        found = segmenter.preprocessor.normalise(levels)
        np.testing.assert_array_equal(found, expected.numpy())


class TestPreprocessing:
    @pytest.mark.parametrize('size', [(90, 120), (480, 640), (20, 33)])
    def test_is_antialiased_bilinear_on_uint8(
        self, segmenter: Segmenter, size: tuple[int, int]
    ) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        tensor = torch.from_numpy(picture).permute(2, 0, 1)[None]
        resized = F.interpolate(tensor, (64, 64), mode='bilinear', antialias=True)
        backbone = segmenter.model.backbone
        mean = torch.tensor(backbone.mean).view(3, 1, 1)
        std = torch.tensor(backbone.std).view(3, 1, 1)
        expected = (resized / 255 - mean) / std
        pixels = segmenter.preprocessor.pixels(picture, (64, 64))
        torch.testing.assert_close(torch.from_numpy(pixels), expected, rtol=0, atol=2e-6)

    def test_agrees_with_pillow(self, segmenter: Segmenter) -> None:
        """Another implementation of the same filter, to within rounding."""
        picture = np.random.default_rng(0).integers(0, 256, (200, 301, 3), dtype=np.uint8)
        pillow = Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR)
        backbone = segmenter.model.backbone
        pixels = segmenter.preprocessor.pixels(picture, (64, 64))[0].transpose(1, 2, 0)
        levels = (pixels * np.array(backbone.std) + np.array(backbone.mean)) * 255
        assert np.abs(levels - np.asarray(pillow, np.float32)).max() < 1.01

    def test_an_image_of_the_models_size_is_not_resampled(self, segmenter: Segmenter) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels = segmenter.preprocessor.pixels(picture, (64, 64))[0].transpose(1, 2, 0)
        backbone = segmenter.model.backbone
        levels = (pixels * np.array(backbone.std) + np.array(backbone.mean)) * 255
        assert np.array_equal(levels.round().astype(np.uint8), picture)

    def test_any_layout_in_memory(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        expected = segmenter.segment(image, ['a mug']).results[0].logits
        frozen = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
        backwards = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
        padded = np.zeros((90, 130, 3), np.uint8)
        padded[:, :120] = image
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            for same in (frozen, backwards, padded[:, :120], np.asfortranarray(image)):
                found = segmenter.segment(same, ['a mug']).results[0].logits
                np.testing.assert_array_equal(found, expected)

    def test_the_image_is_not_changed(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        before = image.copy()
        segmenter.segment(image, ['a mug'])
        assert np.array_equal(image, before)

    def test_aspect_gives_the_model_an_oblong(
        self, segmenter: Segmenter, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        oblong = with_card(segmenter, resize='aspect')
        calls = Calls(oblong, monkeypatch)
        found = oblong.segment(image, ['a mug'])
        assert calls.images == [(1, 3, 48, 80)]
        assert found.results[0].logits.shape == (48, 80)
        assert found.results[0].mask.shape == (90, 120)
