"""TensorRT: engines built for one GPU, one version of TensorRT, one checkpoint and one size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipseg_model.errors import ExportError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.runtime.base import require
from clipseg_model.runtime.compiled import prompt_buckets
from clipseg_model.runtime.export_files import write_variant
from clipseg_model.runtime.exported import ExportedRuntime, ensure_onnx, package_versions
from clipseg_model.runtime.split import DECODER, ENCODER, ImageEncoder

_MOST_PROMPTS = 64


class TensorRtRuntime(ExportedRuntime):
    """TensorRT, on CUDA devices.

    An engine is built in minutes, for squares of the card's input size or, of a model that keeps
    proportions, for what a 4:3 image becomes; another size is an error, and so is an engine of
    another GPU, version or checkpoint. Engines can run code: load only those that you built.
    """

    name = 'tensorrt'
    precisions = ('fp32', 'bf16', 'fp16')
    device_types = ('cuda',)
    package = 'tensorrt'
    extra = 'tensorrt'
    prompts_at_once = _MOST_PROMPTS
    fixed_size = True

    @classmethod
    def variant(cls, device: torch.device, precision: str) -> str:
        """See :meth:`ExportedRuntime.variant`."""
        trt = require('tensorrt', cls.name, cls.extra)
        gpu = re.sub(r'\W+', '-', torch.cuda.get_device_name(device))
        return f'tensorrt-{gpu}-{trt.__version__}-{precision}'

    @classmethod
    def versions(cls) -> dict[str, str]:
        """See :meth:`ExportedRuntime.versions`."""
        trt = require('tensorrt', cls.name, cls.extra)
        return {'tensorrt': str(trt.__version__)}

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
        from clipseg_model.modeling.preprocessing import input_shape

        onnx = ensure_onnx(model, card, digest, root)
        patch = model.backbone.patch_size
        height, width = input_shape(480, 640, card.input_size, patch, card.resize)
        embed = model.backbone.embed_dim

        def write(made: Path) -> dict[str, Any]:
            encoder = ImageEncoder(model)
            with torch.no_grad():
                parts = encoder(torch.zeros(1, 3, height, width))
            ranges: dict[str, list[tuple[int, ...]]] = {
                'condition': [(1, prompts, embed) for prompts in (1, 4, _MOST_PROMPTS)]
            }
            for name, part in zip(encoder.names, parts, strict=True):
                ranges[name] = [tuple(part.shape)] * 3
            image: list[tuple[int, ...]] = [(1, 3, height, width)] * 3
            with torch.cuda.device(device):
                _build(onnx / ENCODER, made / 'encoder.engine', {'pixels': image}, precision)
                _build(onnx / DECODER, made / 'decoder.engine', ranges, precision)
            return {'height': height, 'width': width, 'gpu': torch.cuda.get_device_name(device)}

        versions = {**package_versions('clipseg_ros', 'torch'), **cls.versions()}
        write_variant(root / cls.variant(device, precision), card, digest, versions, write)

    def _load(self, folder: Path, manifest: dict[str, Any]) -> None:
        self._size = (int(manifest['height']), int(manifest['width']))
        gpu = torch.cuda.get_device_name(self.device)
        if manifest['gpu'] != gpu:
            raise ExportError(
                f'{folder} was built for {manifest["gpu"]}, and this is {gpu}: export it here'
            )
        with torch.cuda.device(self.device):
            self._encoder = _Engine(folder / 'encoder.engine', self.device)
            self._decoder = _Engine(folder / 'decoder.engine', self.device)

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        height, width = pixels.shape[-2:]
        if (height, width) != self._size:
            raise ExportError(
                f'The engine was built for {self._size[1]} × {self._size[0]} px and the image '
                f'became {width} × {height} (width × height): give images of the proportions of '
                '4:3, or use the runtime compile, which takes any size'
            )
        outputs = self._encoder.run({'pixels': pixels})
        return [outputs[name] for name in self._encoder.outputs]

    def _decode(self, parts: list[Tensor], condition: Tensor, logits: Tensor) -> None:
        names = [name for name in self._decoder.inputs if name != 'condition']
        ((prompts, padded),) = prompt_buckets(condition.shape[1], _MOST_PROMPTS)
        if padded > prompts:
            last = condition[:, -1:].expand(-1, padded - prompts, -1)
            condition = torch.cat([condition, last], 1)
        inputs = {'condition': condition, **dict(zip(names, parts, strict=True))}
        logits.copy_(self._decoder.run(inputs)['logits'][:, :prompts])


class _Engine:
    """A deserialised engine and its execution context, on torch's buffers and stream.

    ``device`` is current while it is loaded.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        import tensorrt as trt

        self._trt, self._device = trt, device
        # Kept: an engine ends with the runtime that read it.
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ExportError(f'TensorRT {trt.__version__} does not accept {path}: export it again')
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise MemoryError(f'no memory for the activations of {path.name}')
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Queue one inference on the current stream; outputs are new tensors."""
        held = {name: value.contiguous() for name, value in inputs.items()}
        for name, value in held.items():
            if not self._context.set_input_shape(name, tuple(value.shape)):
                raise ExportError(f'The engine was not built for {name} {tuple(value.shape)}')
            self._context.set_tensor_address(name, value.data_ptr())
        results = {}
        for name in self.outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            results[name] = torch.empty(shape, dtype=torch.float32, device=self._device)
            self._context.set_tensor_address(name, results[name].data_ptr())
        stream = torch.cuda.current_stream(self._device).cuda_stream
        # Kernels are launched on the current device, which each thread has of its own.
        with torch.cuda.device(self._device):
            if not self._context.execute_async_v3(stream):
                raise ExportError('TensorRT could not run the engine: its log says why')
        return results


def _build(
    source: Path, target: Path, ranges: dict[str, list[tuple[int, ...]]], precision: str
) -> None:
    """Build an engine of an ONNX file; ``ranges`` are least, usual and largest shapes of inputs."""
    trt = require('tensorrt', 'tensorrt', 'tensorrt')
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.WARNING))
    if not parser.parse_from_file(str(source)):
        reasons = '; '.join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f'TensorRT {trt.__version__} cannot read {source.name}: {reasons}')
    config = builder.create_builder_config()
    flags = {'bf16': trt.BuilderFlag.BF16, 'fp16': trt.BuilderFlag.FP16}
    if precision in flags:
        config.set_flag(flags[precision])
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, shapes in ranges.items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(
            f'TensorRT {trt.__version__} could not build {target.name}: its log above says why '
            '(often too little GPU memory: end other programs)'
        )
    target.write_bytes(engine)
