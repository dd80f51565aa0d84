"""The exact mask of a phrase in a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tabletop_world.language.phrases import Phrase
from tabletop_world.scenes.scene import Frame


def phrase_mask(phrase: Phrase, frame: Frame) -> NDArray[np.bool_]:
    """Return where a phrase is true.

    Args:
        phrase: A phrase made for this frame, or for the same scene.
        frame: The frame.

    Returns:
        Boolean mask of shape (height, width); all False for an absent phrase.
    """
    lookup = np.zeros(256, dtype=np.bool_)
    lookup[list(phrase.object_ids)] = True
    mask: NDArray[np.bool_] = lookup[frame.instances]
    return mask
