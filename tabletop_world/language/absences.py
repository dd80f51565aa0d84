"""Phrases that are true of nothing in view. :mod:`tabletop_world.language.phrases` offers them."""

from __future__ import annotations

import numpy as np

from tabletop_world.catalogue.categories import CATEGORIES, COLOURS, PATTERNS
from tabletop_world.language.affordances import AFFORDANCES
from tabletop_world.language.queries import Affords, InState, Items, Query, bits_to_ids
from tabletop_world.language.relations import HOLDING, IN, ON, SPATIAL, UNDER, Relation
from tabletop_world.language.speaker import Speaker
from tabletop_world.language.vocabulary import HYPERNYMS, SURFACES, Name
from tabletop_world.language.wording import (
    COLOUR_MODIFIERS,
    MATERIAL_MODIFIERS,
    PATTERN_MODIFIERS,
    STATE_MODIFIERS,
    Noun,
    Phrase,
    Structure,
    noun_of,
    structure_of,
    word_affordance,
    word_noun,
)
from tabletop_world.scenes.scene import Frame


def _plausible_relations(subject: str, reference: str) -> tuple[Relation, ...]:
    """Return the relations that things of two categories could stand in."""
    found: list[Relation] = []
    if reference in SURFACES or CATEGORIES[reference].support:
        found.append(ON)
    if reference not in SURFACES:
        found.extend(SPATIAL)
        if CATEGORIES[reference].container:
            found.extend([IN] * 2)
        if CATEGORIES[subject].support:
            found.extend([UNDER] * 2)
        if CATEGORIES[subject].container:
            found.extend([HOLDING] * 2)
    return tuple(found)


class _Negative(Speaker):
    """Draws phrases that are true of nothing in view."""

    def __init__(self, frame: Frame, rng: np.random.Generator) -> None:
        super().__init__(frame, rng)
        self.categories = tuple(CATEGORIES)
        self.colours = tuple(COLOURS)

    def holds_nowhere(self, query: Query) -> bool:
        """Return whether no visible object answers, not even doubtfully."""
        answer = self.view.ask(query)
        return not answer.yes and not answer.maybe

    def _noun_phrase(self, noun: Noun, kind: str | None = None) -> Phrase | None:
        if not self.holds_nowhere(noun.query):
            return None
        count = 2 if self.draw.random() < 0.3 else 1
        text = word_noun(noun, self.draw, count)
        return Phrase(text, kind or noun.kind, frozenset(), structure_of(noun))

    def swap_colour(self) -> Phrase | None:
        """Draw something that is in view, in a colour in which it is not."""
        if not self.shown:
            return None
        name = self.name(self.draw.choice(self.shown).category)
        colour = self.draw.choice(self.colours)
        if not self.allowed(colour, name):
            return None
        return self._noun_phrase(noun_of(name, [COLOUR_MODIFIERS[colour]]))

    def other_name(self) -> Phrase | None:
        """Draw a category that is not in view, or a family."""
        if self.draw.random() < 0.12:
            return self._noun_phrase(noun_of(self.draw.choice(HYPERNYMS)))
        return self._noun_phrase(noun_of(self.name(self.draw.choice(self.categories))))

    def other_colour(self) -> Phrase | None:
        """Draw a colour with a category that is not in view, or a colour that nothing has."""
        colour = self.draw.choice(self.colours)
        name = self.name(self.draw.choice(self.categories)) if self.draw.random() < 0.7 else None
        if name is None and self.draw.random() < 0.3:
            name = self.draw.choice(HYPERNYMS)
        if not self.allowed(colour, name):
            return None
        return self._noun_phrase(noun_of(name, [COLOUR_MODIFIERS[colour]]))

    def other_attribute(self) -> Phrase | None:
        """Draw a pattern, material or state that the thing does not have."""
        present = self.shown and self.draw.random() < 0.7
        category = self.draw.choice(self.shown_categories if present else self.categories)
        options = [
            PATTERN_MODIFIERS[key]
            for key in PATTERNS
            if key in PATTERN_MODIFIERS and key in CATEGORIES[category].patterns
        ]
        options.extend(STATE_MODIFIERS.get(category, {}).values())
        if 'glass' not in category:
            usual = [m for m in CATEGORIES[category].materials if m in MATERIAL_MODIFIERS]
            any_one = self.draw.random() < 0.3 or not usual
            material = self.draw.choice(tuple(MATERIAL_MODIFIERS) if any_one else usual)
            options.append(MATERIAL_MODIFIERS[material])
        if not options:
            return None
        chosen = self.draw.choice(options)
        name: Name | None = self.name(category)
        if not isinstance(chosen.query, InState) and self.draw.random() < 0.2:
            name = None
        return self._noun_phrase(noun_of(name, [chosen]))

    def other_affordance(self) -> Phrase | None:
        """Draw a purpose that nothing in view serves."""
        affordance = self.draw.choice(AFFORDANCES)
        if not self.holds_nowhere(Affords(affordance)):
            return None
        text = word_affordance(affordance, self.draw)
        return Phrase(text, 'affordance', frozenset(), Structure(text))

    def other_relation(self) -> Phrase | None:
        """Draw a relation that does not hold: of things in view, or of something that is not."""
        if not self.shown:
            return None
        subject_category = self.draw.choice(self.shown).category
        reference_category = self.draw.choice(self.shown).category
        luck = self.draw.random()
        if luck < 0.2:
            subject_category = self.draw.choice(self.categories)
        elif luck < 0.4:
            reference_category = self.draw.choice(self.categories)
        elif luck < 0.5:
            reference_category = self.draw.choice(SURFACES[:2])
        options = _plausible_relations(subject_category, reference_category)
        if not options or subject_category == reference_category:
            return None
        subject, reference = self._some(subject_category), self._some(reference_category)
        if self.draw.random() < 0.15:
            subject = Noun(None, (), Items())
        query, wording = self.relate(subject, self.draw.choice(options), reference)
        if not self.holds_nowhere(query):
            return None
        return Phrase(wording(1), 'relation', frozenset(), structure_of(subject))

    def _some(self, category: str) -> Noun:
        """Return a name of a category, with the colour of one in view half of the time."""
        bits = self.view.by_category.get(category, 0) & self.view.visible
        if not bits:
            return noun_of(self.name(category))
        return self.reference(self.view.objects[self.draw.choice(bits_to_ids(bits))])

    def other_surface(self) -> Phrase | None:
        """Draw a surface that is out of view."""
        noun = noun_of(self.name(self.draw.choice(SURFACES)))
        return self._noun_phrase(noun, 'surface')


def absent(frame: Frame, rng: np.random.Generator, count: int) -> list[Phrase]:
    """Return phrases that are true of nothing visible in a frame.

    They are drawn like true ones: about a third give a thing in view another colour; the others
    name things, attributes, purposes, relations and surfaces that are not there. None is
    doubtful, and none says a held-out pair outside the split ``unseen_pairs``.

    Args:
        frame: The frame.
        rng: Source of the variation; the same state gives the same phrases.
        count: How many phrases.

    Returns:
        ``count`` phrases without object ids, no text twice.

    Raises:
        ValueError: If ``count`` is negative, or if so many phrases were not found.
    """
    if count < 0:
        raise ValueError(f'count must be 0 or more, got {count}')
    speaker = _Negative(frame, rng)
    makers = (
        (0.34, speaker.swap_colour),
        (0.22, speaker.other_name),
        (0.08, speaker.other_colour),
        (0.11, speaker.other_attribute),
        (0.13, speaker.other_affordance),
        (0.10, speaker.other_relation),
        (0.02, speaker.other_surface),
    )
    weights = [weight for weight, _ in makers]
    found: dict[str, Phrase] = {}
    chosen = speaker.draw.choices(makers, weights, k=count)
    for _, maker in chosen:
        for _ in range(12):
            phrase = maker()
            if phrase is not None and phrase.text not in found:
                found[phrase.text] = phrase
                break
    for _ in range(60 * count + 200):
        if len(found) >= count:
            break
        phrase = speaker.other_name() or speaker.swap_colour()
        if phrase is not None and phrase.text not in found:
            found[phrase.text] = phrase
    if len(found) < count:
        raise ValueError(
            f'found only {len(found)} of {count} absent phrases for scene '
            f'{frame.scene.split}/{frame.scene.seed}; ask for fewer'
        )
    return list(found.values())
