"""A tiny model, and its exports."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_models import make_vit
from tiny_models import CARD

from clipseg_model.registry import load_model
from clipseg_model.runtime import runtime_class
from clipseg_model.runtime.export_files import exports_folder, weights_digest
from clipseg_model.weights.checkpoints import save_checkpoint


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
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('vit') / 'vit.safetensors'
    save_checkpoint(path, make_vit(), CARD)
    return path


@pytest.fixture(scope='session')
def exported(vit: Path, exports: Path) -> Path:
    """The folder with the exports of :func:`vit`: half a minute's work, for one of the workers."""
    for package in ('onnxruntime', 'openvino'):
        pytest.importorskip(package)
    model, card = load_model(vit)
    digest = weights_digest(model)
    root = exports / exports_folder(card, digest).name
    with (exports / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / '.whole').exists():
            for name in ('onnxruntime', 'openvino'):
                kind: Any = runtime_class(name)
                kind.export(model, card, digest, root, torch.device('cpu'), 'fp32')
            (root / '.whole').touch()
    return root
