"""Every installed runtime gives eager's answers, within its own tolerance."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from runtime_models import PROMPTS, assert_agrees, assert_same, error_of, make_vit, start

from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.runtime import base
from clipseg_model.runtime.eager import EagerRuntime

DEMO = Path(__file__).parents[3] / 'docs' / 'images' / 'demo.png'

#: An export takes half a minute on one core.
NEEDS_EXPORT = [pytest.mark.slow, pytest.mark.ci]

#: Runtime, precision, device, and the tolerance against fp32 eager: in fp32 of the largest error of
#: a logit (as a share of the largest logit where that is above 1); in 16 bits of the root mean
#: square error, as a share of the logits' standard deviation.
RUNS = [
    ('eager', 'fp32', 'cpu', 0.0),
    ('eager', 'bf16', 'cpu', 0.15),
    ('compile', 'fp32', 'cpu', 1e-4),
    ('compile', 'bf16', 'cpu', 0.15),
    ('onnxruntime', 'fp32', 'cpu', 1e-4),
    ('openvino', 'fp32', 'cpu', 1e-4),
    ('openvino', 'bf16', 'cpu', 0.15),
    ('eager', 'fp32', 'cuda', 1e-4),
    ('eager', 'fp16', 'cuda', 0.01),
    ('eager', 'bf16', 'cuda', 0.15),
    ('compile', 'fp32', 'cuda', 1e-4),
    ('compile', 'fp16', 'cuda', 0.01),
    ('onnxruntime', 'fp32', 'cuda', 1e-4),
    ('onnxruntime', 'fp16', 'cuda', 0.02),
    ('tensorrt', 'fp32', 'cuda', 1e-4),
    ('tensorrt', 'fp16', 'cuda', 0.02),
]


def as_parameter(run: tuple[str, str, str, float]) -> Any:
    name, precision, device, _ = run
    marks: list[Any] = []
    if device == 'cuda':
        marks.append(pytest.mark.gpu)
        marks.append(
            pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
        )
    if name == 'compile':
        marks.append(pytest.mark.slow)  # the compiler takes half a minute
    elif name != 'eager':
        marks += NEEDS_EXPORT
    return pytest.param(*run, marks=marks, id=f'{name}-{precision}-{device}')


def take_for_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch computes in bf16 on every CPU, slowly where there are no instructions for it."""
    monkeypatch.setattr(base, 'cpu_flags', lambda: base.BF16_FLAGS)


@pytest.mark.parametrize(
    ('name', 'precision', 'device', 'tolerance'), list(map(as_parameter, RUNS))
)
class TestAgreement:
    @pytest.fixture(autouse=True)
    def _ready(
        self,
        name: str,
        precision: str,
        device: str,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
    ) -> None:
        if (precision, device) == ('bf16', 'cpu'):
            if name in ('eager', 'compile'):
                take_for_bf16(monkeypatch)
            elif not base.cpu_flags() & base.BF16_FLAGS:
                pytest.skip('this CPU has no instructions for bf16')
        if device == 'cpu' and name in ('onnxruntime', 'openvino'):
            request.getfixturevalue('exported')

    def test_tiny_vit(
        self,
        name: str,
        precision: str,
        device: str,
        tolerance: float,
        vit: Path,
        image: NDArray[np.uint8],
    ) -> None:
        other = start(vit, name, precision, device)
        assert other.runtime.name == name
        assert other.runtime.precision == precision
        assert f'{name} {precision} on {device}' in other.runtime.describe()
        assert_agrees(create_model(vit, 'cpu'), other, image, tolerance)

    @pytest.mark.slow
    def test_bundled_model_at_sizes_of_a_camera(
        self, name: str, precision: str, device: str, tolerance: float
    ) -> None:
        other = start('tabletop', name, precision, device)
        reference = create_model('tabletop', 'cpu')
        # A scene as the model knows them: its 16-bit errors on noise say nothing.
        scene = Image.open(DEMO).convert('RGB').crop((6, 6, 286, 215))
        for height, width in ((240, 320), (200, 200)):
            picture = np.asarray(scene.resize((width, height)))
            assert_agrees(reference, other, picture, tolerance)

    def test_in_one_thread_after_another(
        self,
        name: str,
        precision: str,
        device: str,
        tolerance: float,
        vit: Path,
        image: NDArray[np.uint8],
    ) -> None:
        """As nodes do: a worker each time that one is activated; more prompts may come there."""
        other, reference = start(vit, name, precision, device), create_model(vit, 'cpu')
        for count in (2, 5):
            with ThreadPoolExecutor(1) as pool:
                found = pool.submit(other.segment, image, PROMPTS[:count]).result()
            assert_same(found, reference.segment(image, PROMPTS[:count]), precision, tolerance)

    def test_several_images_at_once(
        self,
        name: str,
        precision: str,
        device: str,
        tolerance: float,
        vit: Path,
    ) -> None:
        runtime = start(vit, name, precision, device).runtime
        model = make_vit()
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(3, 3, 64, 96, generator=generator)
        condition = torch.randn(3, 5, 16, generator=generator)
        with torch.inference_mode():
            expected = model(pixels, condition)
            features = runtime.encode_image(pixels.to(runtime.device))
            found = runtime.decode(features, condition.to(runtime.device)).cpu()
            assert found.shape == (3, 5, 64, 96)
            assert error_of(found.numpy(), expected.numpy(), precision) <= tolerance
            with pytest.raises(ValueError, match='3'):
                runtime.decode(features, condition[0].to(runtime.device))


class TestEager:
    @pytest.fixture(autouse=True)
    def _bf16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        take_for_bf16(monkeypatch)

    def test_text_stays_in_float32(self, vit: Path) -> None:
        exact = create_model(vit, 'cpu').embed(PROMPTS)
        found = create_model(vit, 'cpu', precision='bf16').embed(PROMPTS)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0, atol=0)

    @pytest.mark.parametrize('method', ['crop_blur_10', 'attention_cls', 'attention_all'])
    def test_example_images_in_16_bits(
        self, method: str, vit: Path, image: NDArray[np.uint8]
    ) -> None:
        mask = np.zeros(image.shape[:2], bool)
        mask[20:60, 30:80] = True
        prompts = [Prompt(image=image, mask=mask), Prompt(text='a mug', image=image, weight=0.4)]
        found = []
        for precision in ('fp32', 'bf16'):
            segmenter = create_model(vit, 'cpu', precision=precision)
            segmenter.visual_method = method
            found.append((segmenter.embed(prompts), segmenter.segment(image, prompts)))
        (exact, expected), (vectors, masks) = found
        assert vectors.dtype == torch.float32
        assert 0 < float((vectors - exact).abs().max()) < 0.05 * float(exact.abs().max())
        for ours, its in zip(masks.results, expected.results, strict=True):
            scale = max(1.0, float(np.abs(its.logits).max()))
            assert float(np.abs(ours.logits - its.logits).max()) < 0.1 * scale

    def test_weights_are_cast_once(self) -> None:
        runtime = EagerRuntime(make_vit(), torch.device('cpu'), 'bf16')
        types = {p.dtype for p in runtime.model.decoder.blocks[0].linear1.parameters()}
        assert types == {torch.bfloat16}
