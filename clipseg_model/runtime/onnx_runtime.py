"""ONNX Runtime on a CPU, with CUDA or with TensorRT."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipseg_model.errors import RuntimeMissingError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.runtime.base import require
from clipseg_model.runtime.exported import ONNX, ExportedRuntime, ensure_onnx
from clipseg_model.runtime.onnx_values import as_tensor
from clipseg_model.runtime.split import DECODER, ENCODER

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

logger = logging.getLogger(__name__)


class OnnxRuntime(ExportedRuntime):
    """ONNX Runtime, by ``CPUExecutionProvider`` on a CPU.

    On a CUDA device fp32 is computed by ``CUDAExecutionProvider`` and fp16 by
    ``TensorrtExecutionProvider``, whose engines are kept beside the ONNX files.
    """

    name = 'onnxruntime'
    precisions = ('fp32', 'fp16')
    package = 'onnxruntime'
    extra = 'onnx'
    prompts_at_once = 2

    @classmethod
    def variant(cls, device: torch.device, precision: str) -> str:
        """See :meth:`ExportedRuntime.variant`."""
        return ONNX

    @classmethod
    def export(
        cls,
        model: SegmentationModel,
        card: ModelCard,
        digest: str,
        root: Path,
        device: torch.device,
        precision: str,
    ) -> None:
        """See :meth:`ExportedRuntime.export`."""
        ensure_onnx(model, card, digest, root)

    def describe(self) -> str:
        """See :meth:`Runtime.describe`."""
        return f'{super().describe()} by {_provider(self.device, self.precision)}'

    def _load(self, folder: Path, manifest: dict[str, Any]) -> None:
        self._encoder = self._session(folder / ENCODER)
        self._decoder = self._session(folder / DECODER)
        self._outputs = [output.name for output in self._encoder.get_outputs()]
        self._inputs = [value.name for value in self._decoder.get_inputs()]

    def _session(self, path: Path) -> InferenceSession:
        ort = require('onnxruntime', self.name, self.extra)
        provider = _provider(self.device, self.precision)
        if provider not in ort.get_available_providers():
            raise RuntimeMissingError(
                f'The onnxruntime {ort.__version__} that is installed has no {provider}, only '
                f'{", ".join(ort.get_available_providers())}: install onnxruntime-gpu in its '
                'place, or choose device cpu'
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        settings: dict[str, Any] = {}
        if self.device.type == 'cuda':
            settings['device_id'] = self.device.index or 0
        if provider == 'CUDAExecutionProvider':
            settings['use_tf32'] = 0  # Which it would use by default, in float32.
        if provider == 'TensorrtExecutionProvider':
            settings.update(
                trt_fp16_enable=True,
                trt_engine_cache_enable=True,
                trt_engine_cache_path=str(path.parent.parent / 'onnxruntime-tensorrt'),
            )
        session: InferenceSession = ort.InferenceSession(
            path, options, providers=[(provider, settings)]
        )
        if session.get_providers()[0] != provider:
            raise RuntimeMissingError(
                f'ONNX Runtime could not start {provider} and would have computed with '
                f'{session.get_providers()[0]}: its log above says which library is missing'
            )
        return session

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        if self.device.type == 'cpu':
            arrays = self._encoder.run(self._outputs, {'pixels': pixels.numpy()})
            return [torch.from_numpy(array) for array in arrays]
        binding = self._encoder.io_binding()
        self._bind(binding.bind_input, 'pixels', pixels)
        for name in self._outputs:
            binding.bind_output(name, 'cuda', self.device.index or 0)
        torch.cuda.current_stream(self.device).synchronize()
        self._encoder.run_with_iobinding(binding)
        # Clones: what ONNX Runtime owns ends with the binding.
        return [as_tensor(value).clone() for value in binding.get_outputs()]

    def _decode(self, parts: list[Tensor], condition: Tensor, logits: Tensor) -> None:
        values = dict(zip(self._inputs, [condition, *parts], strict=True))
        binding = self._decoder.io_binding()
        for name, value in values.items():
            self._bind(binding.bind_input, name, value.contiguous())
        # The logits lie where they belong: no copy.
        self._bind(binding.bind_output, 'logits', logits)
        if self.device.type == 'cuda':
            torch.cuda.current_stream(self.device).synchronize()
        self._decoder.run_with_iobinding(binding)

    def _bind(self, bind: Any, name: str, value: Tensor) -> None:
        index = self.device.index or 0
        bind(name, self.device.type, index, 'float32', tuple(value.shape), value.data_ptr())


def _provider(device: torch.device, precision: str) -> str:
    if device.type == 'cpu':
        return 'CPUExecutionProvider'
    return 'TensorrtExecutionProvider' if precision == 'fp16' else 'CUDAExecutionProvider'
