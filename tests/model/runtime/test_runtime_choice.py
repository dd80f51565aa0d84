"""Which runtime is taken or refused, and what is said where memory runs out."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_models import CARD, make_small_clip

from clipseg_model.errors import (
    DeviceError,
    DeviceMemoryError,
    PrecisionError,
    RuntimeMissingError,
)
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.clsclip import ClsCLIP
from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.runtime import RUNTIMES, Runtime, base, create_runtime, runtime_class
from clipseg_model.runtime.compiled import prompt_buckets
from clipseg_model.runtime.devices import Device


class TestChoice:
    def test_unknown_name(self, vit: Path) -> None:
        with pytest.raises(RuntimeMissingError, match=r"'tensorflow'.*auto, eager, compile"):
            create_model(vit, 'cpu', runtime='tensorflow')

    @pytest.mark.parametrize(
        ('name', 'precision', 'words'),
        [
            ('eager', 'int8', 'fp32, bf16, fp16'),
            ('eager', 'fp16', 'bf16 or fp32, or a CUDA device'),
            ('onnxruntime', 'bf16', 'fp32, fp16'),
            ('openvino', 'fp16', 'fp32, bf16, int8'),
            ('openvino', 'half', 'fp32, bf16, int8'),
        ],
    )
    def test_unsupported_precision(self, name: str, precision: str, words: str, vit: Path) -> None:
        with pytest.raises(PrecisionError, match=words):
            create_model(vit, 'cpu', runtime=name, precision=precision)

    @pytest.mark.parametrize('name', ['eager', 'openvino'])
    def test_bf16_on_a_cpu_without_it(
        self, name: str, vit: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, 'cpu_flags', lambda: frozenset({'avx512f'}))
        with pytest.raises(PrecisionError, match='AVX512_BF16'):
            create_model(vit, 'cpu', runtime=name, precision='bf16')

    @pytest.mark.parametrize(
        ('name', 'wanted'),
        [('onnxruntime', 'onnxruntime'), ('openvino', '"clipseg_ros[openvino]"')],
    )
    def test_package_that_is_not_installed(
        self, name: str, wanted: str, vit: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = runtime_class(name).package
        assert package is not None
        # What makes Python refuse an import.
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(RuntimeMissingError, match=re.escape(f'pip install {wanted}')):
            create_model(vit, 'cpu', runtime=name)

    @pytest.mark.parametrize('name', ['openvino', 'tensorrt'])
    def test_device_that_the_runtime_does_not_know(self, name: str, vit: Path) -> None:
        device = Device('cuda' if name == 'openvino' else 'cpu')
        with pytest.raises(DeviceError, match=f'{name!r} works on'):
            runtime_class(name).check(device, 'fp32')

    @pytest.mark.slow
    @pytest.mark.ci
    def test_auto_takes_what_is_exported_and_says_so(
        self, vit: Path, exported: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level('INFO'):
            chosen = create_model(vit, 'cpu', runtime='auto')
        assert chosen.runtime.name == 'onnxruntime'
        assert 'Runtime: onnxruntime fp32 on cpu' in caplog.text

    def test_auto_passes_over_what_is_missing_or_cannot(
        self,
        vit: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv('CLIPSEG_EXPORTS', str(tmp_path))
        with caplog.at_level('INFO'):
            assert create_model(vit, 'cpu', runtime='auto').runtime.name == 'eager'
            model = ClsCLIP(make_small_clip(), (1, 2), num_heads=4, dim=16, feedforward=32)
            card = ModelCard.from_stored(CARD, model.config(), Path('x.safetensors'))
            assert create_runtime(model, card, 'cpu', 'auto').name == 'eager'
        assert "passes over onnxruntime: There is no export of 'tiny'" in caplog.text

    def test_every_name_has_its_class(self) -> None:
        for name in RUNTIMES:
            kind = runtime_class(name)
            assert issubclass(kind, Runtime)
            assert kind.name == name


class TestMemory:
    @pytest.mark.parametrize(
        'error',
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            RuntimeError('could not create a primitive'),  # oneDNN's word for it.
            Exception('[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer'),
        ],
    )
    def test_running_out_is_told(
        self, error: Exception, vit: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segmenter = create_model(vit, 'cpu', runtime='eager')

        def fail(*args: Any) -> None:
            raise error

        monkeypatch.setattr(segmenter.model, 'encode_image', fail)
        with pytest.raises(DeviceMemoryError, match=r'eager fp32 on cpu.*smaller model'):
            segmenter.segment(image, ['a mug'])
        with pytest.raises(DeviceMemoryError) as caught, base.memory_guard(segmenter.runtime):
            segmenter.segment(image, ['a mug'])
        assert str(caught.value).count('There is not enough memory') == 1, 'told once'

    @pytest.mark.parametrize('name', ['embed_texts', 'embed_images'])
    def test_running_out_over_a_prompt_is_told(
        self, name: str, vit: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segmenter = create_model(vit, 'cpu', runtime='eager')

        def fail(*args: Any) -> None:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')

        monkeypatch.setattr(segmenter.model, name, fail)
        with pytest.raises(DeviceMemoryError, match='eager fp32 on cpu'):
            segmenter.segment(image, [Prompt('a mug', image=image)])

    def test_other_errors_stay_what_they_are(
        self, vit: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segmenter = create_model(vit, 'cpu', runtime='eager')

        def fail(*args: Any) -> None:
            raise RuntimeError('shapes differ')

        monkeypatch.setattr(segmenter.model, 'encode_image', fail)
        with pytest.raises(RuntimeError, match='shapes differ'):
            segmenter.segment(image, ['a mug'])


@pytest.mark.parametrize(
    ('prompts', 'most', 'runs'),
    [
        (1, 4, [(1, 1)]),
        (3, 4, [(3, 4)]),
        (4, 4, [(4, 4)]),
        (9, 4, [(4, 4), (4, 4), (1, 1)]),
        (70, 64, [(64, 64), (6, 8)]),
    ],
)
def test_prompt_buckets(prompts: int, most: int, runs: list[tuple[int, int]]) -> None:
    assert prompt_buckets(prompts, most) == runs
