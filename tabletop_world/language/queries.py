"""Questions about what is in view, answered exactly: the one code path for all truth.

A :class:`Query` maps a :class:`SceneView` to an :class:`Answer`: the objects for which it is
certainly true and those for which people may disagree. A phrase is offered as true, or as absent,
only if no visible object is doubtful. Sets of objects are integers whose bit ``i`` stands for the
object with id ``i``, which makes a question a handful of integer operations.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabletop_world.catalogue.categories import CATEGORIES
from tabletop_world.catalogue.looks import (
    CLEAR,
    DRINKS,
    HANDLED,
    NAMELESS,
    OPPOSITE,
    PATTERN_COLOURS,
)
from tabletop_world.language.affordances import Affordance
from tabletop_world.language.vocabulary import Name
from tabletop_world.scenes.scene import Frame, SceneObject


def ids_to_bits(ids: Iterable[int]) -> int:
    """Return the set of these object ids as an integer."""
    bits = 0
    for object_id in ids:
        bits |= 1 << object_id
    return bits


def bits_to_ids(bits: int) -> list[int]:
    """Return the object ids in a set, ascending."""
    ids = []
    while bits:
        low = bits & -bits
        ids.append(low.bit_length() - 1)
        bits ^= low
    return ids


class Answer(NamedTuple):
    """Whom a question is true of.

    Attributes:
        yes: Bits of the objects for which it is certainly true.
        maybe: Bits of the objects for which it is doubtful; disjoint from ``yes``.
    """

    yes: int
    maybe: int

    def and_(self, other: Answer) -> Answer:
        """Return the conjunction, in which a doubt on either side remains one."""
        yes = self.yes & other.yes
        return Answer(yes, (self.yes | self.maybe) & (other.yes | other.maybe) & ~yes)


class SceneView:
    """What one frame shows, indexed for questions.

    Attributes:
        frame_height: Pixels.
        frame_width: Pixels.
        objects: All objects of the scene by id, hidden ones included.
        pixels: Visible pixels by object id, of visible objects only.
        visible: Bits of the objects with at least one visible pixel.
        items: Bits of all objects that are not surfaces.
        surfaces: Bits of the surfaces.
        occupied: Bits of the objects that something rests in.
        by_category: Bits of the objects by category, hidden ones included.
        centroids: Mean (x, y) of the visible pixels by object id, in pixels.
        boxes: Visible (x0, y0, x1, y1) by object id in pixels, the end exclusive.
    """

    def __init__(self, frame: Frame) -> None:
        """Count pixels, centroids and boxes once.

        Args:
            frame: The frame; its instance map must name only objects of its scene.

        Raises:
            ValueError: If the instance map holds an id that the scene does not have.
        """
        instances = frame.instances
        self.frame_height, self.frame_width = instances.shape
        self.objects: dict[int, SceneObject] = {o.id: o for o in frame.scene.objects}
        self.camera_pose: NDArray[np.float64] = frame.camera_pose
        self._measure(instances)
        strangers = [i for i in self.pixels if i not in self.objects]
        if strangers:
            raise ValueError(
                f'instance map of scene {frame.scene.split}/{frame.scene.seed} holds ids '
                f'{strangers} that the scene has no objects for; render it from this scene'
            )
        self.visible = ids_to_bits(self.pixels)
        self.surfaces = ids_to_bits(i for i, o in self.objects.items() if o.surface)
        self.items = ids_to_bits(self.objects) & ~self.surfaces
        self.by_category: dict[str, int] = {}
        for object_id, thing in self.objects.items():
            bit = 1 << object_id
            self.by_category[thing.category] = self.by_category.get(thing.category, 0) | bit
        self.occupied = ids_to_bits(
            o.support for o in self.objects.values() if o.support and o.relation == 'in'
        )
        self._answers: dict[Query, Answer] = {}

    def _measure(self, instances: NDArray[np.uint8]) -> None:
        height, width = instances.shape
        offsets = np.arange(height, dtype=np.intp)[:, None] * 256
        by_row = np.bincount((instances + offsets).ravel(), minlength=256 * height)
        by_row = by_row.reshape(height, 256)
        columns = np.ascontiguousarray(instances.T)
        offsets = np.arange(width, dtype=np.intp)[:, None] * 256
        by_column = np.bincount((columns + offsets).ravel(), minlength=256 * width)
        by_column = by_column.reshape(width, 256)
        counts = by_row.sum(axis=0)
        ids = np.flatnonzero(counts)
        ids = ids[ids != 0]
        rows, cols = by_row[:, ids], by_column[:, ids]
        total = counts[ids]
        y = (np.arange(height) @ rows) / total
        x = (np.arange(width) @ cols) / total
        row_on, col_on = rows > 0, cols > 0
        y0, x0 = row_on.argmax(axis=0), col_on.argmax(axis=0)
        y1, x1 = height - row_on[::-1].argmax(axis=0), width - col_on[::-1].argmax(axis=0)
        self.pixels: dict[int, int] = {}
        self.centroids: dict[int, tuple[float, float]] = {}
        self.boxes: dict[int, tuple[int, int, int, int]] = {}
        for k, object_id in enumerate(ids.tolist()):
            self.pixels[object_id] = int(total[k])
            self.centroids[object_id] = (float(x[k]), float(y[k]))
            self.boxes[object_id] = (int(x0[k]), int(y0[k]), int(x1[k]), int(y1[k]))

    @property
    def area(self) -> int:
        """Number of pixels of the frame."""
        return self.frame_height * self.frame_width

    def of_categories(self, categories: Iterable[str]) -> int:
        """Return the bits of all objects of these categories, hidden ones included."""
        bits = 0
        for category in categories:
            bits |= self.by_category.get(category, 0)
        return bits

    def pixels_of(self, bits: int) -> int:
        """Return how many visible pixels these objects have together."""
        return sum(self.pixels.get(i, 0) for i in bits_to_ids(bits))

    def ask(self, query: Query) -> Answer:
        """Return the answer among *visible* objects."""
        answer = self.ask_world(query)
        return Answer(answer.yes & self.visible, answer.maybe & self.visible)

    def ask_world(self, query: Query) -> Answer:
        """Return the answer among all objects of the scene; remembers it."""
        answer = self._answers.get(query)
        if answer is None:
            answer = query.answer(self)
            self._answers[query] = answer
        return answer


_latest: tuple[weakref.ref[Frame], SceneView] | None = None


def view_of(frame: Frame) -> SceneView:
    """Return the view of a frame; asking twice in a row for one frame computes it once."""
    global _latest
    latest = _latest
    if latest is not None and latest[0]() is frame:
        return latest[1]
    view = SceneView(frame)
    _latest = (weakref.ref(frame), view)
    return view


class Query(ABC):
    """A question that is true of some objects of a scene. Subclasses are hashable records."""

    @abstractmethod
    def answer(self, view: SceneView) -> Answer:
        """Return which objects it is true of, among all objects of the scene."""


@dataclass(frozen=True)
class Anything(Query):
    """True of every item; surfaces are doubtful ("thing" may or may not mean the wall)."""

    def answer(self, view: SceneView) -> Answer:
        """Return every item."""
        return Answer(view.items, view.surfaces)


@dataclass(frozen=True)
class Items(Query):
    """True of every item and of no surface ("the things on the table")."""

    def answer(self, view: SceneView) -> Answer:
        """Return every item."""
        return Answer(view.items, 0)


@dataclass(frozen=True)
class Named(Query):
    """True of the objects that a name stands for."""

    name: Name

    def answer(self, view: SceneView) -> Answer:
        """Return the objects of the name's categories."""
        return Answer(
            view.of_categories(self.name.categories), view.of_categories(self.name.doubtful)
        )


@dataclass(frozen=True)
class Affords(Query):
    """True of the objects that serve a purpose."""

    affordance: Affordance

    def answer(self, view: SceneView) -> Answer:
        """Return the objects of the affordance's categories."""
        yes = view.of_categories(self.affordance.categories)
        maybe = view.of_categories(self.affordance.doubtful)
        limit = self.affordance.max_thickness
        if limit:
            for object_id in bits_to_ids(yes):
                thing = view.objects[object_id]
                if min(thing.extent) > limit and thing.category not in HANDLED:
                    maybe |= 1 << object_id
            yes &= ~maybe
        return Answer(yes, maybe)


class _PerObject(Query):
    """A question about one object at a time."""

    @abstractmethod
    def holds(self, thing: SceneObject) -> bool | None:
        """Return whether it is true of this object; None if that is doubtful."""

    def answer(self, view: SceneView) -> Answer:
        """Return the objects for which it holds."""
        yes = maybe = 0
        for object_id, thing in view.objects.items():
            truth = self.holds(thing)
            if truth:
                yes |= 1 << object_id
            elif truth is None:
                maybe |= 1 << object_id
        return Answer(yes, maybe)


@dataclass(frozen=True)
class Coloured(_PerObject):
    """True of the objects whose dominant colour is this one.

    Doubtful: the second colour of a pattern, what clear glass or a drink in it may look like, and
    colours that a category shows beside its dominant one.
    """

    colour: str

    def holds(self, thing: SceneObject) -> bool | None:
        """Return whether the object has the colour."""
        colour = self.colour
        if thing.colour == colour:
            return True
        if thing.pattern != 'plain' and colour in PATTERN_COLOURS:
            return None
        if thing.material == 'glass' and thing.category != 'bottle':
            shown = DRINKS if 'full' in thing.states else CLEAR
            return None if colour in shown else False
        if not thing.colour:
            return None if colour in NAMELESS.get(thing.pattern, (colour,)) else False
        kind = CATEGORIES.get(thing.category)  # None for a surface of the room
        return None if kind and colour in kind.also_shown else False


@dataclass(frozen=True)
class MadeOf(_PerObject):
    """True of the objects of this material, where a picture tells it.

    Painted wood is doubtful; so are materials that look alike in a category, and things made of
    several.
    """

    material: str

    def holds(self, thing: SceneObject) -> bool | None:
        """Return whether the object is made of the material."""
        if thing.material == self.material == 'wood' and thing.colour == 'brown':
            return True
        kind = CATEGORIES.get(thing.category)  # None for a surface of the room
        if kind and self.material in kind.hard_to_tell:
            return None
        if thing.material != self.material:
            return False
        return None if self.material == 'wood' else True


@dataclass(frozen=True)
class Patterned(_PerObject):
    """True of the objects with this surface pattern."""

    pattern: str

    def holds(self, thing: SceneObject) -> bool | None:
        """Return whether the object has the pattern."""
        return thing.pattern == self.pattern


@dataclass(frozen=True)
class Sized(_PerObject):
    """True of the objects that are small (or large) for their category; medium is doubtful."""

    size: str

    def holds(self, thing: SceneObject) -> bool | None:
        """Return whether the object has the size."""
        if thing.size == self.size:
            return True
        return None if thing.size == 'medium' else False


@dataclass(frozen=True)
class InState(Query):
    """True of the objects that show a state (``open``, ``lit``).

    Doubtful are things that show neither the state nor its opposite, and things that
    something rests in, which are neither clearly full nor empty.
    """

    state: str

    def answer(self, view: SceneView) -> Answer:
        """Return the objects in the state."""
        yes = maybe = 0
        opposite = OPPOSITE.get(self.state)
        for object_id, thing in view.objects.items():
            if self.state in thing.states:
                yes |= 1 << object_id
            elif opposite is not None and opposite not in thing.states:
                maybe |= 1 << object_id
        if self.state in ('full', 'empty'):
            maybe |= (yes | maybe) & view.occupied
            yes &= ~maybe
        return Answer(yes, maybe)


@dataclass(frozen=True)
class Both(Query):
    """True where two questions are."""

    first: Query
    second: Query

    def answer(self, view: SceneView) -> Answer:
        """Return the objects for which both hold."""
        return view.ask_world(self.first).and_(view.ask_world(self.second))


def all_of(queries: Iterable[Query]) -> Query:
    """Return the conjunction of one or more questions.

    Raises:
        ValueError: If there is none.
    """
    result: Query | None = None
    for query in queries:
        result = query if result is None else Both(result, query)
    if result is None:
        raise ValueError('all_of() needs at least one query')
    return result
