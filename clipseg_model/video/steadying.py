"""What a stream of frames allows and a single one does not: smoothing and hysteresis, in one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipseg_model.segmentation import Segmentation
from clipseg_model.video.presence import PresenceGate
from clipseg_model.video.smoothing import TemporalSmoother


@dataclass(frozen=True)
class Steadying:
    """How a stream is made steady.

    Attributes:
        smoothing: Time constant, seconds; 0 is off.
        smoothing_reset: Change of the picture above which averages begin anew, 0…1.
        presence_threshold: Score from which on a prompt is present; the model's where None.
        presence_hysteresis: How far below that the score of what is present may fall.
        min_area: Least area of a mask, pixels; less is absent.
    """

    smoothing: float = 0.0
    smoothing_reset: float = 0.06
    presence_threshold: float | None = None
    presence_hysteresis: float = 0.05
    min_area: int = 0


class Steadier:
    """Makes what is found in the frames of one camera steady. Keep one for each camera."""

    def __init__(self) -> None:
        self.smoother = TemporalSmoother()
        self.gate = PresenceGate()

    def forget(self) -> None:
        """Start anew, as after a change of the model or of how prompts are read."""
        self.smoother.forget()
        self.gate.forget()

    def apply(
        self,
        found: Segmentation,
        stamp: float,
        image: NDArray[np.uint8],
        how: Steadying,
        model_presence: float,
    ) -> Segmentation:
        """Smooth, then decide on presence; ``model_presence`` is the threshold of the model's card.

        ``stamp`` is in seconds, and ``image`` the frame, (H, W, 3) uint8 RGB.
        """
        found = self.smoother.smooth(found, stamp, image, how.smoothing, how.smoothing_reset)
        threshold = model_presence if how.presence_threshold is None else how.presence_threshold
        return self.gate.decide(found, stamp, threshold, how.presence_hysteresis, how.min_area)
