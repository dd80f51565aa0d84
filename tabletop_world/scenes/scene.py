"""What a scene is made of: objects with their attributes, cameras, and rendered frames.

These are plain records. :mod:`tabletop_world.scenes.random_scenes` makes scenes,
:mod:`tabletop_world.render.renderer` turns a scene and a camera into a :class:`Frame`,
:mod:`tabletop_world.language.phrases` describes it. World coordinates are metres, right-handed, z
up (REP 103).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tabletop_world.scenes.blueprint import Blueprint

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene, a surface (table top, floor, wall) included.

    Attributes:
        id: 1…254, unique in the scene; the value of its pixels in ``Frame.instances``.
        category: Key of the catalogue (``mug``), or a surface's name.
        colour: Name of the dominant colour (``red``), or ``''`` where none is nameable.
        pattern: ``plain``, ``striped``, ``dotted`` or ``checked``.
        material: ``ceramic``, ``metal``, ``wood``, ``plastic``, ``glass``, ``paper``,
            ``fabric``, ``food``, ``plant`` or ``wax``.
        size: ``small``, ``medium`` or ``large``, relative to its category's usual size.
        position: Centre of its base in the world, metres.
        extent: Full size of its axis-aligned bounding box in the world, metres.
        yaw: Rotation about the vertical, radians.
        support: Id of the object that it rests on or in; 0 where it rests on nothing.
        relation: ``on`` or ``in``, how it rests on its support.
        surface: Whether it is a surface of the room (table top, floor, wall) and not an item.
        states: Further attributes that show, such as ``open``, ``lit``, ``full`` or ``lying``.
    """

    id: int
    category: str
    colour: str
    pattern: str
    material: str
    size: str
    position: Vector
    extent: Vector
    yaw: float = 0.0
    support: int = 0
    relation: str = 'on'
    surface: bool = False
    states: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        position: Optical centre in the world, metres.
        target: World point on the optical axis, metres.
        fovy: Vertical field of view, degrees.
    """

    position: Vector
    target: Vector
    fovy: float = 45.0


@dataclass(frozen=True)
class Scene:
    """A room with objects in it, and the cameras that look at it.

    Attributes:
        seed: Seed that, with ``split``, made this scene.
        split: ``train``, ``textured``, ``val``, ``test``, ``unseen_pairs`` or ``varied``.
        kind: ``tabletop`` or ``floor``.
        objects: All objects, surfaces included; ids are unique.
        cameras: At least one camera.
        blueprint: The geometry to render, or None for a scene that is only described.
    """

    seed: int
    split: str
    kind: str
    objects: tuple[SceneObject, ...]
    cameras: tuple[Camera, ...]
    blueprint: Blueprint | None = field(default=None, repr=False, compare=False)

    @property
    def model_xml(self) -> str:
        """The scene as MuJoCo XML, meshes inline, patterns as their mean colour.

        ``''`` without a blueprint. Made anew each time it is asked for.
        """
        return '' if self.blueprint is None else self.blueprint.xml()

    def object(self, object_id: int) -> SceneObject:
        """Return the object with this id.

        Raises:
            KeyError: If the scene has no such object.
        """
        for candidate in self.objects:
            if candidate.id == object_id:
                return candidate
        raise KeyError(f'scene {self.split}/{self.seed} has no object with id {object_id}')


@dataclass(frozen=True)
class Frame:
    """One rendered view with its exact truth.

    Attributes:
        scene: The scene shown.
        camera: The camera it was seen from.
        rgb: Colour, uint8 of shape (height, width, 3).
        instances: Object id per pixel, uint8 of shape (height, width); 0 where no object is.
        depth: Metric depth along the optical axis, float32 metres of shape (height, width);
            0 where nothing was hit (REP 118).
        intrinsics: 3 × 3 camera matrix K in pixels, float64.
        camera_pose: 4 × 4 pose of the camera's optical frame (x right, y down, z forward,
            REP 103) in the world, float64.
    """

    scene: Scene
    camera: Camera
    rgb: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    depth: NDArray[np.float32]
    intrinsics: NDArray[np.float64]
    camera_pose: NDArray[np.float64]

    def pixel_counts(self) -> dict[int, int]:
        """Return the number of visible pixels by object id (invisible objects are left out)."""
        counts = np.bincount(self.instances.ravel(), minlength=1)
        return {int(i): int(counts[i]) for i in np.flatnonzero(counts) if i != 0}
