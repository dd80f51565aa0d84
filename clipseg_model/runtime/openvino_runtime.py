"""OpenVINO: the fastest of the runtimes on Intel's and AMD's CPUs."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_model.runtime.base import Floats, cpu_flags, require
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.exported import ExportedRuntime, Parts
from clipseg_model.runtime.exports.files import DECODER, ENCODER, ONNX
from clipseg_model.runtime.threads import thread_count

if TYPE_CHECKING:
    import openvino

    from clipseg_model.model_card import ModelCard
    from clipseg_model.modeling.base import SegmentationModel

INT8_VARIANT = 'openvino-int8'
_SHAPES_KEPT = 4


class OpenVinoRuntime(ExportedRuntime):
    """OpenVINO's CPU plugin.

    The network is compiled for each shape that comes (about a second for a ViT-B/16), then kept. In
    int8 what is not quantised runs in bf16 where the CPU has it.
    """

    name = 'openvino'
    precisions = ('fp32', 'bf16', 'int8')
    device_types = ('cpu',)
    package = 'openvino'
    extra = 'openvino'
    prompts_at_once = 2

    @classmethod
    def variant(cls, device: Device, precision: str) -> str:
        """See :meth:`Exporting.variant`."""
        return INT8_VARIANT if precision == 'int8' else ONNX

    @classmethod
    def export_options(cls, precision: str) -> str:
        """See :meth:`Exporting.export_options`."""
        return ' --calibration FOLDER_OF_IMAGES' if precision == 'int8' else ''

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
        """See :meth:`Exporting.export`; OpenVINO reads the ONNX files."""
        from clipseg_model.runtime.exporting import ensure_onnx

        require('openvino', cls.name, cls.extra)
        ensure_onnx(model, card, digest, root)

    def _load(self, variant: Path | None) -> None:
        ov = require('openvino', self.name, self.extra)
        self._core = ov.Core()
        self._networks = {
            part: self._core.read_model(
                self._export.part(part) if variant is None else variant / f'{part}.xml'
            )
            for part in (ENCODER, DECODER)
        }
        self._requests: OrderedDict[tuple[Any, ...], openvino.InferRequest] = OrderedDict()

    def _encode(self, pixels: Floats) -> Parts:
        request = self._request(ENCODER, [pixels.shape])
        arrays = request.infer([pixels], share_inputs=True)
        return [array.copy() for array in arrays.values()]

    def _decode(self, parts: Parts, condition: Floats, logits: Floats) -> None:
        import openvino as ov

        inputs = [np.ascontiguousarray(value) for value in (condition, *parts)]
        request = self._request(DECODER, [value.shape for value in inputs])
        # The logits lie where they belong: no copy.
        request.set_output_tensor(ov.Tensor(logits, shared_memory=True))
        request.infer(inputs, share_inputs=True, share_outputs=True)

    def _open_tower(self, part: str) -> openvino.InferRequest:
        return self.compile(self._core, self._core.read_model(self._export.part(part)), 'fp32')

    def _run_tower(self, tower: openvino.InferRequest, inputs: dict[str, Any]) -> Floats:
        found: Floats = next(iter(tower.infer(inputs).values()))
        return found

    def _request(self, part: str, shapes: list[tuple[int, ...]]) -> openvino.InferRequest:
        """Return the network compiled for these shapes; the last few are kept."""
        key = (part, *shapes)
        if key not in self._requests:
            of_part = [kept for kept in self._requests if kept[0] == part]
            if len(of_part) >= _SHAPES_KEPT:
                del self._requests[of_part[0]]
            source = self._networks[part].clone()
            source.reshape(dict(enumerate(map(list, shapes))))
            self._requests[key] = self.compile(self._core, source, self.precision)
        self._requests.move_to_end(key)
        return self._requests[key]

    @staticmethod
    def compile(
        core: openvino.Core, model: openvino.Model, precision: str
    ) -> openvino.InferRequest:
        """Compile a network for latency on as many threads as every runtime uses."""
        half = precision == 'bf16' or (
            precision == 'int8' and bool(cpu_flags() & {'avx512_bf16', 'amx_bf16'})
        )
        settings = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': 'bf16' if half else 'f32',
            'INFERENCE_NUM_THREADS': thread_count(),
        }
        return core.compile_model(model, 'CPU', settings).create_infer_request()
