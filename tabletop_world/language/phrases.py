"""Phrases about a frame: true ones with all that they are true of, and absent ones.

The kinds are those of PhraseCut (a name; a colour or another attribute and a name; a relation to
something else) plus affordances ("something to drink from") and the surfaces of the room. Every
phrase is worded from a :class:`~tabletop_world.language.queries.Query`; its truth is that query's
answer, for true phrases and absent ones alike, and it is offered only where no visible object is
doubtful.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tabletop_world.catalogue.categories import HELD_OUT_PAIRS
from tabletop_world.language.absences import absent
from tabletop_world.language.affordances import AFFORDANCES, Affordance
from tabletop_world.language.queries import Affords, Named, Query, bits_to_ids
from tabletop_world.language.relations import CONTACT, IN, ON, SPATIAL, Relation, extreme
from tabletop_world.language.speaker import Speaker
from tabletop_world.language.vocabulary import HYPERNYMS, SIZE_WORDS, SURFACES, Name, names_of
from tabletop_world.language.wording import (
    COLOUR_MODIFIERS,
    EXTREMES,
    KINDS,
    Noun,
    Phrase,
    Structure,
    grammar_words,
    noun_of,
    structure_of,
    word_affordance,
    word_noun,
)
from tabletop_world.scenes.scene import Frame

__all__ = [
    'KINDS',
    'Phrase',
    'Structure',
    'absent',
    'describe',
    'describe_unseen_pairs',
    'grammar_words',
]


class _Positive(Speaker):
    """Collects true phrases."""

    def __init__(self, frame: Frame, rng: np.random.Generator, min_fraction: float) -> None:
        super().__init__(frame, rng)
        self.min_pixels = max(1.0, min_fraction * self.view.area)
        self.phrases: dict[str, Phrase] = {}

    def offer(
        self, query: Query, kind: str, wording: Callable[[int], str], structure: Structure
    ) -> bool:
        """Add a phrase if it is certain and large enough; return whether it is."""
        answer = self.view.ask(query)
        if answer.maybe or not answer.yes:
            return False
        if self.view.pixels_of(answer.yes) < self.min_pixels:
            return False
        self.add(answer.yes, kind, wording(answer.yes.bit_count()), structure)
        return True

    def add(self, bits: int, kind: str, text: str, structure: Structure) -> None:
        """Add a phrase that is known to be true of these objects."""
        ids = frozenset(bits_to_ids(bits))
        known = self.phrases.get(text)
        if known is not None and known.object_ids != ids:
            raise RuntimeError(
                f'{text!r} was said of objects {sorted(known.object_ids)} and of {sorted(ids)}; '
                'two entries of the vocabulary share this wording'
            )
        self.phrases[text] = Phrase(text, kind, ids, structure)

    def offer_noun(self, noun: Noun, kind: str | None = None) -> bool:
        """Add a noun with its modifiers."""
        return self.offer(
            noun.query,
            kind or noun.kind,
            lambda count: word_noun(noun, self.draw, count),
            structure_of(noun),
        )

    def say_names(self) -> None:
        """Add the names of all categories in view, and of some of their families."""
        for category in self.shown_categories:
            self.offer_noun(noun_of(self.name(category)))
            if self.draw.random() < 0.4:
                self.offer_noun(noun_of(self.draw.choice(names_of(category))))
        said = 0
        for name in self.draw.sample(HYPERNYMS, len(HYPERNYMS)):
            said += self.offer_noun(noun_of(name))
            if said == 3:
                break

    def say_colours(self) -> None:
        """Add colour and name of the things in view, colours alone, and colours of families."""
        for thing in self.draw.sample(self.shown, min(len(self.shown), 12)):
            noun = self.coloured(thing, self.name(thing.category))
            if noun is not None:
                self.offer_noun(noun)
        colours = sorted({thing.colour for thing in self.shown if thing.colour})
        said = 0
        for colour in self.draw.sample(colours, len(colours)):
            said += self.offer_noun(noun_of(None, [COLOUR_MODIFIERS[colour]]))
            if said == 2:
                break
        for _ in range(2):
            if colours:
                name, colour = self.draw.choice(HYPERNYMS), self.draw.choice(colours)
                if self.allowed(colour, name):
                    self.offer_noun(noun_of(name, [COLOUR_MODIFIERS[colour]]))

    def say_attributes(self) -> None:
        """Add size, pattern, material and state, with a name or alone, and the largest thing."""
        for thing in self.draw.sample(self.shown, min(len(self.shown), 8)):
            options = self.attributes(thing)
            if not options:
                continue
            chosen = self.draw.choice(options)
            name: Name | None = self.name(thing.category)
            stateful = chosen.label in thing.states or chosen.label in SIZE_WORDS
            if not stateful and self.draw.random() < 0.25:
                name = None
            modifiers = [chosen]
            tinted = name is not None and thing.colour and self.allowed(thing.colour, name)
            if tinted and self.draw.random() < 0.25:
                modifiers.append(COLOUR_MODIFIERS[thing.colour])
            self.offer_noun(noun_of(name, modifiers))
        several = [
            category
            for category in self.shown_categories
            if (self.view.by_category[category] & self.view.visible).bit_count() > 1
        ]
        for category in self.draw.sample(several, min(len(several), 2)):
            self._say_extreme(category)

    def _say_extreme(self, category: str) -> None:
        name = self.name(category)
        key = self.draw.choice(tuple(EXTREMES))
        answer = self.view.ask(Named(name))
        if answer.maybe or self.view.pixels_of(answer.yes) < self.min_pixels:
            return
        winner = extreme(self.view, answer.yes, key)
        if winner and self.view.pixels_of(winner) >= self.min_pixels:
            word = self.draw.choice(EXTREMES[key])
            text = f'{word} {name.singular}'
            if self.draw.random() < 0.6:
                text = f'the {text}'
            self.add(winner, 'attribute', text, Structure(name.singular, (word,)))

    def say_relations(self) -> None:
        """Add what rests on, in or under what, and what is left of, behind or beside what."""
        carried = [t for t in self.shown if t.support in self.view.objects]
        for thing in self.draw.sample(carried, min(len(carried), 5)):
            support = self.view.objects[thing.support]
            for relation in self.draw.sample(CONTACT, 2):
                below, above = (thing, support) if relation in (ON, IN) else (support, thing)
                if not below.surface:
                    self._say_relation(self.subject(below), relation, self.reference(above))
        said = 0
        for _ in range(10):
            if len(self.shown) < 2 or said == 4:
                break
            first, second = self.draw.sample(self.shown, 2)
            noun, relation = self.subject(first), self.draw.choice(SPATIAL)
            said += self._say_relation(noun, relation, self.reference(second))

    def _say_relation(self, subject: Noun, relation: Relation, reference: Noun) -> bool:
        query, wording = self.relate(subject, relation, reference)
        return self.offer(query, 'relation', wording, structure_of(subject))

    def say_affordances(self) -> None:
        """Add what the things in view are good for."""
        said = 0
        for affordance in self.draw.sample(AFFORDANCES, len(AFFORDANCES)):
            said += self._say_affordance(affordance)
            if said == 8:
                break
        if self.draw.random() < 0.5:
            self._say_affordance(AFFORDANCES[0])

    def _say_affordance(self, affordance: Affordance) -> bool:
        text = word_affordance(affordance, self.draw)
        return self.offer(Affords(affordance), 'affordance', lambda _: text, Structure(text))

    def say_surfaces(self) -> None:
        """Add table top, floor and wall."""
        for surface in SURFACES:
            bits = self.view.by_category.get(surface, 0) & self.view.visible
            if not bits:
                continue
            self.offer_noun(noun_of(self.name(surface)), 'surface')
            thing = self.view.objects[bits_to_ids(bits)[0]]
            if thing.colour and self.draw.random() < 0.4:
                name = names_of(surface)[0]
                self.offer_noun(noun_of(name, [COLOUR_MODIFIERS[thing.colour]]), 'surface')


def describe(
    frame: Frame, rng: np.random.Generator, *, min_fraction: float = 0.003
) -> list[Phrase]:
    """Return true phrases about a frame, of all kinds, in varied wording and random order.

    A phrase is left out where its truth is doubtful, and where all that it is true of is visible
    on less than ``min_fraction`` of the picture. Pairs in
    :data:`tabletop_world.catalogue.categories.HELD_OUT_PAIRS` are said in the split
    ``unseen_pairs`` alone.

    Args:
        frame: The frame.
        rng: Source of the variation; the same state gives the same phrases.
        min_fraction: Least visible share of the picture, 0…1.

    Returns:
        Some 20 to 50 phrases for a scene of ten things, no text twice.

    Raises:
        ValueError: If the frame's instance map does not belong to its scene.
    """
    speaker = _Positive(frame, rng, min_fraction)
    speaker.say_names()
    speaker.say_colours()
    speaker.say_attributes()
    speaker.say_relations()
    speaker.say_affordances()
    speaker.say_surfaces()
    phrases = list(speaker.phrases.values())
    speaker.draw.shuffle(phrases)
    return phrases


def describe_unseen_pairs(
    frame: Frame, rng: np.random.Generator, *, min_fraction: float = 0.003
) -> list[Phrase]:
    """Return a "colour + name" phrase for each held-out pair that a frame shows.

    Args:
        frame: A frame of the split ``unseen_pairs``.
        rng: Source of the variation.
        min_fraction: Least visible share of the picture, 0…1.

    Raises:
        ValueError: If the frame is of another split, where held-out pairs are never said.
    """
    if frame.scene.split != 'unseen_pairs':
        raise ValueError(
            f"describe_unseen_pairs() needs a frame of the split 'unseen_pairs', not "
            f'{frame.scene.split!r}: held-out pairs are never said elsewhere'
        )
    speaker = _Positive(frame, rng, min_fraction)
    for colour, category in sorted({(t.colour, t.category) for t in speaker.shown}):
        if (colour, category) in HELD_OUT_PAIRS:
            name = speaker.name(category)
            if name.categories == {category} and speaker.allowed(colour, name):
                speaker.offer_noun(noun_of(name, [COLOUR_MODIFIERS[colour]]))
    return list(speaker.phrases.values())
