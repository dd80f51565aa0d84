"""Loads and runs damaged exports, each in a process of its own, since a runtime may end it.

``python fuzz_exports.py CHECKPOINT EXPORTS SCRATCH RUNTIME COUNT`` prints a line for each, and at
last one of JSON: how many were used, refused by an error of ours, and, with the reason, others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from clipseg_model.errors import ClipsegError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.registry import load_model
from clipseg_model.runtime import create_runtime, runtime_class
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.exports.files import MANIFEST
from clipseg_model.segmenter import Segmenter
from tests.fuzz.mutations import guarded, mutate_bytes, mutate_json

SECONDS = 60


def damage(variant: Path, rng: np.random.Generator) -> str:
    """Change one file; half of the time the manifest vouches for it nevertheless."""
    files = sorted(path for path in variant.iterdir() if path.name != MANIFEST)
    manifest = json.loads((variant / MANIFEST).read_text())
    if rng.random() < 0.25:
        changed = mutate_json(manifest, rng)
        if isinstance(changed, dict):
            # Else it is of other weights, which ends the matter.
            changed.setdefault('weights_sha256', manifest['weights_sha256'])
        (variant / MANIFEST).write_text(json.dumps(changed))
        return MANIFEST
    path = files[rng.integers(0, len(files))]
    data = path.read_bytes()
    # Where the structure is, now and then.
    at = int(rng.choice([0, max(0, len(data) - 3000), rng.integers(0, len(data))]))
    path.write_bytes(data[:at] + mutate_bytes(data[at : at + 3000], rng) + data[at + 3000 :])
    if rng.random() < 0.8:
        manifest['files'][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        (variant / MANIFEST).write_text(json.dumps(manifest))
    return path.name


def attempt(model: SegmentationModel, card: ModelCard, folder: Path, runtime: str) -> str:
    """Load and use an export; return what came of it."""
    try:
        with guarded(SECONDS, 3 << 30):
            segmenter = Segmenter(create_runtime(model, card, 'cpu', runtime, exports=folder), card)
            segmenter.segment(np.full((60, 80, 3), 90, np.uint8), ['a mug', 'a chair'])
    except ClipsegError:
        return 'refused'
    except BaseException:
        return traceback.format_exc()[-1500:]
    return 'used'


def apart(model: SegmentationModel, card: ModelCard, folder: Path, runtime: str) -> str:
    """Do so in a child process."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        # What a runtime has to say is not for this test.
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)
        os.write(write, attempt(model, card, folder, runtime).encode()[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        outcome = told.read()
    status = os.waitpid(child, 0)[1]
    return outcome if os.WIFEXITED(status) else f'ended by signal {os.WTERMSIG(status)}'


def main(checkpoint: Path, exports: Path, scratch: Path, runtime: str, count: int) -> None:
    torch.set_num_threads(1)  # Threads do not survive a fork.
    kind = runtime_class(runtime)
    name = kind.variant(Device('cpu'), 'fp32')  # type: ignore[attr-defined]
    model, card = load_model(checkpoint)
    outcomes: Counter[str] = Counter()
    others = []
    for seed in range(count):
        folder = scratch / str(seed)
        shutil.copytree(exports / name, folder / name)
        rng = np.random.default_rng([*runtime.encode(), seed])
        changed = damage(folder / name, rng)
        outcome = apart(model, card, folder, runtime)
        shutil.rmtree(folder)
        print(seed, changed, outcome.splitlines()[-1], flush=True)
        if outcome in ('used', 'refused'):
            outcomes[outcome] += 1
        else:
            others.append(f'{seed}, {changed}: {outcome}')
    print(json.dumps({**outcomes, 'others': others}))


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:4]), sys.argv[4], int(sys.argv[5]))
