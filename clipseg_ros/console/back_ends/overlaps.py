"""Which prompt has the pixels that several masks have. No ROS in here.

``~/segment_once`` answers with the own mask of each prompt, and says no probabilities. But it takes
negative prompts: with one threshold for all, a negative prompt takes a pixel from another exactly
where it is the surer of the two. So the prompts that overlap are numbered from 0, and for each bit
of these numbers the node is asked for those that have it, the others being negative: where any mask
is on, the number of the surest prompt has that bit. Two prompts take one further question, 254 take
eight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ClipsegError

Mask = NDArray[np.bool_]
Ask = Callable[[Collection[str], Collection[str]], Mask]
"""Returns where any of some prompts is on (H, W), while others are negative, all by their keys."""


def surest(masks: Mapping[str, Mask], ask: Ask) -> NDArray[np.uint8]:
    """Return which prompt has each pixel: its place among the masks from 1, or 0 (H, W).

    Args:
        masks: At least one, of at most 254 prompts, those of higher scores later: they win where
            the questions do not tell.
        ask: May raise a ClipsegError: then the scores decide.
    """
    first = next(iter(masks.values()))
    places: NDArray[np.uint8] = np.zeros(first.shape, np.uint8)
    count = np.zeros(first.shape, np.uint8)
    for place, mask in enumerate(masks.values(), start=1):
        places[mask] = place
        count += mask
    several = count > 1
    keys = [key for key, mask in masks.items() if (mask & several).any()]
    numbers = np.zeros(first.shape, np.uint8)
    try:
        for bit in range((len(keys) - 1).bit_length() if keys else 0):
            having = [key for number, key in enumerate(keys) if number >> bit & 1]
            others = [key for key in keys if key not in having]
            numbers |= ask(having, others).astype(np.uint8) << np.uint8(bit)
    except ClipsegError:
        return places
    for place, (key, mask) in enumerate(masks.items(), start=1):
        if key in keys:
            # Not where its own mask is off: its threshold may be higher than that of the others.
            places[several & mask & (numbers == keys.index(key))] = place
    return places
