"""Phrases about a frame: true ones with all that they are true of, and absent ones.

The kinds are those of PhraseCut (a name; a colour or another attribute and a name; a relation to
something else) plus affordances ("something to drink from") and the surfaces of the room. Every
phrase is worded from a :class:`~tabletop_world.queries.Query`; its truth is that query's answer,
for true phrases and absent ones alike, and it is offered only where no visible object is doubtful.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tabletop_world.affordances import AFFORDANCES, Affordance
from tabletop_world.catalogue import CATEGORIES, COLOURS, HELD_OUT_PAIRS, PATTERNS
from tabletop_world.queries import (
    Affords,
    Anything,
    Coloured,
    InState,
    Items,
    MadeOf,
    Named,
    Patterned,
    Query,
    SceneView,
    Sized,
    all_of,
    bits_to_ids,
    view_of,
)
from tabletop_world.relations import (
    CONTACT,
    HOLDING,
    IN,
    ON,
    RELATIONS,
    SPATIAL,
    UNDER,
    Related,
    Relation,
    extreme,
)
from tabletop_world.scene import Frame, SceneObject
from tabletop_world.vocabulary import (
    COLOUR_WORDS,
    HYPERNYMS,
    MATERIAL_WORDS,
    PATTERN_WORDS,
    SIZE_WORDS,
    STATE_WORDS,
    SURFACES,
    Name,
    Wording,
    all_names,
    names_of,
)

KINDS = ('name', 'colour', 'attribute', 'relation', 'affordance', 'surface')


@dataclass(frozen=True)
class Structure:
    """How a phrase is built, in PhraseCut's terms.

    Attributes:
        name: The noun, or the whole phrase where it has no noun of its own.
        attributes: Colours and other attributes.
        relations: Pairs of a predicate and the name of what it refers to.
    """

    name: str
    attributes: tuple[str, ...] = ()
    relations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Phrase:
    """A phrase and the objects of one frame for which it is true.

    Attributes:
        text: The phrase, in lower case but for "I".
        kind: One of :data:`KINDS`.
        object_ids: Ids of *all* visible objects for which it is true; empty if it is absent.
        structure: How it is built; None for a phrase from elsewhere.
    """

    text: str
    kind: str
    object_ids: frozenset[int]
    structure: Structure | None = None


@dataclass(frozen=True)
class _Modifier:
    """An attribute with its words and its question."""

    kind: str
    label: str
    query: Query
    words: Wording


@dataclass(frozen=True)
class _Noun:
    """What a phrase is about: a name (or anything), with modifiers, and its question."""

    name: Name | None
    modifiers: tuple[_Modifier, ...]
    query: Query

    @property
    def kind(self) -> str:
        kinds = {modifier.kind for modifier in self.modifiers}
        if 'attribute' in kinds:
            return 'attribute'
        return 'colour' if kinds else 'name'


_COLOUR_MODIFIERS: dict[str, _Modifier] = {
    colour: _Modifier(
        'colour',
        colour,
        Coloured(colour),
        (
            COLOUR_WORDS[colour],
            tuple(f'that is {word}' for word in COLOUR_WORDS[colour])
            + tuple(f'which is {word}' for word in COLOUR_WORDS[colour]),
        ),
    )
    for colour in COLOURS
}
_PATTERN_MODIFIERS = {
    key: _Modifier('attribute', key, Patterned(key), words) for key, words in PATTERN_WORDS.items()
}
_MATERIAL_MODIFIERS = {
    key: _Modifier('attribute', key, MadeOf(key), words) for key, words in MATERIAL_WORDS.items()
}
_SIZE_MODIFIERS = {
    key: _Modifier('attribute', key, Sized(key), words) for key, words in SIZE_WORDS.items()
}
_STATE_MODIFIERS = {
    category: {
        state: _Modifier('attribute', state, InState(state), words)
        for state, words in states.items()
    }
    for category, states in STATE_WORDS.items()
}
_GENERIC = ('thing', 'object', 'item')
_EXTREMES = {
    'largest': ('largest', 'biggest'),
    'smallest': ('smallest',),
    'leftmost': ('leftmost',),
    'rightmost': ('rightmost',),
    'nearest': ('nearest', 'closest'),
}
_FUNCTION_WORDS = (
    *_GENERIC,
    *(f'{word}s' for word in _GENERIC),
    *('a', 'an', 'the', 'all', 'are', 'something', 'anything', 'everything'),
)
_POSTMODIFIERS = frozenset({'in', 'with', 'of', 'for'})


def _noun(name: Name | None, modifiers: Sequence[_Modifier] = ()) -> _Noun:
    head: Query = Anything() if name is None else Named(name)
    return _Noun(name, tuple(modifiers), all_of([head, *(m.query for m in modifiers)]))


def _article(text: str) -> str:
    sounds_vowel = text[0] in 'aeiou' and not text.startswith('utensil')
    return f'an {text}' if sounds_vowel else f'a {text}'


def _takes_clause(name: Name | None) -> bool:
    """Whether a clause after the noun would be understood ("plant in a pot that is red")."""
    return name is None or not _POSTMODIFIERS.intersection(name.singular.split())


def _split_modifiers(
    modifiers: Sequence[_Modifier], draw: random.Random, *, clause: bool
) -> tuple[list[str], str]:
    """Words before the noun, and at most one clause after it (if ``clause``, or unavoidable)."""
    before: list[str] = []
    after = ''
    for modifier in modifiers:
        first, last = modifier.words
        if last and not after and (not first or (clause and draw.random() < 0.2)):
            after = draw.choice(last)
        elif first:
            before.append(first[0] if draw.random() < 0.75 else draw.choice(first))
        else:
            after = f'{after} {draw.choice(last)}'.strip()
    return before, after


def _word(noun: _Noun, draw: random.Random, count: int, *, definite: bool = False) -> str:
    """Words a noun with its modifiers.

    Args:
        noun: What to word.
        draw: Source of the variation.
        count: How many things it is true of; plurals are used only above one.
        definite: Whether to use "the" or "a" always, as a reference in a relation needs.
    """
    name = noun.name
    before, after = _split_modifiers(noun.modifiers, draw, clause=_takes_clause(name))
    if name is None:
        if noun.modifiers and not definite and draw.random() < 0.45:
            lead = draw.choice(('something', 'something', 'anything'))
            return ' '.join(filter(None, (lead, *before, after)))
        head, plural = draw.choice(_GENERIC), count > 1 and draw.random() < 0.4
        head = head + 's' if plural else head
    else:
        plural = bool(name.plural) and count > 1 and draw.random() < 0.25
        head = name.plural if plural else name.singular
    text = ' '.join(filter(None, (*before, head, after)))
    luck = draw.random()
    if plural:
        text = text.replace('that is', 'that are').replace('which is', 'which are')
        if luck < 0.35 or definite:
            return f'the {text}'
        return f'all the {text}' if luck < 0.42 else text
    uncountable = name is not None and (name.pair or name.mass)
    if luck < 0.45 or (definite and (uncountable or luck < 0.85)):
        return f'the {text}'
    bare_is_unclear = text == 'orange'
    if not uncountable and (luck < 0.65 or definite or bare_is_unclear):
        return _article(text)
    return text


def _structure(noun: _Noun, relations: tuple[tuple[str, str], ...] = ()) -> Structure:
    name = 'object' if noun.name is None else noun.name.singular
    return Structure(name, tuple(m.label for m in noun.modifiers), relations)


class _Speaker:
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
        """Draws a name of a category, its plainest one half of the time."""
        names = names_of(category)
        return names[0] if self.draw.random() < 0.5 else self.draw.choice(names)

    def allowed(self, colour: str, name: Name | None) -> bool:
        """Returns whether a colour and a name may be said together in this split."""
        if name is None:
            return True
        if name.singular.endswith('orange') or (colour in name.singular.split()):
            return False
        covered = name.categories | name.doubtful
        if name.hypernym and len(covered) > 2:
            return True
        return not any((colour, category) in self.held_out for category in covered)

    def coloured(self, thing: SceneObject, name: Name) -> _Noun | None:
        """Returns the colour and name of a thing, or None if they may not be said."""
        if not thing.colour or not self.allowed(thing.colour, name):
            return None
        return _noun(name, [_COLOUR_MODIFIERS[thing.colour]])

    def attributes(self, thing: SceneObject) -> list[_Modifier]:
        """Returns the attributes of a thing that can be said."""
        found: list[_Modifier] = []
        if thing.size in _SIZE_MODIFIERS:
            found.append(_SIZE_MODIFIERS[thing.size])
        if thing.pattern in _PATTERN_MODIFIERS:
            found.extend([_PATTERN_MODIFIERS[thing.pattern]] * 2)
        if thing.material in _MATERIAL_MODIFIERS and 'glass' not in thing.category:
            found.append(_MATERIAL_MODIFIERS[thing.material])
        states = _STATE_MODIFIERS.get(thing.category, {})
        found.extend(states[state] for state in sorted(thing.states & states.keys()))
        return found

    def reference(self, thing: SceneObject) -> _Noun:
        """Returns a way to refer to a thing: its name, with its colour half of the time."""
        name = self.name(thing.category)
        if self.draw.random() < 0.5 and not thing.surface:
            noun = self.coloured(thing, name)
            if noun is not None:
                return noun
        return _noun(name)

    def subject(self, thing: SceneObject) -> _Noun:
        """Returns a way to speak of a thing: as a reference, or as just a thing."""
        if self.draw.random() < 0.2:
            return _Noun(None, (), Items())
        return self.reference(thing)

    def relate(
        self, subject: _Noun, relation: Relation, reference: _Noun
    ) -> tuple[Query, Callable[[int], str], Structure]:
        """Returns question, wording and structure of a relation."""
        query = all_of([subject.query, Related(relation, reference.query)])
        words = relation.words
        said = words[0] if self.draw.random() < 0.4 else self.draw.choice(words)

        def wording(count: int) -> str:
            if subject.name is None and self.draw.random() < 0.3:
                first = self.draw.choice(('everything', 'anything', 'something'))
            else:
                first = _word(subject, self.draw, count)
            if '{}' in said:
                text = _word(reference, self.draw, 1, definite=True)
                if text.startswith('the ') and not _plain_the(reference):
                    text = _article(text[4:])
                return f'{first} {said.format(text)}'
            return f'{first} {said} {_word(reference, self.draw, 1, definite=True)}'

        predicate = said.replace(' {}', '')
        reference_name = 'object' if reference.name is None else reference.name.singular
        return query, wording, _structure(subject, ((predicate, reference_name),))


def _plain_the(noun: _Noun) -> bool:
    return noun.name is not None and (noun.name.pair or noun.name.mass)


class _Positive(_Speaker):
    """Collects true phrases."""

    def __init__(self, frame: Frame, rng: np.random.Generator, min_fraction: float) -> None:
        super().__init__(frame, rng)
        self.min_pixels = max(1.0, min_fraction * self.view.area)
        self.phrases: dict[str, Phrase] = {}

    def offer(
        self, query: Query, kind: str, wording: Callable[[int], str], structure: Structure
    ) -> bool:
        """Adds a phrase if it is certain and large enough; returns whether it is."""
        answer = self.view.ask(query)
        if answer.maybe or not answer.yes:
            return False
        if self.view.pixels_of(answer.yes) < self.min_pixels:
            return False
        self.add(answer.yes, kind, wording(answer.yes.bit_count()), structure)
        return True

    def add(self, bits: int, kind: str, text: str, structure: Structure) -> None:
        """Adds a phrase that is known to be true of these objects."""
        ids = frozenset(bits_to_ids(bits))
        known = self.phrases.get(text)
        if known is not None and known.object_ids != ids:
            raise RuntimeError(
                f'{text!r} was said of objects {sorted(known.object_ids)} and of {sorted(ids)}; '
                'two entries of the vocabulary share this wording'
            )
        self.phrases[text] = Phrase(text, kind, ids, structure)

    def offer_noun(self, noun: _Noun, kind: str | None = None) -> bool:
        """Adds a noun with its modifiers."""
        return self.offer(
            noun.query,
            kind or noun.kind,
            lambda count: _word(noun, self.draw, count),
            _structure(noun),
        )

    def say_names(self) -> None:
        """Names of all categories in view, and some of their families."""
        for category in self.shown_categories:
            self.offer_noun(_noun(self.name(category)))
            if self.draw.random() < 0.4:
                self.offer_noun(_noun(self.draw.choice(names_of(category))))
        said = 0
        for name in self.draw.sample(HYPERNYMS, len(HYPERNYMS)):
            said += self.offer_noun(_noun(name))
            if said == 3:
                break

    def say_colours(self) -> None:
        """Colour and name of the things in view; colours alone; colours of families."""
        for thing in self.draw.sample(self.shown, min(len(self.shown), 12)):
            noun = self.coloured(thing, self.name(thing.category))
            if noun is not None:
                self.offer_noun(noun)
        colours = sorted({thing.colour for thing in self.shown if thing.colour})
        said = 0
        for colour in self.draw.sample(colours, len(colours)):
            said += self.offer_noun(_noun(None, [_COLOUR_MODIFIERS[colour]]))
            if said == 2:
                break
        for _ in range(2):
            if colours:
                name, colour = self.draw.choice(HYPERNYMS), self.draw.choice(colours)
                if self.allowed(colour, name):
                    self.offer_noun(_noun(name, [_COLOUR_MODIFIERS[colour]]))

    def say_attributes(self) -> None:
        """Size, pattern, material and state, with a name or alone; the largest and its like."""
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
                modifiers.append(_COLOUR_MODIFIERS[thing.colour])
            self.offer_noun(_noun(name, modifiers))
        several = [
            category
            for category in self.shown_categories
            if (self.view.by_category[category] & self.view.visible).bit_count() > 1
        ]
        for category in self.draw.sample(several, min(len(several), 2)):
            self._say_extreme(category)

    def _say_extreme(self, category: str) -> None:
        name = self.name(category)
        key = self.draw.choice(tuple(_EXTREMES))
        answer = self.view.ask(Named(name))
        if answer.maybe or self.view.pixels_of(answer.yes) < self.min_pixels:
            return
        winner = extreme(self.view, answer.yes, key)
        if winner and self.view.pixels_of(winner) >= self.min_pixels:
            word = self.draw.choice(_EXTREMES[key])
            text = f'{word} {name.singular}'
            if self.draw.random() < 0.6:
                text = f'the {text}'
            self.add(winner, 'attribute', text, Structure(name.singular, (word,)))

    def say_relations(self) -> None:
        """What rests on, in or under what; what is left of, behind or beside what."""
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

    def _say_relation(self, subject: _Noun, relation: Relation, reference: _Noun) -> bool:
        query, wording, structure = self.relate(subject, relation, reference)
        return self.offer(query, 'relation', wording, structure)

    def say_affordances(self) -> None:
        """What the things in view are good for."""
        said = 0
        for affordance in self.draw.sample(AFFORDANCES, len(AFFORDANCES)):
            said += self._say_affordance(affordance)
            if said == 8:
                break
        if self.draw.random() < 0.5:
            self._say_affordance(AFFORDANCES[0])

    def _say_affordance(self, affordance: Affordance) -> bool:
        text = _affordance_text(affordance, self.draw)
        return self.offer(Affords(affordance), 'affordance', lambda _: text, Structure(text))

    def say_surfaces(self) -> None:
        """Table top, floor and wall."""
        for surface in SURFACES:
            bits = self.view.by_category.get(surface, 0) & self.view.visible
            if not bits:
                continue
            self.offer_noun(_noun(self.name(surface)), 'surface')
            thing = self.view.objects[bits_to_ids(bits)[0]]
            if thing.colour and self.draw.random() < 0.4:
                name = names_of(surface)[0]
                self.offer_noun(_noun(name, [_COLOUR_MODIFIERS[thing.colour]]), 'surface')


def grammar_words() -> frozenset[str]:
    """Returns every word that a phrase can contain, in lower case.

    No word of :data:`tabletop_world.vocabulary.UNSEEN_WORDS` is among them.
    """
    texts = list(_FUNCTION_WORDS)
    for name in all_names():
        texts += [name.singular, name.plural]
    modifiers: list[_Modifier] = [
        *_COLOUR_MODIFIERS.values(),
        *_PATTERN_MODIFIERS.values(),
        *_MATERIAL_MODIFIERS.values(),
        *_SIZE_MODIFIERS.values(),
    ]
    for states in _STATE_MODIFIERS.values():
        modifiers += states.values()
    for modifier in modifiers:
        texts += [*modifier.words[0], *modifier.words[1]]
    for relation in RELATIONS:
        texts += [word.replace('{}', '') for word in relation.words]
    for affordance in AFFORDANCES:
        texts += affordance.phrases
    for words in _EXTREMES.values():
        texts += words
    return frozenset(' '.join(texts).lower().split())


def _affordance_text(affordance: Affordance, draw: random.Random) -> str:
    phrases = affordance.phrases
    return phrases[0] if draw.random() < 0.3 else draw.choice(phrases)


def describe(
    frame: Frame, rng: np.random.Generator, *, min_fraction: float = 0.003
) -> list[Phrase]:
    """Returns true phrases about a frame, of all kinds, in varied wording and random order.

    A phrase is left out where its truth is doubtful, and where all that it is true of is visible
    on less than ``min_fraction`` of the picture. Pairs in
    :data:`tabletop_world.catalogue.HELD_OUT_PAIRS` are said in the split ``unseen_pairs`` alone.

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
    """Returns a "colour + name" phrase for each held-out pair that a frame shows.

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
                speaker.offer_noun(_noun(name, [_COLOUR_MODIFIERS[colour]]))
    return list(speaker.phrases.values())


def _plausible_relations(subject: str, reference: str) -> tuple[Relation, ...]:
    """Returns the relations that things of two categories could stand in."""
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


class _Negative(_Speaker):
    """Draws phrases that are true of nothing in view."""

    def __init__(self, frame: Frame, rng: np.random.Generator) -> None:
        super().__init__(frame, rng)
        self.categories = tuple(CATEGORIES)
        self.colours = tuple(COLOURS)

    def holds_nowhere(self, query: Query) -> bool:
        """Returns whether no visible object answers, not even doubtfully."""
        answer = self.view.ask(query)
        return not answer.yes and not answer.maybe

    def _noun_phrase(self, noun: _Noun, kind: str | None = None) -> Phrase | None:
        if not self.holds_nowhere(noun.query):
            return None
        count = 2 if self.draw.random() < 0.3 else 1
        text = _word(noun, self.draw, count)
        return Phrase(text, kind or noun.kind, frozenset(), _structure(noun))

    def swap_colour(self) -> Phrase | None:
        """Draws something that is in view, in a colour in which it is not."""
        if not self.shown:
            return None
        name = self.name(self.draw.choice(self.shown).category)
        colour = self.draw.choice(self.colours)
        if not self.allowed(colour, name):
            return None
        return self._noun_phrase(_noun(name, [_COLOUR_MODIFIERS[colour]]))

    def other_name(self) -> Phrase | None:
        """Draws a category that is not in view, or a family."""
        if self.draw.random() < 0.12:
            return self._noun_phrase(_noun(self.draw.choice(HYPERNYMS)))
        return self._noun_phrase(_noun(self.name(self.draw.choice(self.categories))))

    def other_colour(self) -> Phrase | None:
        """Draws a colour with a category that is not in view, or a colour that nothing has."""
        colour = self.draw.choice(self.colours)
        name = self.name(self.draw.choice(self.categories)) if self.draw.random() < 0.7 else None
        if name is None and self.draw.random() < 0.3:
            name = self.draw.choice(HYPERNYMS)
        if not self.allowed(colour, name):
            return None
        return self._noun_phrase(_noun(name, [_COLOUR_MODIFIERS[colour]]))

    def other_attribute(self) -> Phrase | None:
        """Draws a pattern, material or state that the thing does not have."""
        present = self.shown and self.draw.random() < 0.7
        category = self.draw.choice(self.shown_categories if present else self.categories)
        options = [
            _PATTERN_MODIFIERS[key]
            for key in PATTERNS
            if key in _PATTERN_MODIFIERS and key in CATEGORIES[category].patterns
        ]
        options.extend(_STATE_MODIFIERS.get(category, {}).values())
        if 'glass' not in category:
            usual = [m for m in CATEGORIES[category].materials if m in _MATERIAL_MODIFIERS]
            any_one = self.draw.random() < 0.3 or not usual
            material = self.draw.choice(tuple(_MATERIAL_MODIFIERS) if any_one else usual)
            options.append(_MATERIAL_MODIFIERS[material])
        if not options:
            return None
        chosen = self.draw.choice(options)
        name: Name | None = self.name(category)
        if not isinstance(chosen.query, InState) and self.draw.random() < 0.2:
            name = None
        return self._noun_phrase(_noun(name, [chosen]))

    def other_affordance(self) -> Phrase | None:
        """Draws a purpose that nothing in view serves."""
        affordance = self.draw.choice(AFFORDANCES)
        if not self.holds_nowhere(Affords(affordance)):
            return None
        text = _affordance_text(affordance, self.draw)
        return Phrase(text, 'affordance', frozenset(), Structure(text))

    def other_relation(self) -> Phrase | None:
        """Draws a relation that does not hold: of things in view, or of something that is not."""
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
            subject = _Noun(None, (), Items())
        query, wording, structure = self.relate(subject, self.draw.choice(options), reference)
        if not self.holds_nowhere(query):
            return None
        return Phrase(wording(1), 'relation', frozenset(), structure)

    def _some(self, category: str) -> _Noun:
        """Returns a name of a category, with the colour of one in view half of the time."""
        bits = self.view.by_category.get(category, 0) & self.view.visible
        if not bits:
            return _noun(self.name(category))
        return self.reference(self.view.objects[self.draw.choice(bits_to_ids(bits))])

    def other_surface(self) -> Phrase | None:
        """Draws a surface that is out of view."""
        noun = _noun(self.name(self.draw.choice(SURFACES)))
        return self._noun_phrase(noun, 'surface')


def absent(frame: Frame, rng: np.random.Generator, count: int) -> list[Phrase]:
    """Returns phrases that are true of nothing visible in a frame.

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
