"""The household world as a stream of frames, still or seen from a camera that circles slowly."""

from __future__ import annotations

from types import TracebackType

import numpy as np

from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from tabletop_world.scenes.scene import Camera, Frame

MOTIONS = ('still', 'orbit')

_PERIOD_S = 24.0
_SWING = 0.45


class LiveWorld:
    """Renders one scene again and again; the graphics side is set up once.

    Args:
        seed: Seed of the scene.
        width: Pixels.
        height: Pixels.
        motion: ``still``, or ``orbit``: the camera swings to and fro about the vertical through
            its target, 0.45 rad to either side in 24 s, from where it would stand still at 0 s.
        split: Split of the scene.
        kind: ``tabletop`` or ``floor``; drawn if None.
        camera: Index of the scene's camera to start from.
        samples: Multisampling of the RGB picture.

    Raises:
        ValueError: If there is no such motion, split or kind, or a size is not positive.
        IndexError: If the scene has no such camera.
    """

    def __init__(
        self,
        seed: int = 0,
        width: int = 640,
        height: int = 480,
        motion: str = 'still',
        split: str = 'test',
        kind: str | None = None,
        camera: int = 0,
        samples: int = 4,
    ) -> None:
        if motion not in MOTIONS:
            raise ValueError(f'no motion is called {motion!r}; there are {", ".join(MOTIONS)}')
        self.motion = motion
        self.scene = generate_scene(seed, split, kind)
        if not 0 <= camera < len(self.scene.cameras):
            raise IndexError(
                f'scene {split}/{seed} has cameras 0 to {len(self.scene.cameras) - 1}, not {camera}'
            )
        self._camera = self.scene.cameras[camera]
        self._renderer = Renderer(width, height, samples)

    def __enter__(self) -> LiveWorld:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the scene on the graphics side."""
        self._renderer.close()

    def camera_at(self, t: float) -> Camera:
        """Return the camera at ``t`` seconds."""
        if self.motion == 'still':
            return self._camera
        angle = _SWING * float(np.sin(2 * np.pi * t / _PERIOD_S))
        c, s = float(np.cos(angle)), float(np.sin(angle))
        x, y, z = np.subtract(self._camera.position, self._camera.target)
        tx, ty, tz = self._camera.target
        return Camera(
            (float(tx + c * x - s * y), float(ty + s * x + c * y), float(tz + z)),
            self._camera.target,
            self._camera.fovy,
        )

    def frame(self, t: float) -> Frame:
        """Render the world as it is at ``t`` seconds, depth included.

        Raises:
            RuntimeError: If the world is closed.
        """
        return self._renderer.render(self.scene, self.camera_at(t))
