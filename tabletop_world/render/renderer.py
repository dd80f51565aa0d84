"""Pictures of a scene with exact truth, from MuJoCo's classic renderer without a display."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tabletop_world.scenes.opengl import keep_llvm_apart, mujoco
from tabletop_world.scenes.scene import Camera, Frame, Scene

_GL_SIDE = 64

_Result = TypeVar('_Result')


class _Graphics:
    """The thread that owns this process's only OpenGL context.

    A context belongs to the thread that it was made current in. With all drawing done in one
    thread, renderers can be made, used and closed from any thread, and share the context. Its
    own surface is never drawn on (pictures go to MuJoCo's off-screen buffers), so its size does
    not matter.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._thread = ThreadPoolExecutor(1, 'tabletop_world')
        self._context: mujoco.GLContext | None = None

    def _open(self) -> None:
        try:
            keep_llvm_apart()
            self._context = mujoco.GLContext(_GL_SIDE, _GL_SIDE)
            self._context.make_current()
        except Exception as error:
            raise RuntimeError(
                f'cannot draw with MUJOCO_GL={os.environ.get("MUJOCO_GL")} ({error}); install '
                'software OpenGL (libegl1 libegl-mesa0 libgl1-mesa-dri, or libosmesa6 with '
                'MUJOCO_GL=osmesa)'
            ) from error

    def run(self, task: Callable[[], _Result]) -> _Result:
        """Run a task in the thread, and return its result."""

        def with_context() -> _Result:
            if self._context is None:
                self._open()
            return task()

        return self._thread.submit(with_context).result()


_graphics: _Graphics | None = None
_graphics_lock = threading.Lock()


def _on_graphics(task: Callable[[], _Result]) -> _Result:
    """Run a task where OpenGL is at hand; a forked process gets a thread of its own."""
    global _graphics
    with _graphics_lock:
        if _graphics is None or _graphics.process != os.getpid():
            _graphics = _Graphics()
        graphics = _graphics
    return graphics.run(task)


def camera_axes(camera: Camera) -> NDArray[np.float64]:
    """Return the 3 × 3 rotation whose columns are the optical x (right), y (down), z (forward).

    Raises:
        ValueError: If the camera's position and target coincide.
    """
    forward = np.asarray(camera.target, dtype=np.float64) - np.asarray(camera.position)
    length = float(np.linalg.norm(forward))
    if length < 1e-9:
        raise ValueError(f'camera position and target are both {camera.position}; move one of them')
    forward /= length
    right = np.cross(forward, (0.0, 0.0, 1.0))
    if np.linalg.norm(right) < 1e-6:
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


class Renderer:
    """Renders scenes; keeps the last scene's compiled model, so further views of it are cheap.

    Args:
        width: Pixels.
        height: Pixels.
        samples: Multisampling of the RGB picture (0 for none); ids and depth are never blended.

    Raises:
        ValueError: If a size is not positive or ``samples`` is negative.
    """

    def __init__(self, width: int = 256, height: int = 256, samples: int = 4) -> None:
        if width < 1 or height < 1 or samples < 0:
            raise ValueError(
                f'cannot render {width} × {height} pixels with {samples} samples; sizes must be '
                'positive and samples 0 or more'
            )
        self.width, self.height, self.samples = width, height, samples
        self._scene: Scene | None = None
        self._model: mujoco.MjModel | None = None
        self._context: mujoco.MjrContext | None = None
        self._view: mujoco.MjvScene | None = None
        self._closed = False
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._raw = np.empty((height, width, 3), np.uint8)
        self._ids = np.empty((height, width, 3), np.uint8)
        self._window = np.empty((height, width), np.float32)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the scene on the graphics side; the renderer cannot be used afterwards."""
        if self._context is not None:
            _on_graphics(self._release)
        self._closed = True

    def _release(self) -> None:
        if self._context is not None:
            self._context.free()
        self._context = self._view = self._model = self._scene = None

    def _load(self, scene: Scene) -> None:
        """Compile a scene and hand it to the graphics side, once for all its views."""
        if scene.blueprint is None:
            raise ValueError(
                f'scene {scene.split}/{scene.seed} has no blueprint; make it with generate_scene'
            )
        self._release()
        model = scene.blueprint.compile()
        model.vis.global_.offwidth, model.vis.global_.offheight = self.width, self.height
        model.vis.quality.offsamples = self.samples
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        view = mujoco.MjvScene(model, maxgeom=model.ngeom + 8)
        mujoco.mjv_updateScene(
            model,
            data,
            mujoco.MjvOption(),
            None,
            mujoco.MjvCamera(),
            mujoco.mjtCatBit.mjCAT_ALL,
            view,
        )
        # The id pass paints segid + 1: with the object's id there, red is the id itself.
        for geom in view.geoms[: view.ngeom]:
            geom.segid = scene.blueprint.parts[geom.objid].object_id - 1
        for flag in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX):
            view.flags[flag] = 0
        self._scene, self._model, self._context, self._view = scene, model, context, view

    def render(self, scene: Scene, camera: int | Camera = 0, *, depth: bool = True) -> Frame:
        """Render one view.

        Args:
            scene: Made by :func:`tabletop_world.scenes.random_scenes.generate_scene`.
            camera: Index into ``scene.cameras``, or a camera of your own.
            depth: Whether to measure depth; if not, ``Frame.depth`` is all 0.

        Raises:
            RuntimeError: If the renderer is closed, or there is no OpenGL to draw with.
            IndexError: If the scene has no such camera.
            ValueError: If the scene has no blueprint or the camera looks nowhere.
        """
        if self._closed:
            raise RuntimeError('this Renderer is closed; make a new one')
        if isinstance(camera, int):
            if not 0 <= camera < len(scene.cameras):
                raise IndexError(
                    f'scene {scene.split}/{scene.seed} has cameras 0 to {len(scene.cameras) - 1}, '
                    f'not {camera}'
                )
            camera = scene.cameras[camera]
        chosen = camera
        return _on_graphics(lambda: self._draw(scene, chosen, depth))

    def _draw(self, scene: Scene, camera: Camera, depth: bool) -> Frame:
        axes = camera_axes(camera)
        if scene is not self._scene:
            self._load(scene)
        model, view, context = self._model, self._view, self._context
        assert model is not None
        assert view is not None
        assert context is not None
        near, far = float(model.vis.map.znear), float(model.vis.map.zfar)  # extent is 1
        half = near * float(np.tan(np.radians(camera.fovy) / 2))
        for eye in view.camera:
            eye.pos = camera.position
            eye.forward = axes[:, 2]
            eye.up = -axes[:, 1]
            eye.frustum_center = 0.0
            eye.frustum_width = half * self.width / self.height
            eye.frustum_bottom, eye.frustum_top = -half, half
            eye.frustum_near, eye.frustum_far = near, far
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        mujoco.mjr_render(self._rect, view, context)
        mujoco.mjr_readPixels(self._raw, None, self._rect, context)
        flags = view.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        mujoco.mjr_render(self._rect, view, context)
        mujoco.mjr_readPixels(self._ids, self._window if depth else None, self._rect, context)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 0
        focal = self.height / 2 / float(np.tan(np.radians(camera.fovy) / 2))
        pose = np.eye(4)
        pose[:3, :3] = axes
        pose[:3, 3] = camera.position
        return Frame(
            scene=scene,
            camera=camera,
            rgb=np.ascontiguousarray(self._raw[::-1]),
            instances=np.ascontiguousarray(self._ids[::-1, :, 0]),
            depth=self._metric_depth(near, far)
            if depth
            else np.zeros((self.height, self.width), np.float32),
            intrinsics=np.array(
                [
                    [focal, 0.0, (self.width - 1) / 2],
                    [0.0, focal, (self.height - 1) / 2],
                    [0.0, 0.0, 1.0],
                ]
            ),
            camera_pose=pose,
        )

    def _metric_depth(self, near: float, far: float) -> NDArray[np.float32]:
        """Turn the reversed depth buffer (1 near, 0 far) into metres; 0 where nothing was hit."""
        window = self._window[::-1].astype(np.float64)
        metres = near * far / (near + window * (far - near))
        return np.where(window > 0.0, metres, 0.0).astype(np.float32)
