"""The switch for TF32: no CUDA device is needed to look at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import make_small_clip

from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.eager import EagerRuntime
from clipseg_model.runtime.onnx_runtime import OnnxRuntime
from clipseg_model.runtime.tf32 import full_float32

CUDA = torch.device('cuda')


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = True


class TestFullFloat32:
    def test_is_off_inside_and_as_before_afterwards(self) -> None:
        for before in (True, False):
            torch.backends.cudnn.allow_tf32 = before
            with full_float32(CUDA), full_float32(CUDA):
                assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.allow_tf32 is before

    def test_a_cpu_changes_nothing(self) -> None:
        with full_float32(torch.device('cpu')):
            assert torch.backends.cudnn.allow_tf32

    def test_is_as_before_after_an_error(self) -> None:
        with pytest.raises(KeyError), full_float32(CUDA):
            raise KeyError
        assert torch.backends.cudnn.allow_tf32

    def test_the_first_of_two_threads_to_leave_does_not_switch_it_on(self) -> None:
        inside, leave = threading.Event(), threading.Event()

        def first() -> None:
            with full_float32(CUDA):
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=first)
        thread.start()
        assert inside.wait(10)
        with full_float32(CUDA):
            leave.set()
            thread.join(10)
            assert not thread.is_alive()
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32

    @pytest.mark.skipif(
        not hasattr(torch.backends.cudnn, 'conv'), reason='torch cannot set it for each layer'
    )
    def test_what_is_set_for_each_kind_of_layer_stays(self) -> None:
        conv: Any = torch.backends.cudnn.conv
        conv.fp32_precision = 'ieee'
        try:
            with full_float32(CUDA):
                assert conv.fp32_precision == 'ieee'
            assert conv.fp32_precision == 'ieee'
        finally:
            conv.fp32_precision = 'tf32'

    def test_eager_float32_computes_in_it(self) -> None:
        model = CLIPSeg(make_small_clip(), [0, 2], dim=16, feedforward=32)
        runtime = EagerRuntime(model, torch.device('cpu'))
        runtime.device = CUDA  # As if: the model stays where it is.
        seen: list[bool] = []
        for module in (model.backbone.stem_proj, model.decoder.head):
            module.register_forward_hook(
                lambda *_: seen.append(bool(torch.backends.cudnn.allow_tf32))
            )
        with torch.inference_mode():
            image = np.zeros((1, 3, 64, 64), np.float32)
            features = runtime.encode_image(image)
            condition = np.zeros((2, model.backbone.embed_dim), np.float32)
            runtime.decode(features, runtime.encode_prompts(condition))
            runtime.embed_images(image)
        assert seen == [False, False, False]
        assert torch.backends.cudnn.allow_tf32


def test_onnx_runtime_s_float32_is_none_of_tf32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ort = pytest.importorskip('onnxruntime')
    asked: dict[str, Any] = {}

    class Session:
        def __init__(self, path: Path, options: Any, providers: list[tuple[str, Any]]) -> None:
            asked.update(providers)

        def get_providers(self) -> list[str]:
            return list(asked)

    monkeypatch.setattr(ort, 'get_available_providers', lambda: ['CUDAExecutionProvider'])
    monkeypatch.setattr(ort, 'InferenceSession', Session)
    runtime = OnnxRuntime.__new__(OnnxRuntime)
    runtime.device, runtime.precision = Device('cuda', 1), 'fp32'
    runtime._session(tmp_path / 'encoder.onnx')
    assert asked == {'CUDAExecutionProvider': {'device_id': 1, 'use_tf32': 0}}
