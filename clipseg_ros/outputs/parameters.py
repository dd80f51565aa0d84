"""The parameters of what the node ``segment`` publishes."""

from __future__ import annotations

from dataclasses import dataclass

from clipseg_ros.ros.parameters import parameter


@dataclass(frozen=True)
class OutputSettings:
    """How outputs are made, as their parameters say."""

    jpeg_quality: int = parameter(
        80, 'Quality of the JPEG on ~/overlay/compressed.', low=1, high=100
    )
