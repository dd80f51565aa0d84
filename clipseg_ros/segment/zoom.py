"""Zoom in the node: what its parameters and its model make of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clipseg_model.errors import PromptError
from clipseg_model.prompts import Prompt
from clipseg_model.settings import SegmentSettings
from clipseg_model.zoom.detectors import DetectorProposals
from clipseg_model.zoom.proposals import CoarseProposals
from clipseg_model.zoom_by_name import make_zoom, open_detector
from clipseg_ros.errors import ParameterError
from clipseg_ros.segment.loading import NodeSegmenter
from clipseg_ros.segment.parameters import Settings


class NodeZoom:
    """Says for a loaded model how images are answered, zoom included.

    Args:
        settings: The parameters that the node is configured with.
        segmenter: Its model; a detector runs on the same device.

    Raises:
        RegionError: There is no such detector.
        ClipsegError: Its weights are missing, damaged or do not fit, or ``zoom`` is not possible.
    """

    def __init__(self, settings: Settings, segmenter: NodeSegmenter) -> None:
        self._segmenter = segmenter
        self._detector: DetectorProposals | None = None
        if settings.zoom_detector is not None:
            self._detector = open_detector(
                settings.zoom_detector, segmenter.device, tiles=settings.zoom_tiles
            )
        self.segment_settings(settings)

    def segment_settings(self, settings: Settings) -> SegmentSettings:
        """Return how the segmenter answers a call, for the parameters of now.

        Raises:
            ParameterError: A detector is asked for, and none is loaded.
            ReuseError: Encodings are to be reused too.
        """
        plain = settings.segment_settings
        if settings.zoom == 'none':
            return plain
        if settings.zoom == 'self':
            proposer: CoarseProposals | DetectorProposals = CoarseProposals()
        elif self._detector is not None:
            proposer = self._detector
        else:
            raise ParameterError(
                'zoom detector needs a detector that was loaded with the model: set zoom_detector, '
                'such as tabletop or fasterrcnn_resnet50_fpn_v2, and configure the node again'
            )
        architecture = self._segmenter.card.architecture
        zoom = make_zoom(proposer, architecture, settings.zoom_combination, settings.zoom_regions)
        return replace(plain, zoom=zoom)

    def check(self, settings: Settings, prompts: Iterable[Prompt]) -> None:
        """Make sure that the model can do what parameters say, with these prompts.

        Raises:
            PromptError: There are negative prompts beside zoom.
            ClipsegError: As :meth:`segment_settings`, or the model cannot reuse encodings.
        """
        answer = self.segment_settings(settings)
        if answer.zoom is not None and any(prompt.negative for prompt in prompts):
            raise PromptError(
                'Negative prompts do not work with zoom: leave them out, or set zoom to none'
            )
        self._segmenter.check_settings(answer)
