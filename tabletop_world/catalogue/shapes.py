"""Small triangle meshes with normals and texture coordinates: lathes, tubes, boxes, plates.

All lengths are metres, z is up. Texture coordinates count texture repetitions. MuJoCo's own
primitives are not used, so that every part of an object can be merged into few meshes and its
bounding box is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_SHARP = np.cos(np.radians(38.0))


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with one normal and one texture coordinate for each vertex.

    Attributes:
        vertices: (V, 3) metres.
        normals: (V, 3), unit length, pointing outwards.
        uv: (V, 2), in texture repetitions.
        faces: (F, 3) indices of vertices, counter-clockwise from outside.
    """

    vertices: Array
    normals: Array
    uv: Array
    faces: NDArray[np.int32]

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """Return the mesh translated by (x, y, z) metres."""
        return Mesh(self.vertices + np.array([x, y, z]), self.normals, self.uv, self.faces)

    def turned(self, rotation: ArrayLike) -> Mesh:
        """Return the mesh rotated by a 3 × 3 rotation matrix."""
        transposed = np.asarray(rotation, dtype=np.float64).T
        return Mesh(self.vertices @ transposed, self.normals @ transposed, self.uv, self.faces)

    def scaled(self, x: float, y: float | None = None, z: float | None = None) -> Mesh:
        """Return the mesh scaled along the axes (uniformly if only ``x`` is given).

        A negative factor mirrors.
        """
        if y is None or z is None:
            return Mesh(self.vertices * x, self.normals, self.uv, self.faces)
        factors = np.array([x, y, z])
        normals = self.normals / factors
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        faces = self.faces if factors.prod() > 0 else self.faces[:, ::-1]
        return Mesh(self.vertices * factors, normals, self.uv, faces)


def rotation(axis: str, angle: float) -> Array:
    """Return the 3 × 3 matrix that rotates by ``angle`` radians about ``x``, ``y`` or ``z``."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    if axis == 'x':
        return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    if axis == 'y':
        return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """Return one mesh made of several."""
    if len(meshes) == 1:
        return meshes[0]
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.uv for m in meshes]),
        np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=True)]).astype(
            np.int32
        ),
    )


def _oriented(vertices: Array, normals: Array, uv: Array, faces: NDArray[np.int32]) -> Mesh:
    """Drop triangles without area, and turn those that face against their normals."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = np.einsum('ij,ij->i', across, across) > 1e-22
    facing = np.einsum('ij,ij->i', across, normals[faces].sum(axis=1)) < 0
    faces = faces.copy()
    faces[facing] = faces[facing][:, ::-1]
    return Mesh(vertices, normals, uv, np.ascontiguousarray(faces[solid], dtype=np.int32))


def _grid_faces(rows: int, columns: int) -> NDArray[np.int32]:
    """Return two triangles for each cell of a rows × columns grid of points, row by row."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    c, d = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)


def lathe(profile: Sequence[tuple[float, float]], segments: int = 20, repeats: int = 4) -> Mesh:
    """Turn a profile about the z axis.

    Args:
        profile: (radius, height) pairs; seen with the axis on the left, the outside of the body
            is on the right of the path (bottom to top outside, then down inside).
        segments: Number of sides.
        repeats: Texture repetitions around the body.
    """
    points = np.asarray(profile, dtype=np.float64)
    steps = np.diff(points, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    keep = lengths > 1e-9
    steps, lengths = steps[keep], lengths[keep]
    starts, ends = points[:-1][keep], points[1:][keep]
    sides = np.stack([steps[:, 1], -steps[:, 0]], 1) / lengths[:, None]
    travelled = np.concatenate([[0.0], np.cumsum(lengths)])
    rings: list[tuple[float, float, float, float, float]] = []
    breaks: list[int] = []

    def ring(point: Array, normal: Array, along: float) -> None:
        normal = normal / np.hypot(normal[0], normal[1])
        rings.append((point[0], point[1], normal[0], normal[1], along))

    ring(starts[0], sides[0], 0.0)
    for i in range(len(sides)):
        if i + 1 == len(sides):
            ring(ends[i], sides[i], travelled[i + 1])
        elif sides[i] @ sides[i + 1] > _SHARP:
            ring(ends[i], sides[i] + sides[i + 1], travelled[i + 1])
        else:
            ring(ends[i], sides[i], travelled[i + 1])
            breaks.append(len(rings) - 1)
            ring(ends[i], sides[i + 1], travelled[i + 1])
    data = np.array(rings)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    cos, sin = np.cos(angle), np.sin(angle)
    radius, height, nr, nz, along = data.T[:, :, None]
    full = np.broadcast_to
    shape = (len(data), segments + 1)
    vertices = np.stack([radius * cos, radius * sin, full(height, shape)], -1)
    normals = np.stack([nr * cos, nr * sin, full(nz, shape)], -1)
    girth = 2 * np.pi * max(float(points[:, 0].max()), 1e-6)
    uv = np.stack(
        [full(angle / (2 * np.pi) * repeats, shape), full(along / girth * repeats, shape)], -1
    )
    faces = _grid_faces(*shape)
    if breaks:
        cut = np.repeat(np.isin(np.arange(shape[0] - 1), breaks), segments)
        faces = faces[~np.tile(cut, 2)]
    return _oriented(vertices.reshape(-1, 3), normals.reshape(-1, 3), uv.reshape(-1, 2), faces)


def cylinder(radius: float, height: float, segments: int = 16, repeats: int = 4) -> Mesh:
    """Build a closed cylinder standing on z = 0."""
    return lathe([(0, 0), (radius, 0), (radius, height), (0, height)], segments, repeats)


def cone(bottom: float, top: float, height: float, segments: int = 16, repeats: int = 4) -> Mesh:
    """Build a closed truncated cone standing on z = 0."""
    return lathe([(0, 0), (bottom, 0), (top, height), (0, height)], segments, repeats)


def sphere(radius: float, segments: int = 18, rings: int = 11, repeats: int = 4) -> Mesh:
    """Build a sphere around the origin."""
    polar = np.linspace(-np.pi / 2, np.pi / 2, rings)
    path = [(radius * max(float(np.cos(p)), 0.0), radius * float(np.sin(p))) for p in polar]
    return lathe(path, segments, repeats)


def tube(
    path: ArrayLike,
    radius: ArrayLike,
    segments: int = 8,
    flat: float = 1.0,
    closed: bool = False,
    repeats: int = 2,
) -> Mesh:
    """Build a tube along a path, with closed ends.

    Args:
        path: (N, 3) points.
        radius: One radius, or one for each point.
        segments: Number of sides.
        flat: Factor on the radius along the second axis of the cross-section.
        closed: Whether the path runs back to its first point (a ring).
        repeats: Texture repetitions around the tube.
    """
    points = np.asarray(path, dtype=np.float64)
    if closed:
        points = np.concatenate([points, points[:1]])
    count = len(points)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (count,))
    tangents = np.gradient(points, axis=0)
    if closed:
        tangents[0] = tangents[-1] = points[1] - points[-2]
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    reference = np.eye(3)[int(np.argmin(np.abs(tangents).sum(axis=0)))]
    first = np.cross(tangents, reference)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(tangents, first)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    cos, sin = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
    spokes = first[:, None] * cos + second[:, None] * sin * flat
    normals = first[:, None] * cos * flat + second[:, None] * sin
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    vertices = points[:, None] + spokes * radii[:, None, None]
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    girth = 2 * np.pi * max(float(radii.max()), 1e-6)
    shape = (count, segments + 1)
    uv = np.stack(
        [
            np.broadcast_to(angle / (2 * np.pi) * repeats, shape),
            np.broadcast_to((along / girth * repeats)[:, None], shape),
        ],
        -1,
    )
    side = _oriented(
        vertices.reshape(-1, 3), normals.reshape(-1, 3), uv.reshape(-1, 2), _grid_faces(*shape)
    )
    if closed:
        return side
    caps = [
        _fan(vertices[end, :-1], sign * tangents[end])
        for end, sign in ((0, -1.0), (count - 1, 1.0))
        if radii[end] > 1e-6
    ]
    return merge([side, *caps])


def _fan(outline: Array, normal: Array) -> Mesh:
    """Build a flat convex polygon."""
    count = len(outline)
    first = np.arange(1, count - 1)
    faces = np.stack([np.zeros_like(first), first, first + 1], 1).astype(np.int32)
    low = outline.min(axis=0)
    axes = np.argsort(np.abs(normal))[:2]
    return _oriented(
        outline, np.tile(normal, (count, 1)), (outline - low)[:, np.sort(axes)] * 20.0, faces
    )


def ring(radius: float, thickness: float, segments: int = 20, sides: int = 8) -> Mesh:
    """Build a torus around the z axis, centred on the origin."""
    angle = np.linspace(0.0, 2 * np.pi, segments, endpoint=False)
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(segments)], 1)
    return tube(path, thickness, sides, closed=True)


def arc(radius: float, start: float, end: float, points: int = 9, squeeze: float = 1.0) -> Array:
    """Return points of an arc in the x-z plane about the origin; angles from +x, radians."""
    angle = np.linspace(start, end, points)
    return np.stack([radius * np.cos(angle), np.zeros(points), radius * squeeze * np.sin(angle)], 1)


_FIRST_HALF, _SECOND_HALF = np.array([0, 1, 2]), np.array([0, 2, 3])  # of a quadrilateral
_BOX_AXES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def box(
    x: float, y: float, z: float, period: float = 0.05, taper: float = 1.0, fit: bool = False
) -> Mesh:
    """Build a box standing on z = 0, centred on the z axis.

    Args:
        x: Full size along x.
        y: Full size along y.
        z: Height.
        period: Metres that one texture repetition covers.
        taper: Size of the top relative to the bottom.
        fit: Whether each side shows the texture exactly once instead.
    """
    half = np.array([x / 2, y / 2, z / 2])
    sizes = np.array([x, y, z])
    vertices, normals, uv = [], [], []
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    for axis, first, second in _BOX_AXES:
        for sign in (-1.0, 1.0):
            corner = np.empty((4, 3))
            corner[:, axis] = sign * half[axis]
            corner[:, first] = signs[:, 0] * half[first]
            corner[:, second] = signs[:, 1] * half[second]
            normal = np.zeros(3)
            normal[axis] = sign
            vertices.append(corner)
            normals.append(np.tile(normal, (4, 1)))
            repeats = np.ones(2) if fit else sizes[[first, second]] / period
            uv.append((signs + 1) / 2 * repeats)
    points = np.concatenate(vertices)
    if taper != 1.0:
        points[points[:, 2] > 0, :2] *= taper
    start = np.arange(0, 24, 4)[:, None]
    faces = np.concatenate([start + _FIRST_HALF, start + _SECOND_HALF]).astype(np.int32)
    points[:, 2] += half[2]
    return _oriented(points, np.concatenate(normals), np.concatenate(uv), faces)


def prism(outline: Sequence[tuple[float, float]], height: float, period: float = 0.05) -> Mesh:
    """Build a convex polygon in the x-y plane drawn up from z = 0 to ``height``."""
    flat = np.asarray(outline, dtype=np.float64)
    following = np.roll(flat, -1, axis=0)
    edges = following - flat
    area = float(np.sum(flat[:, 0] * following[:, 1] - following[:, 0] * flat[:, 1]))
    out = np.stack([edges[:, 1], -edges[:, 0]], 1) * (1.0 if area > 0 else -1.0)
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    count = len(flat)
    low = np.concatenate([flat, np.zeros((count, 1))], 1)
    up = np.array([0.0, 0.0, height])
    low_next = np.roll(low, -1, axis=0)
    vertices = np.stack([low, low_next, low_next + up, low + up], 1).reshape(-1, 3)
    normals = np.repeat(np.concatenate([out, np.zeros((count, 1))], 1), 4, axis=0)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(edges, axis=1))]) / period
    a, b, h = along[:-1], along[1:], height / period
    zero = np.zeros(count)
    uv = np.stack(
        [np.stack([a, b, b, a], 1), np.stack([zero, zero, zero + h, zero + h], 1)], -1
    ).reshape(-1, 2)
    start = np.arange(0, 4 * count, 4)[:, None]
    faces = np.concatenate([start + _FIRST_HALF, start + _SECOND_HALF]).astype(np.int32)
    sides = _oriented(vertices, normals, uv, faces)
    caps = []
    for level, sign in ((0.0, -1.0), (height, 1.0)):
        cap = _fan(low + np.array([0.0, 0.0, level]), np.array([0.0, 0.0, sign]))
        caps.append(Mesh(cap.vertices, cap.normals, cap.vertices[:, :2] / period, cap.faces))
    return merge([sides, *caps])


def sheet(
    corner: ArrayLike, along: ArrayLike, across: ArrayLike, cells: int = 8, period: float = 1.0
) -> Mesh:
    """Build a flat one-sided rectangle, divided so that lighting varies over it.

    Args:
        corner: One corner (3,).
        along: Edge from that corner (3,).
        across: Other edge (3,); the visible side is towards ``along × across``.
        cells: Divisions along each edge.
        period: Metres that one texture repetition covers.
    """
    origin, u_edge, v_edge = (np.asarray(v, dtype=np.float64) for v in (corner, along, across))
    step = np.linspace(0.0, 1.0, cells + 1)
    u, v = (g.reshape(-1, 1) for g in np.meshgrid(step, step, indexing='ij'))
    normal = np.cross(u_edge, v_edge)
    normal /= np.linalg.norm(normal)
    vertices = origin + u * u_edge + v * v_edge
    uv = np.concatenate([u * np.linalg.norm(u_edge), v * np.linalg.norm(v_edge)], 1) / period
    return _oriented(
        vertices,
        np.tile(normal, (len(vertices), 1)),
        uv,
        _grid_faces(cells + 1, cells + 1),
    )
