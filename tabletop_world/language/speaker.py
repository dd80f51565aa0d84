"""What true and absent phrases share: how a view's things are spoken of."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from tabletop_world.catalogue.categories import HELD_OUT_PAIRS
from tabletop_world.language.queries import Items, Query, SceneView, all_of, bits_to_ids, view_of
from tabletop_world.language.relations import Related, Relation
from tabletop_world.language.vocabulary import Name, names_of
from tabletop_world.language.wording import (
    COLOUR_MODIFIERS,
    MATERIAL_MODIFIERS,
    PATTERN_MODIFIERS,
    SIZE_MODIFIERS,
    STATE_MODIFIERS,
    Modifier,
    Noun,
    is_uncountable,
    noun_of,
    with_article,
    word_noun,
)
from tabletop_world.scenes.scene import Frame, SceneObject


class Speaker:
    """Draws phrases about one view; shared by true and absent phrases."""

    def __init__(self, frame: Frame, rng: np.random.Generator) -> None:
        self.view: SceneView = view_of(frame)
        self.draw = random.Random(int(rng.integers(1 << 62)))
        self.held_out = frozenset() if frame.scene.split == 'unseen_pairs' else HELD_OUT_PAIRS
        self.shown = [
            self.view.objects[i] for i in bits_to_ids(self.view.items & self.view.visible)
        ]
        self.shown_categories = sorted({thing.category for thing in self.shown})

    def name(self, category: str) -> Name:
        """Draw a name of a category, its plainest one half of the time."""
        names = names_of(category)
        return names[0] if self.draw.random() < 0.5 else self.draw.choice(names)

    def allowed(self, colour: str, name: Name | None) -> bool:
        """Return whether a colour and a name may be said together in this split."""
        if name is None:
            return True
        if name.singular.endswith('orange') or (colour in name.singular.split()):
            return False
        covered = name.categories | name.doubtful
        if name.hypernym and len(covered) > 2:
            return True
        return not any((colour, category) in self.held_out for category in covered)

    def coloured(self, thing: SceneObject, name: Name) -> Noun | None:
        """Return the colour and name of a thing, or None if they may not be said."""
        if not thing.colour or not self.allowed(thing.colour, name):
            return None
        return noun_of(name, [COLOUR_MODIFIERS[thing.colour]])

    def attributes(self, thing: SceneObject) -> list[Modifier]:
        """Return the attributes of a thing that can be said."""
        found: list[Modifier] = []
        if thing.size in SIZE_MODIFIERS:
            found.append(SIZE_MODIFIERS[thing.size])
        if thing.pattern in PATTERN_MODIFIERS:
            found.extend([PATTERN_MODIFIERS[thing.pattern]] * 2)
        if thing.material in MATERIAL_MODIFIERS and 'glass' not in thing.category:
            found.append(MATERIAL_MODIFIERS[thing.material])
        states = STATE_MODIFIERS.get(thing.category, {})
        found.extend(states[state] for state in sorted(thing.states & states.keys()))
        return found

    def reference(self, thing: SceneObject) -> Noun:
        """Return a way to refer to a thing: its name, with its colour half of the time."""
        name = self.name(thing.category)
        if self.draw.random() < 0.5 and not thing.surface:
            noun = self.coloured(thing, name)
            if noun is not None:
                return noun
        return noun_of(name)

    def subject(self, thing: SceneObject) -> Noun:
        """Return a way to speak of a thing: as a reference, or as just a thing."""
        if self.draw.random() < 0.2:
            return Noun(None, (), Items())
        return self.reference(thing)

    def relate(
        self, subject: Noun, relation: Relation, reference: Noun
    ) -> tuple[Query, Callable[[int], str]]:
        """Return question and wording of a relation."""
        query = all_of([subject.query, Related(relation, reference.query)])
        words = relation.words
        said = words[0] if self.draw.random() < 0.4 else self.draw.choice(words)

        def wording(count: int) -> str:
            if subject.name is None and self.draw.random() < 0.3:
                first = self.draw.choice(('everything', 'anything', 'something'))
            else:
                first = word_noun(subject, self.draw, count)
            if '{}' in said:
                text = word_noun(reference, self.draw, 1, definite=True)
                if text.startswith('the ') and not is_uncountable(reference):
                    text = with_article(text[4:])
                return f'{first} {said.format(text)}'
            return f'{first} {said} {word_noun(reference, self.draw, 1, definite=True)}'

        return query, wording
