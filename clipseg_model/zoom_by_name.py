"""Zoom by names, for commands and nodes: which detector, and how the authors of a model zoom."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from clipseg_model.errors import RegionError
from clipseg_model.registry import create_model, list_models
from clipseg_model.runtime.base import require
from clipseg_model.runtime.devices import resolve_device
from clipseg_model.zoom.detectors import DetectorProposals
from clipseg_model.zoom.model_detector import ModelDetector
from clipseg_model.zoom.proposals import CoarseProposals, Proposer
from clipseg_model.zoom.refinement import Zoom


def open_detector(
    name: str,
    device: object = 'auto',
    weights: str | os.PathLike[str] | None = None,
    wanted: Sequence[str] = (),
    categories_of: Mapping[str, str] | None = None,
    tiles: int = 1,
) -> DetectorProposals:
    """Load a detector, as what proposes regions.

    Args:
        name: A detector of torchvision, or a model of this project by name or path.
        device: Where it runs.
        weights: File of a torchvision detector's weights; what `clipseg download` fetched where
            None.
        wanted: See :class:`~clipseg_model.zoom.detectors.DetectorProposals`.
        categories_of: See the same.
        tiles: Of a model: see :class:`~clipseg_model.zoom.model_detector.ModelDetector`.

    Raises:
        RegionError: There is no such detector, it has not one of the categories, or tiles are asked
            of a detector of torchvision.
        CheckpointError: Its weights are missing, damaged or do not fit.
    """
    if name in list_models() or name.endswith('.safetensors'):
        if weights is not None:
            raise RegionError(
                f'{name!r} is a model with weights of its own: name a detector of torchvision '
                'beside a file of weights'
            )
        model = ModelDetector(create_model(name, device), tiles=tiles)
        return DetectorProposals(model, None, wanted, categories_of=categories_of)
    if tiles != 1:
        raise RegionError(
            f'Tiles are of models as detectors; {name!r} is none, and sees the whole picture: set 1'
        )
    require('torchvision', name, 'torch')
    # torch and torchvision are imported where one of their detectors is asked for, and no sooner.
    from clipseg_model.zoom.torchvision_detectors import load_detector

    detector = load_detector(weights, name, device=str(resolve_device(device)))
    return DetectorProposals(detector, detector.categories, wanted, categories_of=categories_of)


def make_zoom(
    proposer: Proposer,
    architecture: str,
    combination: str | None = None,
    max_regions: int | None = None,
) -> Zoom:
    """Return zoom as the authors of an architecture have it, in all that is not given.

    For ``clsclip``, whose authors have regions from elsewhere than its own answer, that is ClsCLIP+
    (:meth:`Zoom.published`); for the others :class:`Zoom` itself.

    Raises:
        RegionError: A value is out of range.
    """
    published = architecture == 'clsclip' and not isinstance(proposer, CoarseProposals)
    zoom = Zoom.published(proposer) if published else Zoom(proposer)
    return Zoom(
        proposer,
        combination or zoom.combination,
        zoom.context,
        zoom.least_view,
        zoom.max_regions if max_regions is None else max_regions,
    )
