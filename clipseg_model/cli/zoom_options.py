"""Options of ``clipseg segment`` that say where to look closely."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipseg_model.errors import RegionError

if TYPE_CHECKING:
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
        Path | None, _option("File of a torchvision detector's weights, for --zoom detector.")
    ] = None
    zoom_detector: Annotated[
        str | None, _option("The detector's name in torchvision; fasterrcnn_resnet50_fpn_v2.")
    ] = None
    zoom_category: Annotated[
        list[str] | None, _option('Look only at detections of this category (of COCO). Repeatable.')
    ] = None
    zoom_combine: Annotated[
        str | None,
        _option('How close looks and the whole image are joined: mean, replace, max or or; mean.'),
    ] = None
    zoom_regions: Annotated[int | None, _option('Most close looks at an image; 8.')] = None

    def refiner(self, device: str) -> Zoom | None:
        """Return what looks closely, None where nothing shall; a detector runs on the device."""
        from clipseg_model.zoom.refinement import Zoom

        self._check_owners()
        if self.zoom is None:
            return None
        given = {'combination': self.zoom_combine, 'max_regions': self.zoom_regions}
        settings: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
        return Zoom(self._proposer(device), **settings)

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
        from clipseg_model.runtime.devices import resolve_device
        from clipseg_model.zoom.detectors import DEFAULT_DETECTOR, DetectorProposals, load_detector
        from clipseg_model.zoom.proposals import CoarseProposals, GivenBoxes

        if self.zoom is ZoomKind.self_:
            return CoarseProposals()
        if self.zoom is ZoomKind.boxes:
            if not self.zoom_box:
                raise RegionError('--zoom boxes needs a --zoom-box X,Y,WIDTH,HEIGHT, or several')
            return GivenBoxes([text.split(',') for text in self.zoom_box])
        if self.zoom_weights is None:
            raise RegionError(
                "--zoom detector needs --zoom-weights, the file of a torchvision detector's "
                'weights: nothing is downloaded; --zoom self needs no detector'
            )
        detector, categories = load_detector(
            self.zoom_weights, self.zoom_detector or DEFAULT_DETECTOR, device=resolve_device(device)
        )
        return DetectorProposals(detector, categories, self.zoom_category or [])
