"""Options of ``clipseg segment`` that say where to look closely."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipseg_model.errors import RegionError

if TYPE_CHECKING:
    from clipseg_model.segmenter import Segmenter
    from clipseg_model.zoom.proposals import Proposer
    from clipseg_model.zoom.refinement import Zoom


def _option(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel='Zoom', **more)


class ZoomKind(str, Enum):
    """Who says where to zoom in."""

    self_ = 'self'
    boxes = 'boxes'
    detector = 'detector'


@dataclass(frozen=True)
class ZoomOptions:
    """Where to look closely."""

    zoom: Annotated[
        ZoomKind | None,
        _option(
            'Look closely at parts of each image: those that the model itself proposes, '
            'boxes that you give, or what a detector finds.'
        ),
    ] = None
    zoom_box: Annotated[
        list[str] | None,
        _option('A box in pixels, for --zoom boxes. Repeatable.', metavar='X,Y,WIDTH,HEIGHT'),
    ] = None
    zoom_weights: Annotated[
        Path | None,
        _option(
            "File of a torchvision detector's weights, for --zoom detector; what `clipseg "
            'download NAME` fetched.'
        ),
    ] = None
    zoom_detector: Annotated[
        str | None,
        _option(
            "The detector's name in torchvision; fasterrcnn_resnet50_fpn_v2. Or the name or path "
            'of a model, whose answers to the names are then the detections.'
        ),
    ] = None
    zoom_category: Annotated[
        list[str] | None,
        _option(
            'Look only at detections of this category; or PROMPT=CATEGORY: what the detector '
            'calls a prompt. Repeatable.'
        ),
    ] = None
    zoom_combine: Annotated[
        str | None,
        _option(
            'How close looks and the whole image are joined: mean, replace, max, or, regions; '
            'mean, and regions for ClsCLIP with boxes or a detector (ClsCLIP+).'
        ),
    ] = None
    zoom_regions: Annotated[
        int | None, _option('Most close looks at an image; 8, and 100 for ClsCLIP+.')
    ] = None

    def refiner(self, device: str) -> Zoom | None:
        """Return what looks closely, None where nothing shall; a detector runs on the device."""
        from clipseg_model.zoom.refinement import Zoom

        self._check_owners()
        if self.zoom is None:
            return None
        return dataclasses.replace(Zoom(self._proposer(device)), **self._given())

    def fit(self, segmenter: Segmenter) -> None:
        """Zoom as the authors of a model do, in all that no option says: for ClsCLIP, ClsCLIP+."""
        from clipseg_model.zoom.refinement import Zoom

        zoom = segmenter.zoom
        if not isinstance(zoom, Zoom) or self.zoom is ZoomKind.self_:
            return
        if segmenter.card.architecture == 'clsclip':
            segmenter.zoom = dataclasses.replace(Zoom.published(zoom.proposer), **self._given())

    def _given(self) -> dict[str, Any]:
        given = {'combination': self.zoom_combine, 'max_regions': self.zoom_regions}
        return {name: value for name, value in given.items() if value is not None}

    def _check_owners(self) -> None:
        """Refuse options that do nothing with this kind of zoom, or without zoom."""
        owners = {
            'zoom_box': ZoomKind.boxes,
            'zoom_weights': ZoomKind.detector,
            'zoom_detector': ZoomKind.detector,
            'zoom_category': ZoomKind.detector,
        }
        for name, value in vars(self).items():
            if value is None or name == 'zoom':
                continue
            if self.zoom is None or owners.get(name, self.zoom) is not self.zoom:
                kinds = [owners[name]] if name in owners else list(ZoomKind)
                raise RegionError(
                    f'--{name.replace("_", "-")} belongs to --zoom '
                    f'{" or ".join(kind.value for kind in kinds)}: give that, or leave it out'
                )

    def _proposer(self, device: str) -> Proposer:
        from clipseg_model.zoom.proposals import CoarseProposals, GivenBoxes

        if self.zoom is ZoomKind.self_:
            return CoarseProposals()
        if self.zoom is ZoomKind.boxes:
            if not self.zoom_box:
                raise RegionError('--zoom boxes needs a --zoom-box X,Y,WIDTH,HEIGHT, or several')
            return GivenBoxes([text.split(',') for text in self.zoom_box])
        return self._detector(device)

    def _detector(self, device: str) -> Proposer:
        from clipseg_model.registry import create_model, list_models
        from clipseg_model.runtime.devices import resolve_device
        from clipseg_model.zoom.detectors import DetectorProposals
        from clipseg_model.zoom.model_detector import ModelDetector
        from clipseg_model.zoom.torchvision_detectors import DEFAULT_DETECTOR, load_detector

        given = [text.partition('=') for text in self.zoom_category or []]
        wanted = [name for name, equals, _ in given if not equals]
        categories_of = {prompt: name for prompt, equals, name in given if equals}
        name = self.zoom_detector or DEFAULT_DETECTOR
        if name in list_models() or name.endswith('.safetensors'):
            if self.zoom_weights is not None:
                raise RegionError('--zoom-weights are of a torchvision detector: leave it out')
            model = ModelDetector(create_model(name, device))
            return DetectorProposals(model, None, wanted, categories_of=categories_of)
        detector = load_detector(self.zoom_weights, name, device=str(resolve_device(device)))
        known = detector.categories
        return DetectorProposals(detector, known, wanted, categories_of=categories_of)
