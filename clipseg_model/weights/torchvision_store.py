"""Detectors of torchvision by name, and where their weights lie. Touches no network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clipseg_model.errors import CheckpointError
from clipseg_model.weights.store import models_folder

LICENCE = 'BSD-3-Clause (torchvision); trained on COCO 2017, whose pictures have their own terms'


@dataclass(frozen=True)
class TorchvisionWeights:
    """Weights that torchvision publishes.

    Attributes:
        url: Of the file.
        digest: First digits of its sha256, by torchvision's convention part of its name.
    """

    name: str
    url: str
    digest: str

    @property
    def path(self) -> Path:
        """Where a download of them lies."""
        return models_folder() / 'torchvision' / self.url.rpartition('/')[2]


def list_detectors() -> list[str]:
    """Return the names of the detectors that torchvision can build."""
    from torchvision.models import detection, list_models

    return [name for name in list_models(module=detection) if 'keypoint' not in name]


def detector_weights(name: str) -> TorchvisionWeights:
    """Return where torchvision publishes the weights of one of :func:`list_detectors`.

    Raises:
        CheckpointError: The name of their file has no digest.
    """
    from torchvision.models import get_model_weights

    url = str(get_model_weights(name).DEFAULT.url)
    digest = re.search(r'-([0-9a-f]{8,64})\.pth$', url)
    if digest is None:
        raise CheckpointError(
            f'{url} has no digest in its name, so that what arrives cannot be checked: give the '
            'path of a file that you trust'
        )
    return TorchvisionWeights(name, url, digest[1])


def required_detector(name: str) -> Path:
    """Return the file of a detector's weights on this machine; CheckpointError without one."""
    weights = detector_weights(name)
    if not weights.path.is_file():
        raise CheckpointError(
            f'The weights of the detector {name!r} are not on this machine, and only a download '
            f'fetches them: run "clipseg download {name}" where there is a network, or give the '
            'path of a file with them'
        )
    return weights.path
