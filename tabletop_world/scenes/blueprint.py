"""The geometry of a scene, and how MuJoCo gets it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tabletop_world.catalogue.making import Finish
from tabletop_world.catalogue.shapes import Mesh
from tabletop_world.scenes.opengl import mujoco

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """A mesh in world coordinates with its finish and the id of the object that it belongs to."""

    object_id: int
    mesh: Mesh
    finish: Finish


@dataclass(frozen=True)
class Light:
    """A distant light.

    Attributes:
        towards: Direction in which it shines, world frame.
        strength: Diffuse red, green and blue.
        shadows: Whether it casts shadows.
    """

    towards: Vector
    strength: Vector
    shadows: bool = False


@dataclass(frozen=True, eq=False)
class Blueprint:
    """Everything that is needed to render a scene.

    Attributes:
        parts: All meshes; their order is the order of MuJoCo's geoms.
        lights: Distant lights.
        ambient: Ambient red, green and blue.
        centre: Middle of what casts shadows, metres.
        reach: Half size of the square that shadows cover, metres.
    """

    parts: tuple[Part, ...]
    lights: tuple[Light, ...]
    ambient: Vector
    centre: Vector
    reach: float

    def spec(self, textures: bool = True) -> mujoco.MjSpec:
        """Return the scene as an editable MuJoCo model.

        Args:
            textures: Whether patterns and grain are kept; if not, their mean colour is taken.
        """
        spec = mujoco.MjSpec()
        spec.compiler.usethread = 0
        spec.stat.extent = 1.0
        spec.stat.center = self.centre
        visual = spec.visual
        visual.map.znear, visual.map.zfar = 0.02, 20.0
        visual.map.shadowclip = self.reach
        visual.quality.shadowsize = 1024
        visual.headlight.ambient = self.ambient
        visual.headlight.diffuse = visual.headlight.specular = (0.0, 0.0, 0.0)
        world = spec.worldbody
        for light in self.lights:
            towards = np.asarray(light.towards, dtype=np.float64)
            towards = towards / np.linalg.norm(towards)
            world.add_light(
                type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
                pos=np.asarray(self.centre) - 2.0 * towards,
                dir=towards,
                diffuse=light.strength,
                specular=[0.5 * s for s in light.strength],
                ambient=(0.0, 0.0, 0.0),
                castshadow=light.shadows,
            )
        materials: dict[Finish, str] = {}
        for index, part in enumerate(self.parts):
            finish = part.finish
            if finish not in materials:
                materials[finish] = self._add_material(
                    spec, finish, f'finish{len(materials)}', textures
                )
            name = f'mesh{index}'
            spec.add_mesh(
                name=name,
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
                uservert=part.mesh.vertices.ravel(),
                usernormal=part.mesh.normals.ravel(),
                usertexcoord=part.mesh.uv.ravel(),
                userface=part.mesh.faces.ravel(),
            )
            world.add_geom(
                name=f'object{part.object_id}_{index}',
                type=mujoco.mjtGeom.mjGEOM_MESH,
                meshname=name,
                material=materials[finish],
                contype=0,
                conaffinity=0,
            )
        return spec

    @staticmethod
    def _add_material(spec: mujoco.MjSpec, finish: Finish, name: str, textures: bool) -> str:
        rgb = np.array(finish.rgb)
        if finish.image is not None and not textures:
            rgb = rgb * finish.image.mean(axis=(0, 1)) / 255.0
        material = spec.add_material(
            name=name,
            rgba=(*rgb, finish.alpha),
            specular=finish.specular,
            shininess=finish.shininess,
            emission=finish.emission,
        )
        if finish.image is not None and textures:
            height, width = finish.image.shape[:2]
            texture = spec.add_texture(
                name=name,
                type=mujoco.mjtTexture.mjTEXTURE_2D,
                width=width,
                height=height,
                nchannel=3,
            )
            texture.data = finish.image.tobytes()
            role = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
            slots = [''] * int(mujoco.mjtTextureRole.mjNTEXROLE)
            slots[role] = name
            material.textures = slots
        return name

    def compile(self) -> mujoco.MjModel:
        """Return the compiled MuJoCo model."""
        return self.spec().compile()

    def xml(self) -> str:
        """Return the scene as MuJoCo XML with the meshes inline.

        MuJoCo's XML cannot hold pictures: what is patterned has its mean colour there.
        """
        spec = self.spec(textures=False)
        spec.compile()
        return str(spec.to_xml())
