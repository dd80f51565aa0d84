"""ONNX Runtime on a CPU, with CUDA or with TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_model.errors import RuntimeMissingError
from clipseg_model.runtime.base import Floats, require
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.exported import ExportedRuntime, Parts
from clipseg_model.runtime.exports.files import DECODER, ENCODER, ONNX
from clipseg_model.runtime.onnx_scratch import share_scratch
from clipseg_model.runtime.threads import thread_count

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from clipseg_model.model_card import ModelCard
    from clipseg_model.modeling.base import SegmentationModel


class OnnxRuntime(ExportedRuntime):
    """ONNX Runtime, by ``CPUExecutionProvider`` on a CPU.

    On a CUDA device fp32 is computed by ``CUDAExecutionProvider`` and fp16 by
    ``TensorrtExecutionProvider``, whose engines are kept beside the ONNX files.
    """

    name = 'onnxruntime'
    precisions = ('fp32', 'fp16')
    package = 'onnxruntime'
    extra = None
    prompts_at_once = 2
    opens_quickly = True

    @classmethod
    def variant(cls, device: Device, precision: str) -> str:
        """See :meth:`Exporting.variant`."""
        return ONNX

    @classmethod
    def export(
        cls,
        model: SegmentationModel,
        card: ModelCard,
        digest: str,
        root: Path,
        device: Device,
        precision: str,
    ) -> None:
        """See :meth:`Exporting.export`."""
        from clipseg_model.runtime.exporting import ensure_onnx

        ensure_onnx(model, card, digest, root)

    def describe(self) -> str:
        """See :meth:`Runtime.describe`."""
        return f'{super().describe()} by {_provider(self.device, self.precision)}'

    def _load(self, variant: Path | None) -> None:
        self._encoder = self._session(self._export.part(ENCODER))
        self._decoder = self._session(self._export.part(DECODER))
        _, self._outputs = self._export.names(ENCODER)
        self._inputs, _ = self._export.names(DECODER)

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
        if self.device.type == 'cpu':
            share_scratch(ort, options)
        else:
            options.enable_cpu_mem_arena = False  # It would keep the most that any frame took.
        options.intra_op_num_threads = thread_count()
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

    def _encode(self, pixels: Floats) -> Parts:
        return list(self._encoder.run(self._outputs, {'pixels': pixels}))

    def _decode(self, parts: Parts, condition: Floats, logits: Floats) -> None:
        values = dict(zip(self._inputs, [condition, *parts], strict=True))
        binding = self._decoder.io_binding()
        for name, value in values.items():
            binding.bind_cpu_input(name, value)
        # The logits lie where they belong: no copy.
        binding.bind_output('logits', 'cpu', 0, logits.dtype.type, logits.shape, logits.ctypes.data)
        self._decoder.run_with_iobinding(binding)

    def _open_tower(self, part: str) -> InferenceSession:
        return self._session(self._export.part(part))

    def _run_tower(self, tower: InferenceSession, inputs: dict[str, Any]) -> Floats:
        found: Floats = tower.run(None, inputs)[0]
        return found


def _provider(device: Device, precision: str) -> str:
    if device.type == 'cpu':
        return 'CPUExecutionProvider'
    return 'TensorrtExecutionProvider' if precision == 'fp16' else 'CUDAExecutionProvider'
