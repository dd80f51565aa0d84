"""Detectors of torchvision, with weights from a file or from ``clipseg download``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipseg_model.errors import CheckpointError, RegionError
from clipseg_model.files.user_folders import expanded
from clipseg_model.weights.files import read_pickled, read_tensors
from clipseg_model.weights.torchvision_store import list_detectors, required_detector
from clipseg_model.zoom.detectors import Detection

DEFAULT_DETECTOR = 'fasterrcnn_resnet50_fpn_v2'


class TorchvisionDetector:
    """A module of ``torchvision.models.detection``, as a detector of zoom.

    Args:
        module: Takes a list of images (3, H, W) float32 in 0…1 and returns for each a dict of
            ``boxes`` (N, 4) as left, top, right, bottom in pixels, ``labels`` (N,) and ``scores``
            (N,).
        categories: Name of each label, that of the background first.
    """

    def __init__(self, module: nn.Module, categories: Sequence[str]) -> None:
        self.module = module.eval()
        self.categories = list(categories)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8], names: Sequence[str] = ()) -> list[Detection]:
        """Return all detections, of any category."""
        parameter = next(self.module.parameters(), None)
        pixels = torch.from_numpy(np.array(image, order='C')).permute(2, 0, 1).float() / 255
        answer = self.module([pixels if parameter is None else pixels.to(parameter.device)])[0]
        rows = zip(
            answer['boxes'].float().cpu().tolist(),
            answer['scores'].float().cpu().tolist(),
            answer['labels'].tolist(),
            strict=True,
        )
        return [
            Detection(self.categories[label], score, (left, top, right, bottom))
            for (left, top, right, bottom), score, label in rows
        ]


def load_detector(
    weights: str | os.PathLike[str] | None = None,
    name: str = DEFAULT_DETECTOR,
    categories: Sequence[str] | None = None,
    device: str | torch.device = 'cpu',
) -> TorchvisionDetector:
    """Build a detector of torchvision, in evaluation mode.

    Args:
        weights: ``.pth`` or ``.safetensors`` file of a state dict; a pickle may hold tensors alone.
            What ``clipseg download NAME`` fetched where None.
        name: One of :func:`~clipseg_model.weights.torchvision_store.list_detectors`.
        categories: Name of each label the weights were trained on, that of the background first;
            torchvision's 91 of COCO where None.
        device: Where it shall run.

    Raises:
        RegionError: There is no detector of that name.
        CheckpointError: The file is missing, damaged, no state dict of tensors, or does not fit.
    """
    from torchvision.models import get_model, get_model_weights

    if name not in list_detectors():
        raise RegionError(
            f'torchvision has no detector {name!r}; it has {", ".join(list_detectors())}'
        )
    if categories is None:
        categories = get_model_weights(name).DEFAULT.meta['categories']
    path = required_detector(name) if weights is None else expanded(weights)
    state = _read_state(path)
    module = get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f'{path} does not fit the detector {name!r} of {len(categories)} categories: '
            f'{str(error)[:600]}. Give the name of the detector that the weights belong to'
        ) from error
    return TorchvisionDetector(module.to(device), categories)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path} with a detector's weights: give a path that is there, or "
            'fetch those of torchvision with "clipseg download NAME" and give no path'
        )
    return read_tensors(path) if path.suffix == '.safetensors' else read_pickled(path)
