"""Scenes of the simulated household for the demo, with prompts and their true masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tabletop_world.language.phrases import Phrase, absent, describe
from tabletop_world.language.truth import phrase_mask
from tabletop_world.render.live import LiveWorld
from tabletop_world.scenes.scene import Frame

PRESENT_KINDS = ('name', 'colour', 'affordance', 'relation')
"""One prompt of each kind is asked of a scene."""

MIN_SHARE, MAX_SHARE = 0.015, 0.5
"""Share of the picture that an object asked for takes."""


@dataclass(frozen=True)
class Question:
    """A prompt with the kind of its phrase, or ``absent``, and its truth, bool (H, W)."""

    text: str
    kind: str
    truth: NDArray[np.bool_]

    @property
    def absent(self) -> bool:
        """Whether nothing in the picture answers."""
        return self.kind == 'absent'


@dataclass(frozen=True)
class DemoScene:
    """A scene of the test split as the camera shows it, uint8 (H, W, 3), and its prompts."""

    seed: int
    rgb: NDArray[np.uint8]
    questions: tuple[Question, ...]


def make_scene(seed: int, width: int, height: int) -> DemoScene:
    """Render a scene of the test split, sizes in pixels, and choose what to ask about it.

    Raises:
        ValueError: The scene shows too little to ask about.
    """
    world = LiveWorld(seed=seed, width=width, height=height, motion='still', split='test')
    try:
        frame = world.frame(0.0)
    finally:
        world.close()
    return DemoScene(seed, frame.rgb, choose_questions(frame, seed))


def choose_questions(frame: Frame, seed: int) -> tuple[Question, ...]:
    """Choose prompts by rule, not by how well a model does on them; ``seed`` is of the wording.

    One phrase of each of :data:`PRESENT_KINDS` whose object takes a share between
    :data:`MIN_SHARE` and :data:`MAX_SHARE` of the picture. Objects not asked for yet come first,
    then short phrases. Other kinds replace those that the scene does not offer. The shortest name
    of something absent comes last.

    Raises:
        ValueError: The scene shows too little to ask about.
    """
    rng = np.random.default_rng(seed)
    truths = {phrase: phrase_mask(phrase, frame) for phrase in describe(frame, rng)}
    fitting = [p for p, truth in truths.items() if MIN_SHARE <= truth.mean() <= MAX_SHARE]
    chosen: list[Phrase] = []
    for kind in (*PRESENT_KINDS, None, None, None):
        if len(chosen) == len(PRESENT_KINDS):
            break
        asked = {phrase.object_ids for phrase in chosen}
        candidates = [p for p in fitting if p.kind == kind or (kind is None and p not in chosen)]
        candidates.sort(key=lambda phrase: (phrase.object_ids in asked, len(phrase.text)))
        chosen.extend(candidates[:1])
    if len(chosen) < len(PRESENT_KINDS):
        raise ValueError(
            f'scene {seed} offers {len(chosen)} prompt(s) of the {len(PRESENT_KINDS)} that are '
            'asked: choose another seed'
        )
    missing = min(
        (p for p in absent(frame, rng, 24) if p.kind == 'name'),
        key=lambda phrase: len(phrase.text),
        default=None,
    )
    if missing is None:
        raise ValueError(f'scene {seed} offers nothing absent to ask for: choose another seed')
    return (
        *(Question(p.text, p.kind, truths[p]) for p in chosen),
        Question(missing.text, 'absent', np.zeros(frame.instances.shape, dtype=np.bool_)),
    )
