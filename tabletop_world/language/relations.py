"""Relations between things: resting on and in, left and right, in front and behind, beside.

Every relation compares one thing with another and says yes, no or doubtful. Left and right are
those of the picture, from the centroids of the visible masks. In front and behind are those of the
camera, from world positions. These and nearness are asked of one reference in plain view only;
resting on, in and under hold if they hold for any of the references.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tabletop_world.language.queries import Answer, Query, SceneView, bits_to_ids
from tabletop_world.scenes.scene import SceneObject

# A thing that shows less of itself than this share of the picture has no reliable place in it.
_MIN_FRACTION = 0.0008


@dataclass(frozen=True)
class Relation:
    """A relation and the ways to say it.

    Attributes:
        key: Short name (``left_of``).
        words: Ways to say it, the plainest first; ``{}`` marks where the reference goes, at the
            end if it is not there.
    """

    key: str
    words: tuple[str, ...]


ON = Relation('on', ('on', 'on top of', 'resting on', 'placed on'))
IN = Relation('in', ('in', 'inside', 'inside of'))
UNDER = Relation('under', ('under', 'underneath', 'beneath', 'with {} on it', 'with {} on top'))
HOLDING = Relation('holding', ('with {} in it', 'with {} inside', 'holding', 'containing'))
LEFT_OF = Relation(
    'left_of', ('left of', 'to the left of', 'on the left of', 'on the left side of')
)
RIGHT_OF = Relation(
    'right_of', ('right of', 'to the right of', 'on the right of', 'on the right side of')
)
IN_FRONT_OF = Relation('in_front_of', ('in front of',))
BEHIND = Relation('behind', ('behind', 'in back of'))
BESIDE = Relation('beside', ('next to', 'beside', 'near', 'close to', 'by'))

CONTACT: tuple[Relation, ...] = (ON, IN, UNDER, HOLDING)
SPATIAL: tuple[Relation, ...] = (LEFT_OF, RIGHT_OF, IN_FRONT_OF, BEHIND, BESIDE)
RELATIONS: tuple[Relation, ...] = CONTACT + SPATIAL


@dataclass(frozen=True)
class Related(Query):
    """True of the objects that stand in a relation to what another question is true of.

    Attributes:
        relation: The relation, of the subject to the reference.
        reference: The question that picks the references.
    """

    relation: Relation
    reference: Query

    def answer(self, view: SceneView) -> Answer:
        """Return the subjects.

        Everything is doubtful where the reference itself is: no such reference is certain, or,
        for a spatial relation, not exactly one thing in plain view.
        """
        references = view.ask_world(self.reference)
        if not references.yes | references.maybe:
            return Answer(0, 0)
        if references.maybe:
            return Answer(0, view.items)
        if self.relation in CONTACT:
            return _contact(view, self.relation, references.yes)
        return _spatial(view, self.relation, references.yes & view.visible)


def _contact(view: SceneView, relation: Relation, references: int) -> Answer:
    """Answer the relations that the scene's supports decide."""
    wanted = 'on' if relation in (ON, UNDER) else 'in'
    downward = relation in (ON, IN)
    yes = maybe = 0
    for object_id in bits_to_ids(view.items):
        thing = view.objects[object_id]
        support = thing.support
        if not support:
            continue
        subject, reference = (object_id, support) if downward else (support, object_id)
        if references >> reference & 1:
            if thing.relation == wanted:
                yes |= 1 << subject
            else:
                maybe |= 1 << subject
    if downward:
        maybe |= _indirect(view, references)
    else:
        for object_id in bits_to_ids(references & view.items):
            maybe |= _below(view, object_id)
            if relation is UNDER:
                maybe |= _overhung(view, object_id)
    return Answer(yes, maybe & ~yes)


def _overhung(view: SceneView, object_id: int) -> int:
    """Return the items that stand within the footprint of an object and lower than its top."""
    roof = view.objects[object_id]
    reach_x, reach_y = roof.extent[0] / 2 + 0.02, roof.extent[1] / 2 + 0.02
    top = roof.position[2] + roof.extent[2]
    found = 0
    for other_id in bits_to_ids(view.items & ~(1 << object_id)):
        other = view.objects[other_id]
        if (
            abs(other.position[0] - roof.position[0]) < reach_x + other.extent[0] / 2
            and abs(other.position[1] - roof.position[1]) < reach_y + other.extent[1] / 2
            and other.position[2] < top
        ):
            found |= 1 << other_id
    return found


def _indirect(view: SceneView, references: int) -> int:
    """Return the things that rest on something that rests on a reference."""
    found = 0
    for object_id in bits_to_ids(view.items):
        support = view.objects[object_id].support
        below = _below(view, support) if support else 0
        if below & references:
            found |= 1 << object_id
    return found


def _below(view: SceneView, object_id: int) -> int:
    """Return everything that carries an object, directly or not."""
    found = 0
    support = view.objects[object_id].support
    while support and not found >> support & 1:
        found |= 1 << support
        support = view.objects[support].support
    return found


def _spatial(view: SceneView, relation: Relation, references: int) -> Answer:
    """Answer the relations that positions decide, for exactly one reference in plain view."""
    if references.bit_count() != 1 or references & view.surfaces:
        return Answer(0, view.items)
    reference = references.bit_length() - 1
    threshold = _MIN_FRACTION * view.area
    if view.pixels[reference] < threshold:
        return Answer(0, view.items)
    judge = _JUDGES[relation.key]
    yes = maybe = 0
    for object_id in bits_to_ids(view.items & view.visible & ~references):
        truth = judge(view, object_id, reference)
        if truth is None:
            maybe |= 1 << object_id
        elif truth:
            if view.pixels[object_id] < threshold:
                maybe |= 1 << object_id
            else:
                yes |= 1 << object_id
    return Answer(yes, maybe)


def _side(view: SceneView, subject: int, reference: int, sign: int) -> bool | None:
    """Judge left (``sign`` -1) or right (+1) in the picture.

    Clear are a distance of 5 % of the width within 50° of the horizontal whose boxes overlap by
    less than a third of the narrower one; clear, too, is not being on that side at all.
    """
    (xs, ys), (xr, yr) = view.centroids[subject], view.centroids[reference]
    across, along = sign * (xs - xr), abs(ys - yr)
    if across < 0.01 * view.frame_width:
        return False
    box, other = view.boxes[subject], view.boxes[reference]
    overlap = min(box[2], other[2]) - max(box[0], other[0])
    narrower = min(box[2] - box[0], other[2] - other[0])
    if across >= 0.05 * view.frame_width and along <= 1.2 * across and overlap <= narrower / 3:
        return True
    return None


def _left(view: SceneView, subject: int, reference: int) -> bool | None:
    return _side(view, subject, reference, -1)


def _right(view: SceneView, subject: int, reference: int) -> bool | None:
    return _side(view, subject, reference, 1)


def _ground_offset(view: SceneView, subject: int, reference: int) -> tuple[float, float]:
    """Return how far the subject lies (sideways, away from the camera) of the reference.

    Metres on the ground plane, along the camera's x axis and its horizontal viewing direction.
    """
    forward = view.camera_pose[:3, 2]
    norm = math.hypot(forward[0], forward[1])
    if norm < 1e-6:
        # The camera looks straight down: the picture's up is "away".
        forward = -view.camera_pose[:3, 1]
        norm = math.hypot(forward[0], forward[1])
    ax, ay = forward[0] / norm, forward[1] / norm
    p, q = view.objects[subject].position, view.objects[reference].position
    dx, dy = p[0] - q[0], p[1] - q[1]
    return float(dx * ay - dy * ax), float(dx * ax + dy * ay)


def _half_sizes(thing: SceneObject) -> tuple[float, float]:
    return thing.extent[0] / 2, thing.extent[1] / 2


def _stacked(view: SceneView, subject: int, reference: int) -> bool:
    """Return whether one carries the other."""
    return bool(_below(view, subject) >> reference & 1 or _below(view, reference) >> subject & 1)


def _depth_order(view: SceneView, subject: int, reference: int, sign: int) -> bool | None:
    """Judge behind (``sign`` +1) and in front (-1) on the ground as the camera sees it."""
    if _stacked(view, subject, reference):
        return None
    sideways, away = _ground_offset(view, subject, reference)
    away *= sign
    size = max(*_half_sizes(view.objects[subject]), *_half_sizes(view.objects[reference]))
    if away < 0.25 * size:
        return False
    box, other = view.boxes[subject], view.boxes[reference]
    overlap = min(box[2], other[2]) - max(box[0], other[0])
    narrower = min(box[2] - box[0], other[2] - other[0])
    if overlap > 0.3 * narrower and away > size and abs(sideways) < away:
        return True
    if overlap < -0.1 * view.frame_width and abs(sideways) > 2 * away:
        return False
    return None


def _behind(view: SceneView, subject: int, reference: int) -> bool | None:
    return _depth_order(view, subject, reference, 1)


def _in_front(view: SceneView, subject: int, reference: int) -> bool | None:
    return _depth_order(view, subject, reference, -1)


def _beside(view: SceneView, subject: int, reference: int) -> bool | None:
    """Judge nearness by the gap between two bounding boxes, relative to the things' sizes."""
    if _stacked(view, subject, reference):
        return None
    p, q = view.objects[subject], view.objects[reference]
    (ax, ay), (bx, by) = _half_sizes(p), _half_sizes(q)
    gap = math.hypot(
        max(abs(p.position[0] - q.position[0]) - ax - bx, 0.0),
        max(abs(p.position[1] - q.position[1]) - ay - by, 0.0),
    )
    scale = math.sqrt(max(ax, ay, 0.03) * max(bx, by, 0.03))
    level = abs(p.position[2] - q.position[2])
    if gap <= 0.35 * scale and level <= scale:
        return True
    return False if gap >= 1.8 * scale else None


_JUDGES: dict[str, Callable[[SceneView, int, int], bool | None]] = {
    'left_of': _left,
    'right_of': _right,
    'behind': _behind,
    'in_front_of': _in_front,
    'beside': _beside,
}


def extreme(view: SceneView, candidates: int, key: str) -> int:
    """Return the bit of the one clearly extreme object among visible candidates, or 0.

    Args:
        view: The frame's view.
        candidates: Bits of two or more visible objects.
        key: ``largest``, ``smallest``, ``leftmost``, ``rightmost`` or ``nearest``.

    Returns:
        The bit of the winner, 0 where it wins by too little to be sure of it.

    Raises:
        ValueError: If the key is none of these.
    """
    ids = bits_to_ids(candidates & view.visible)
    if len(ids) < 2:
        return 0
    if key in ('largest', 'smallest'):
        sign = 1 if key == 'largest' else -1
        ranked = sorted(ids, key=lambda i: sign * view.pixels[i], reverse=True)
        first, second = ranked[0], ranked[1]
        volumes = {i: float(np.prod(view.objects[i].extent)) for i in ids}
        by_pixels = (view.pixels[first] / view.pixels[second]) ** sign
        by_volume = all((volumes[first] / volumes[i]) ** sign > 1.15 for i in ids if i != first)
        return 1 << first if by_pixels > 1.5 and by_volume else 0
    if key in ('leftmost', 'rightmost'):
        sign = -1 if key == 'leftmost' else 1
        ranked = sorted(ids, key=lambda i: sign * view.centroids[i][0], reverse=True)
        first, second = ranked[0], ranked[1]
        gap = sign * (view.centroids[first][0] - view.centroids[second][0])
        return 1 << first if gap > 0.08 * view.frame_width else 0
    if key == 'nearest':
        eye = view.camera_pose[:3, 3]
        distance = {i: math.dist(view.objects[i].position, (eye[0], eye[1], eye[2])) for i in ids}
        ranked = sorted(ids, key=lambda i: distance[i])
        first, second = ranked[0], ranked[1]
        return 1 << first if distance[first] < 0.85 * distance[second] else 0
    raise ValueError(
        f'unknown extreme {key!r}; known: largest, smallest, leftmost, rightmost, nearest'
    )
