"""TensorRT: engines built for one GPU, one version of TensorRT, one checkpoint and one size."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipseg_model.errors import ExportError
from clipseg_model.features import ImageFeatures, PromptFeatures
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.pixels.preprocessing import input_shape
from clipseg_model.runtime.base import memory_guard, require
from clipseg_model.runtime.compiled import prompt_buckets
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.exported import Exporting
from clipseg_model.runtime.exporting import ensure_onnx, package_versions
from clipseg_model.runtime.exports.files import (
    DECODER,
    ENCODER,
    exports_folder,
    read_variant,
    write_variant,
)
from clipseg_model.runtime.split import ImageEncoder, check_exportable, weights_digest
from clipseg_model.runtime.torch_runtime import TorchRuntime

logger = logging.getLogger(__name__)

_MOST_PROMPTS = 64


class TensorRtRuntime(TorchRuntime, Exporting):
    """TensorRT, on CUDA devices.

    An engine is built in minutes, for squares of the card's input size or, of a model that keeps
    proportions, for what a 4:3 image becomes; another size is an error, and so is an engine of
    another GPU, version or checkpoint. Engines can run code: load only those that you built. The
    torch model stays in memory and embeds the prompts.

    ``folder`` is where ``clipseg export`` wrote the model to; nothing is made there. Where it is
    None, what is missing, damaged or foreign is made anew in a folder in the user's cache.
    """

    name = 'tensorrt'
    precisions = ('fp32', 'bf16', 'fp16')
    device_types = ('cuda',)
    package = 'tensorrt'
    extra = 'tensorrt'

    def __init__(
        self,
        model: SegmentationModel,
        device: Device | torch.device,
        precision: str = 'fp32',
        *,
        card: ModelCard,
        folder: Path | None = None,
    ) -> None:
        check_exportable(model)
        digest = weights_digest(model.cpu())
        super().__init__(model, device, precision)
        root = exports_folder(card, digest) if folder is None else folder
        variant = root / self.variant(self.device, precision)
        try:
            manifest = self._read(variant, digest, card)
        except ExportError as error:
            if folder is not None:
                raise ExportError(
                    f'{error}; here: clipseg export {card.name} {root} --runtime {self.name} '
                    f'--precision {precision}'
                ) from error
            logger.info('%s Exporting now.', error)
            self.export(model.cpu(), card, digest, root, self.device, precision)
            manifest = self._read(variant, digest, card)
            model.to(self.place)
        with memory_guard(self):
            self._load(variant, manifest)

    @classmethod
    def _read(cls, variant: Path, digest: str, card: ModelCard) -> dict[str, Any]:
        manifest = read_variant(variant, digest, cls.versions())
        if manifest.get('input_size') != card.input_size:
            raise ExportError(
                f'{variant} was made for the input size {manifest.get("input_size")}, and '
                f'{card.input_size} is asked for: export the model again (clipseg export)'
            )
        return manifest

    @classmethod
    def variant(cls, device: Device, precision: str) -> str:
        """See :meth:`Exporting.variant`."""
        trt = require('tensorrt', cls.name, cls.extra)
        gpu = re.sub(r'\W+', '-', torch.cuda.get_device_name(str(device)))
        return f'tensorrt-{gpu}-{trt.__version__}-{precision}'

    @classmethod
    def versions(cls) -> dict[str, str]:
        """See :meth:`Exporting.versions`."""
        trt = require('tensorrt', cls.name, cls.extra)
        return {'tensorrt': str(trt.__version__)}

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
            with torch.cuda.device(str(device)):
                _build(onnx.part(ENCODER), made / 'encoder.engine', {'pixels': image}, precision)
                _build(onnx.part(DECODER), made / 'decoder.engine', ranges, precision)
            return {
                'height': height,
                'width': width,
                'gpu': torch.cuda.get_device_name(str(device)),
            }

        versions = {**package_versions('clipseg_ros', 'torch'), **cls.versions()}
        write_variant(root / cls.variant(device, precision), card, digest, versions, write)

    def _load(self, folder: Path, manifest: dict[str, Any]) -> None:
        self._size = (int(manifest['height']), int(manifest['width']))
        gpu = torch.cuda.get_device_name(self.place)
        if manifest['gpu'] != gpu:
            raise ExportError(
                f'{folder} was built for {manifest["gpu"]}, and this is {gpu}: export it here'
            )
        with torch.cuda.device(self.place):
            self._encoder = _Engine(folder / 'encoder.engine', self.place)
            self._decoder = _Engine(folder / 'decoder.engine', self.place)

    def _encode(self, pixels: Tensor) -> ImageFeatures:
        height, width = pixels.shape[-2:]
        if (height, width) != self._size:
            raise ExportError(
                f'The engine was built for {self._size[1]} × {self._size[0]} px and the image '
                f'became {width} × {height} (width × height): give images of the proportions of '
                '4:3, or use the runtime compile, which takes any size'
            )
        with memory_guard(self):
            images = [self._encoder.run({'pixels': image}) for image in pixels.split(1)]
            taps = [torch.cat([image[name] for image in images]) for name in self._encoder.outputs]
        patch = self.traits.patch_size
        return ImageFeatures(taps, (height // patch, width // patch), height, width)

    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        condition = prompts.condition
        batch = len(features.taps[0])
        if condition.dim() == 2:
            if batch != 1:
                raise ValueError(f'a condition (P, E) is for one image, but there are {batch}')
            return self._decode(features, PromptFeatures(condition[None]))[0]
        with memory_guard(self):
            return torch.cat(
                [
                    self._decode_one(
                        [tap[n : n + 1] for tap in features.taps], condition[n : n + 1]
                    )
                    for n in range(batch)
                ]
            )

    def _decode_one(self, parts: list[Tensor], condition: Tensor) -> Tensor:
        names = [name for name in self._decoder.inputs if name != 'condition']
        found, start = [], 0
        for taken, run in prompt_buckets(condition.shape[1], _MOST_PROMPTS):
            chunk = condition[:, start : start + taken]
            if taken < run:
                chunk = torch.cat([chunk, chunk[:, -1:].expand(-1, run - taken, -1)], 1)
            inputs = {'condition': chunk, **dict(zip(names, parts, strict=True))}
            found.append(self._decoder.run(inputs)['logits'][:, :taken])
            start += taken
        return torch.cat(found, 1)


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
