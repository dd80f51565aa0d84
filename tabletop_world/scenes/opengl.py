"""MuJoCo with an OpenGL that needs no display, and what must be loaded before that."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from pathlib import Path

#: MuJoCo picks its OpenGL when it is first imported.
BACKEND = os.environ.setdefault('MUJOCO_GL', 'egl')


def keep_llvm_apart() -> None:
    """Load Triton, where it is installed, before Mesa is; nothing where it is not.

    Mesa loads its software renderer with RTLD_GLOBAL, and with it an LLVM whose symbols every
    library that is loaded later sees first. Triton, which torch imports, has another LLVM in it:
    with the symbols of Mesa's it crashes the process when it is loaded. Loaded first, it has
    bound to its own, for an import at any time.
    """
    found = importlib.util.find_spec('triton')
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        for library in Path(folder, '_C').glob('libtriton*.so'):
            # One that cannot be loaded now will not be loaded later either: its import says why.
            with contextlib.suppress(OSError):
                # ctypes binds all symbols at once (RTLD_NOW).
                ctypes.CDLL(str(library))


if BACKEND == 'osmesa':
    # This one is loaded with the import of mujoco.
    keep_llvm_apart()

import mujoco as mujoco  # noqa: E402
