"""What the builders of household things work with: finishes, openings and the maker itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tabletop_world.catalogue.shapes import Mesh
from tabletop_world.catalogue.textures import RGB


@dataclass(frozen=True, eq=False)
class Finish:
    """How a part looks. Parts of one object that share a finish become one mesh.

    Attributes:
        rgb: Colour, 0…1 (a factor on the picture where there is one).
        alpha: Opacity, 0…1.
        image: Texture, uint8 of shape (h, w, 3), or None.
        specular: Strength of highlights, 0…1.
        shininess: Sharpness of highlights, 0…1.
        emission: Light of its own, 0…1.
    """

    rgb: RGB
    alpha: float = 1.0
    image: NDArray[np.uint8] | None = None
    specular: float = 0.3
    shininess: float = 0.4
    emission: float = 0.0


@dataclass(frozen=True)
class Opening:
    """Room inside a container: a truncated cone around the local z axis.

    Attributes:
        bottom: Inner radius at the floor, metres.
        top: Inner radius at the rim, metres.
        floor: Height of the floor above the base, metres.
        rim: Height of the rim above the base, metres.
    """

    bottom: float
    top: float
    floor: float
    rim: float


@dataclass(frozen=True)
class Shelf:
    """A level rectangle on which things can stand.

    Attributes:
        x: Half size along local x, metres.
        y: Half size along local y, metres.
        height: Above the base, metres.
        centre: Local (x, y) of its centre, metres.
        headroom: Free height above it, metres.
    """

    x: float
    y: float
    height: float
    centre: tuple[float, float] = (0.0, 0.0)
    headroom: float = 10.0


METAL = Finish((0.62, 0.63, 0.65), specular=0.9, shininess=0.7)
DARK = Finish((0.07, 0.07, 0.08), specular=0.3)
RUBBER = Finish((0.16, 0.16, 0.17), specular=0.1)
PAPER = Finish((0.93, 0.91, 0.86), specular=0.05)
CREAM = Finish((0.96, 0.95, 0.92), specular=0.2)
TIMBER = Finish((0.62, 0.43, 0.24), specular=0.1)
LEAF = Finish((0.16, 0.46, 0.14), specular=0.2)
STALK = Finish((0.30, 0.20, 0.08), specular=0.05)
SCREEN = Finish((0.05, 0.06, 0.09), specular=0.8, shininess=0.8)
FLAME = Finish((1.0, 0.72, 0.15), specular=0.0, emission=1.0)


@dataclass(eq=False)
class Maker:
    """Collects the parts of one object in its own frame: base on z = 0, front towards +x.

    Attributes:
        rng: Source of the small variations.
        colour: Name of the dominant colour.
        material: Name of the material.
        main: Finish in the dominant colour, patterned if the object is.
        body: The same colour without a pattern.
        accent: Finish in the second colour.
        dark: A shade of the main colour, for details that must not change what it is called.
        parts: Meshes with their finishes.
        states: What shows (``open``, ``full``, ``lit``, ``lying``, …).
        opening: Room inside, if things can be put into it.
        shelves: Level places on which things can stand.
    """

    rng: np.random.Generator
    colour: str
    material: str
    main: Finish
    body: Finish
    accent: Finish
    dark: Finish
    parts: list[tuple[Mesh, Finish]] = field(default_factory=list)
    states: set[str] = field(default_factory=set)
    opening: Opening | None = None
    shelves: list[Shelf] = field(default_factory=list)

    def add(self, mesh: Mesh, finish: Finish | None = None) -> None:
        """Add a part, in the main finish unless another is given."""
        self.parts.append((mesh, self.main if finish is None else finish))

    def between(self, low: float, high: float) -> float:
        """Draw a number between two bounds."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Draw True with this probability."""
        return bool(self.rng.random() < probability)
