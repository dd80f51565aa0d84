"""A tiny model, and its exports."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runtime_models import make_vit
from tiny_models import CARD

from clipseg_model.registry import load_model
from clipseg_model.runtime import runtime_class
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.exports.files import exports_folder
from clipseg_model.runtime.split import weights_digest
from clipseg_model.weights.checkpoints import save_checkpoint


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other workers from making the same meanwhile."""
    with (folder / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope='session')
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of exports that all tests share, those of other workers too."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'exports'
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CLIPSEG_EXPORTS', str(exports))


@pytest.fixture(scope='session')
def vit(exports: Path) -> Path:
    """One file for all workers: an export is of a file, whose bytes may come in another order."""
    path = exports.parent / 'vit' / 'vit.safetensors'
    with locked(exports):
        if not path.exists():
            path.parent.mkdir()
            save_checkpoint(path, make_vit(), CARD)
    return path


@pytest.fixture(scope='session')
def exported(vit: Path, exports: Path) -> Path:
    """The folder with the exports of :func:`vit`: half a minute's work, for one of the workers."""
    model, card = load_model(vit)
    digest = weights_digest(model)
    root = exports / exports_folder(card, digest).name
    with locked(exports):
        if not (root / '.whole').exists():
            kind: Any = runtime_class('onnxruntime')
            kind.export(model, card, digest, root, Device('cpu'), 'fp32')
            (root / '.whole').touch()
    return root
