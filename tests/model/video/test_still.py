"""Reuse of an image's encoding while the camera stands still."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_cuda_streams import Record
from tiny_models import make_small_clip

from clipseg_model.cuda_streams import StreamedSegmenter
from clipseg_model.errors import ClipsegError, ImageError, ReuseError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.clsclip import ClsCLIP
from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.still import (
    StillDetector,
    check_reuse,
    describe_reuse,
    picture_difference,
)
from clipseg_model.zoom.refinement import Zoom

PROMPTS = ['a mug', 'the red chair']

Image = NDArray[np.uint8]


def picture(height: int = 64, width: int = 96) -> Image:
    """Something with structure, (3, H, W), away from black and white."""
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(rows / 5) * np.cos(columns / 7)
    return np.stack([waves, waves[::-1], waves[:, ::-1]]).astype(np.uint8)


def noisy(image: Image, deviation: float, seed: int) -> Image:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


class TestDifference:
    def test_is_that_of_the_tile_and_channel_that_changed_most(self) -> None:
        before = picture()
        after = before.copy()
        after[1, 16:24, 40:48] += 12
        after[2, 32:40, 8:16] += 5
        assert picture_difference(before, after) == 12
        assert picture_difference(after, before) == 12
        assert picture_difference(before, before) == 0

    def test_is_a_mean_over_the_tile(self) -> None:
        before = picture()
        after = before.copy()
        after[0, 17:19, 41:43] += 32
        assert picture_difference(before, after) == pytest.approx(32 * 4 / 64)

    def test_colours_that_are_swapped_inside_a_tile_do_not_cancel(self) -> None:
        stripes = np.zeros((3, 64, 64), np.uint8)
        stripes[:, :, ::2] = 40
        assert picture_difference(stripes, np.roll(stripes, 1, axis=2)) == 40

    @pytest.mark.parametrize('size', [(63, 50), (224, 224), (7, 5), (98, 126)])
    def test_sizes_that_are_no_multiple(self, size: tuple[int, int]) -> None:
        before = picture(*size)
        assert picture_difference(before, before + np.uint8(9)) == pytest.approx(9)
        corner = before.copy()
        corner[:, -1, -1] += 50
        assert picture_difference(before, corner) >= 50 / 64

    def test_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match='one shape'):
            picture_difference(picture(64, 64), picture(64, 96))


class TestDetector:
    def test_noise_of_a_camera_is_not_motion(self) -> None:
        """At twice its standard deviation, as is recommended, in 80 frames."""
        detector = StillDetector()
        first, *rest = (
            detector.is_still(noisy(picture(256, 256), 3, n), 6.0, 1000) for n in range(80)
        )
        assert not first
        assert all(rest)
        assert detector.share == 79 / 80
        assert (detector.frames, detector.reused) == (80, 79)

    def test_noise_above_the_bound_is(self) -> None:
        detector = StillDetector()
        assert not any(detector.is_still(noisy(picture(), 3, n), 2.0) for n in range(20))

    def test_something_as_small_as_a_tile_that_moves_is_seen(self) -> None:
        """In a noisy picture, wherever the tile lies on the grid."""
        for offset in range(8):
            detector = StillDetector()
            detector.is_still(noisy(picture(256, 256), 3, 0), 6.0)
            after = noisy(picture(256, 256), 3, 1).astype(int)
            after[:, 100 + offset : 108 + offset, 60 + offset : 68 + offset] += 40
            # Of a whole picture, that is a change of 0.04 levels.
            assert not detector.is_still(after.clip(0, 255).astype(np.uint8), 6.0)

    def test_slow_drift_adds_up(self) -> None:
        """By less than the bound from frame to frame, but each is compared with the encoded one."""
        detector = StillDetector()
        still = [detector.is_still(picture() + np.uint8(n), 3.0) for n in range(10)]
        assert still == [False, True, True, False, True, True, False, True, True, False]

    def test_is_encoded_anew_after_so_many_frames(self) -> None:
        detector = StillDetector()
        still = [detector.is_still(picture(), 3.0, 4) for _ in range(12)]
        assert still == [False, True, True, True, True] * 2 + [False, True]
        assert [detector.is_still(picture(), 3.0, 1) for _ in range(3)] == [False, True, False]

    def test_another_shape_is_another_picture(self) -> None:
        detector = StillDetector()
        assert [detector.is_still(picture(64, w), 255.0) for w in (64, 96, 96)] == [
            False,
            False,
            True,
        ]

    def test_what_is_compared_with_is_a_copy(self) -> None:
        detector, memory = StillDetector(), picture()
        detector.is_still(memory, 3.0)
        memory += 20
        assert not detector.is_still(memory, 3.0)

    def test_off(self) -> None:
        detector = StillDetector()
        assert not any(detector.is_still(picture(), 0.0) for _ in range(3))
        assert (detector.frames, detector.share) == (0, 0.0)
        assert [detector.is_still(picture(), 3.0) for _ in range(2)] == [False, True]
        detector.is_still(picture(), 0.0)
        assert not detector.is_still(picture(), 3.0), 'what came meanwhile is not known'

    def test_forget(self) -> None:
        detector = StillDetector()
        detector.is_still(picture(), 3.0)
        detector.forget()
        assert not detector.is_still(picture(), 3.0)

    def test_the_share_is_of_late(self) -> None:
        detector = StillDetector()
        for n in range(100):
            detector.is_still(picture() + np.uint8(n % 2 * 50), 3.0, 1000)
        assert detector.share == 0.0
        for _ in range(25):
            detector.is_still(picture(), 3.0, 1000)
        assert detector.share == pytest.approx(0.24)

    @pytest.mark.parametrize('below', [-1.0, 256.0, math.nan])
    def test_bounds_out_of_range(self, below: float) -> None:
        with pytest.raises(ReuseError, match=r'0 \(off\) to 255'):
            check_reuse(below, 1)

    def test_no_frames(self) -> None:
        with pytest.raises(ReuseError, match='from 1, not 0'):
            check_reuse(3.0, 0)

    def test_describes_the_bound(self) -> None:
        said = describe_reuse(2.5, 12)
        assert 'changes by 2.5 levels or more' in said
        assert '12 times in a row' in said
        assert 'once' in describe_reuse(2.5, 1)


@pytest.fixture
def reusing(checkpoint: Path) -> Segmenter:
    return create_model(checkpoint, 'cpu', reuse_below=6.0)


def count(segmenter: Segmenter) -> list[int]:
    """Grows by the number of images with each call of the image tower."""
    calls: list[int] = []
    stem = segmenter.model.get_submodule('backbone.stem')
    stem.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    return calls


class TestSegmenter:
    def test_still_images_are_not_encoded_and_have_the_answer_of_the_encoded_one(
        self, reusing: Segmenter, segmenter: Segmenter, image: Image
    ) -> None:
        calls = count(reusing)
        exact = segmenter.segment(image, PROMPTS)
        for number in range(5):
            found = reusing.segment(noisy(image, 2 * (number > 0), number), PROMPTS)
            assert found.reused == (number > 0)
            for one, other in zip(found.results, exact.results, strict=True):
                np.testing.assert_array_equal(one.logits, other.logits)
                assert one.score == other.score
                assert (one.height, one.width) == (90, 120)
        assert calls == [1]
        assert reusing.still.share == pytest.approx(0.8)

    def test_an_image_that_differs_is_encoded(
        self, reusing: Segmenter, segmenter: Segmenter, image: Image
    ) -> None:
        calls = count(reusing)
        moved = image.copy()
        moved[30:42, 90:102] = (20, 220, 220)
        for seen in (image, moved, image):
            found = reusing.segment(seen, PROMPTS)
            assert not found.reused
            exact = segmenter.segment(seen, PROMPTS)
            for one, other in zip(found.results, exact.results, strict=True):
                np.testing.assert_array_equal(one.logits, other.logits)
        assert len(calls) == 3

    def test_the_same_prompts_are_decoded_once(self, reusing: Segmenter, image: Image) -> None:
        decoded: list[int] = []
        reusing.model.decoder.head.register_forward_hook(lambda *_: decoded.append(1))
        for prompts, count in ((PROMPTS, 1), (PROMPTS, 1), (PROMPTS[:1], 2), (PROMPTS, 3)):
            reusing.segment(image, prompts)
            assert len(decoded) == count
        low, high = (reusing.segment(image, PROMPTS, t).results[0] for t in (0.01, 0.99))
        assert len(decoded) == 3
        assert low.mask.sum() > high.mask.sum(), 'thresholds are not part of it'
        reusing.segment(np.ascontiguousarray(image[::-1]), PROMPTS)
        assert len(decoded) == 4
        reusing.reuse_below = 0.0
        for count in (5, 6):
            reusing.segment(image, PROMPTS)
            assert len(decoded) == count

    def test_new_prompts_are_answered_at_once(
        self, reusing: Segmenter, segmenter: Segmenter, image: Image
    ) -> None:
        reusing.segment(image, PROMPTS)
        calls = count(reusing)
        found = reusing.segment(image, ['blue cup'])
        assert found.reused
        expected = segmenter.segment(image, ['blue cup']).results[0].logits
        np.testing.assert_array_equal(found.results[0].logits, expected)
        reusing.predict(['a cup'])
        assert calls == []

    def test_is_off_unless_asked_for(self, segmenter: Segmenter, image: Image) -> None:
        calls = count(segmenter)
        assert segmenter.reuse_below == 0.0
        assert not any(segmenter.segment(image, PROMPTS).reused for _ in range(3))
        assert len(calls) == 3

    def test_may_be_switched_while_it_works(self, segmenter: Segmenter, image: Image) -> None:
        calls = count(segmenter)
        reused = []
        for below in (0.0, 6.0, 6.0, 0.0, 0.0, 6.0, 6.0):
            segmenter.reuse_below = below
            reused.append(segmenter.segment(image, PROMPTS).reused)
        assert reused == [False, False, True, False, False, False, True]
        assert len(calls) == 5

    def test_a_camera_may_write_over_its_image(self, reusing: Segmenter) -> None:
        """Of the model's own size, so that nothing has to be resized."""
        memory = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        reusing.segment(memory, PROMPTS)
        assert reusing.segment(memory, PROMPTS).reused
        memory[8:16, 8:16] ^= 64
        assert not reusing.segment(memory, PROMPTS).reused

    def test_cameras_with_one_model_do_not_share_it(
        self, reusing: Segmenter, segmenter: Segmenter, image: Image
    ) -> None:
        other = Segmenter(reusing.runtime, reusing.card, settings=SegmentSettings(reuse_below=6.0))
        calls = count(reusing)
        views = [image, np.ascontiguousarray(image[:, ::-1])]
        for turn in range(3):
            for camera, view in zip((reusing, other), views, strict=True):
                found = camera.segment(view, PROMPTS)
                assert found.reused == (turn > 0)
                expected = segmenter.segment(view, PROMPTS).results[0].logits
                np.testing.assert_array_equal(found.results[0].logits, expected)
        assert len(calls) == 2

    def test_a_batch_of_several_cameras_is_encoded(self, reusing: Segmenter, image: Image) -> None:
        reusing.segment(image, PROMPTS)
        calls = count(reusing)
        found = reusing.segment_batch([image, image], PROMPTS)
        assert calls == [2]
        assert not any(one.reused for one in found)
        assert reusing.segment(image, PROMPTS).reused

    def test_after_a_failure_the_next_image_is_encoded(
        self, reusing: Segmenter, image: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(pixels: torch.Tensor) -> Any:
            raise ClipsegError('no memory')

        other = np.ascontiguousarray(image[::-1])
        reusing.segment(image, PROMPTS)
        with monkeypatch.context() as patch:
            patch.setattr(reusing.runtime, 'encode_image', fail)
            with pytest.raises(ClipsegError, match='no memory'):
                reusing.segment(other, PROMPTS)
        calls = count(reusing)
        assert not reusing.segment(other, PROMPTS).reused
        assert calls == [1]

    def test_a_bad_image_costs_no_encoding(self, reusing: Segmenter, image: Image) -> None:
        reusing.segment(image, PROMPTS)
        with pytest.raises(ImageError):
            reusing.segment(image[..., 0], PROMPTS)
        with pytest.raises(ImageError, match='set_image'):
            reusing.predict(PROMPTS)
        assert reusing.segment(image, PROMPTS).reused

    def test_warming_up_is_no_frame(self, reusing: Segmenter, image: Image) -> None:
        reusing.warm_up()
        assert not reusing.segment(np.zeros_like(image), PROMPTS).reused
        reusing.warm_up()
        assert reusing.segment(np.zeros_like(image), PROMPTS).reused
        assert reusing.still.frames == 2


class TestWhereItMakesNoSense:
    def test_with_zoom(self, reusing: Segmenter, segmenter: Segmenter, image: Image) -> None:
        segmenter.zoom = Zoom()
        with pytest.raises(ReuseError, match='leave zoom out'):
            segmenter.reuse_below = 3.0
        with pytest.raises(ReuseError, match='reuse_below 0'):
            reusing.zoom = Zoom()
        reusing.reuse_below = 0.0
        reusing.zoom = Zoom()
        reusing.segment(image, PROMPTS)

    def test_where_the_tower_sees_the_prompt(self) -> None:
        decoder = {'dim': 16, 'num_layers': 1, 'num_heads': 4, 'feedforward': 32}
        model = ClsCLIP(make_small_clip(), [1], **decoder)
        card = ModelCard('cls', 'clsclip', {}, 64)
        with pytest.raises(ReuseError, match=r"'cls' sees the prompt.*choose a CLIPSeg"):
            Segmenter(model, card, 'cpu', SegmentSettings(reuse_below=3.0))
        assert Segmenter(model, card, 'cpu').reuse_below == 0.0

    def test_bounds_out_of_range(self, checkpoint: Path) -> None:
        with pytest.raises(ReuseError, match='not -1'):
            create_model(checkpoint, 'cpu', reuse_below=-1)


class TestStreamed:
    def test_what_is_still_is_neither_uploaded_nor_encoded(
        self, reusing: Segmenter, segmenter: Segmenter, image: Image
    ) -> None:
        streams = Record()
        streamed, calls = StreamedSegmenter(reusing, streams, depth=4), count(reusing)
        other = np.ascontiguousarray(image[::-1])
        pending = [streamed.start(one, PROMPTS) for one in (image, image, other, image)]
        found = [one.result() for one in pending]
        assert [one.reused for one in found] == [False, True, False, False]
        assert calls == [1, 1, 1]
        assert streams.events.count('on upload') == 3
        for seen, one in zip((image, image, other, image), found, strict=True):
            expected = segmenter.segment(seen, PROMPTS).results[0].logits
            np.testing.assert_array_equal(one.results[0].logits, expected)

    def test_there_must_be_an_encoding(self, reusing: Segmenter) -> None:
        with pytest.raises(ImageError, match='no encoding to reuse'):
            reusing.infer(None, reusing.prepare(PROMPTS))
