"""OpenVINO: the fastest of the runtimes on Intel's and AMD's CPUs."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.runtime.base import cpu_flags, require
from clipseg_model.runtime.export_files import write_variant
from clipseg_model.runtime.exported import ExportedRuntime, ensure_onnx, package_versions
from clipseg_model.runtime.split import DECODER, ENCODER

if TYPE_CHECKING:
    import openvino

VARIANT = 'openvino'
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
    def variant(cls, device: torch.device, precision: str) -> str:
        """See :meth:`ExportedRuntime.variant`."""
        return INT8_VARIANT if precision == 'int8' else VARIANT

    @classmethod
    def export_options(cls, precision: str) -> str:
        """See :meth:`ExportedRuntime.export_options`."""
        return ' --calibration FOLDER_OF_IMAGES' if precision == 'int8' else ''

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
        """See :meth:`ExportedRuntime.export`; one variant serves fp32 and bf16."""
        ov = require('openvino', cls.name, cls.extra)
        onnx = ensure_onnx(model, card, digest, root)

        def write(made: Path) -> dict[str, Any]:
            for source, target in ((ENCODER, 'encoder.xml'), (DECODER, 'decoder.xml')):
                converted = ov.convert_model(onnx / source)
                ov.save_model(converted, made / target, compress_to_fp16=False)
            return {}

        write_variant(
            root / VARIANT, card, digest, package_versions('clipseg_ros', 'openvino'), write
        )

    def _load(self, folder: Path, manifest: dict[str, Any]) -> None:
        self._core, self._encoder, self._decoder = read_parts(folder)
        self._requests: OrderedDict[tuple[Any, ...], openvino.InferRequest] = OrderedDict()

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        request = self._request('encoder', [tuple(pixels.shape)])
        arrays = request.infer([pixels.numpy()], share_inputs=True)
        return [torch.from_numpy(array.copy()) for array in arrays.values()]

    def _decode(self, parts: list[Tensor], condition: Tensor, logits: Tensor) -> None:
        import openvino as ov

        inputs = [condition, *parts]
        request = self._request('decoder', [tuple(value.shape) for value in inputs])
        # The logits lie where they belong: no copy.
        request.set_output_tensor(ov.Tensor(logits.numpy(), shared_memory=True))
        request.infer(
            [value.contiguous().numpy() for value in inputs], share_inputs=True, share_outputs=True
        )

    def _request(self, part: str, shapes: list[tuple[int, ...]]) -> openvino.InferRequest:
        """Return the network compiled for these shapes; the last few are kept."""
        key = (part, *shapes)
        if key not in self._requests:
            of_part = [kept for kept in self._requests if kept[0] == part]
            if len(of_part) >= _SHAPES_KEPT:
                del self._requests[of_part[0]]
            source = (self._encoder if part == 'encoder' else self._decoder).clone()
            source.reshape(dict(enumerate(map(list, shapes))))
            self._requests[key] = self.compile(self._core, source, self.precision)
        self._requests.move_to_end(key)
        return self._requests[key]

    @staticmethod
    def compile(
        core: openvino.Core, model: openvino.Model, precision: str
    ) -> openvino.InferRequest:
        """Compile a network for latency on as many threads as torch uses."""
        half = precision == 'bf16' or (
            precision == 'int8' and bool(cpu_flags() & {'avx512_bf16', 'amx_bf16'})
        )
        settings = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': 'bf16' if half else 'f32',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        }
        return core.compile_model(model, 'CPU', settings).create_infer_request()


def read_parts(folder: Path) -> tuple[openvino.Core, openvino.Model, openvino.Model]:
    """Read OpenVINO's core, the encoder and the decoder of a variant."""
    import openvino as ov

    core = ov.Core()
    return core, core.read_model(folder / 'encoder.xml'), core.read_model(folder / 'decoder.xml')
