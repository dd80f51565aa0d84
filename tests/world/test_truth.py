from __future__ import annotations

import numpy as np
from hand_made import frame_of, thing

from tabletop_world.language.phrases import Phrase, absent, describe
from tabletop_world.language.truth import phrase_mask


def test_the_mask_is_where_the_objects_show() -> None:
    frame = frame_of(
        thing(10, 'mug', (10, 40, 30, 60)),
        thing(11, 'bowl', (20, 50, 60, 90)),
        thing(254, 'mug', (100, 40, 120, 60)),
    )
    mask = phrase_mask(Phrase('the mug', 'name', frozenset({10, 254})), frame)
    assert mask.dtype == np.bool_
    assert mask.shape == frame.instances.shape
    assert mask[45, 15]
    assert mask[45, 110]
    # The bowl stands in front of the mug here.
    assert not mask[55, 25]
    assert mask.sum() == 20 * 20 - 10 * 10 + 20 * 20


def test_masks_of_described_and_absent_phrases() -> None:
    frame = frame_of(thing(10, 'mug', (10, 40, 30, 60)), thing(11, 'bowl', (50, 50, 90, 90)))
    rng = np.random.default_rng(0)
    for phrase in describe(frame, rng):
        expected = np.isin(frame.instances, sorted(phrase.object_ids))
        assert np.array_equal(phrase_mask(phrase, frame), expected)
        assert expected.any()
    for phrase in absent(frame, rng, 20):
        assert not phrase_mask(phrase, frame).any()
