"""Regions from an object detector of torchvision, filtered by category (ClsCLIP+, Wu et al. 2023).

Nothing is downloaded: the weights come from a file, or the detector is handed in as it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipseg_model.errors import CheckpointError, RegionError
from clipseg_model.regions import Box
from clipseg_model.segmentation import Segmentation
from clipseg_model.user_folders import expanded
from clipseg_model.weights.files import read_pickled, read_tensors
from clipseg_model.zoom.proposals import Proposal

DEFAULT_DETECTOR = 'fasterrcnn_resnet50_fpn_v2'


class DetectorProposals:
    """Regions where a detector sees things of some categories.

    Args:
        detector: Takes a list of images (3, H, W) float32 in 0…1 and returns for each a dict of
            ``boxes`` (N, 4) as left, top, right, bottom in pixels, ``labels`` (N,) and ``scores``
            (N,), as the models of ``torchvision.models.detection`` do in evaluation mode.
        categories: Name of each label.
        wanted: Categories that are looked at, of any letter case; all where empty.
        min_score: Least score of a detection, 0…1.

    Raises:
        RegionError: A category is unknown to the detector, or ``min_score`` out of range.
    """

    def __init__(
        self,
        detector: nn.Module,
        categories: Sequence[str],
        wanted: Sequence[str] = (),
        min_score: float = 0.3,
    ) -> None:
        if not 0 <= min_score <= 1:
            raise RegionError(f'The least score of a detection must be in 0…1, not {min_score!r}')
        self.detector = detector.eval()
        self.categories = list(categories)
        self.min_score = min_score
        self._labels = {self._label(name) for name in wanted} or set(range(len(categories)))

    @torch.inference_mode()
    def propose(self, image: NDArray[np.uint8], found: Segmentation) -> list[Proposal]:
        """Propose the detections of the wanted categories, for every prompt.

        Raises:
            CheckpointError: The detector's boxes or scores are not finite.
        """
        parameter = next(self.detector.parameters(), None)
        pixels = torch.from_numpy(np.array(image, order='C')).permute(2, 0, 1).float() / 255
        answer = self.detector([pixels if parameter is None else pixels.to(parameter.device)])[0]
        boxes, scores = answer['boxes'].float().cpu(), answer['scores'].float().cpu()
        if not (boxes.isfinite().all() and scores.isfinite().all()):
            raise CheckpointError(
                'The detector gave boxes or scores that are not finite: its weights are damaged'
            )
        proposals = []
        for (left, top, right, bottom), score, label in zip(
            boxes.tolist(), scores.tolist(), answer['labels'].tolist(), strict=True
        ):
            if score < self.min_score or label not in self._labels:
                continue
            # Detectors answer with slivers at the border; those show nothing.
            left, right = max(left, 0), min(right, found.width)
            top, bottom = max(top, 0), min(bottom, found.height)
            if right - left < 1 or bottom - top < 1:
                continue
            rectangle = (left, top, right - left, bottom - top)
            proposals.append(
                Proposal(Box.around(rectangle, found.height, found.width), None, score)
            )
        return proposals

    def _label(self, name: str) -> int:
        known = {category.casefold(): number for number, category in enumerate(self.categories)}
        label = known.get(name.strip().casefold())
        if label is None:
            close = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.5)
            hint = f'Did you mean {" or ".join(map(repr, close))}? ' if close else ''
            names = [n for n in self.categories if n not in ('__background__', 'N/A')]
            raise RegionError(
                f'The detector knows no category {name!r}. {hint}It knows {", ".join(names)}'
            )
        return label


def list_detectors() -> list[str]:
    """Return the names of the detectors that torchvision can build."""
    from torchvision.models import detection, list_models

    return [name for name in list_models(module=detection) if 'keypoint' not in name]


def load_detector(
    weights: str | os.PathLike[str],
    name: str = DEFAULT_DETECTOR,
    categories: Sequence[str] | None = None,
    device: str | torch.device = 'cpu',
) -> tuple[nn.Module, list[str]]:
    """Build a detector of torchvision, in evaluation mode, with weights from a file.

    Args:
        weights: ``.pth`` or ``.safetensors`` file of a state dict; a pickle may hold tensors alone.
        name: One of :func:`list_detectors`.
        categories: Name of each label the weights were trained on, that of the background first;
            torchvision's 91 of COCO where None.
        device: Where it shall run.

    Returns:
        The detector and its categories.

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
    path = expanded(weights)
    state = _read_state(path)
    detector = get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f'{path} does not fit the detector {name!r} of {len(categories)} categories: '
            f'{str(error)[:600]}. Give the name of the detector that the weights belong to'
        ) from error
    return detector.to(device).eval(), list(categories)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path} with a detector's weights: download them from torchvision "
            'on a machine with a network and give their path'
        )
    return read_tensors(path) if path.suffix == '.safetensors' else read_pickled(path)
