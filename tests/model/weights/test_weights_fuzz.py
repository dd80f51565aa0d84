"""Damaged checkpoints, folders, cards and manifests: read, or refused in our words; never else."""

from __future__ import annotations

import json
import shutil
import struct
import traceback
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from test_official import official
from tiny_models import CARD, make_model

from clipseg_model.errors import ClipsegError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.runtime.export_files import MANIFEST, read_variant, write_variant
from clipseg_model.weights import huggingface
from clipseg_model.weights.checkpoints import load_card, load_checkpoint, save_checkpoint
from clipseg_model.weights.official import read_official
from tests.fuzz.mutations import (
    guarded,
    lacked_memory,
    mutate_bytes,
    mutate_json,
    mutate_json_text,
)

Rng = np.random.Generator

TOWERS: dict[str, Any] = {
    'embed_dim': 8,
    'vision_cfg': {'image_size': 32, 'layers': 3, 'width': 16, 'patch_size': 16, 'head_width': 8},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 8, 'heads': 2, 'layers': 1},
}


@pytest.fixture
def outcomes() -> dict[str, int]:
    return {'read': 0, 'refused': 0}


@pytest.fixture
def attempt(tmp_path: Path, outcomes: dict[str, int]) -> Callable[..., None]:
    """Call a reader on a damaged input; nothing but success and an error of ours may come."""

    def call(read: Callable[[Path], object], path: Path, seed: object) -> None:
        before = sorted(entry.name for entry in path.parent.iterdir())
        found: BaseException | None = None
        try:
            with guarded():
                read(path)
        except BaseException as error:
            found = error
        told = '' if found is None else ''.join(traceback.format_exception(found))[-3000:]
        if isinstance(found, KeyboardInterrupt):
            raise found
        assert found is None or isinstance(found, ClipsegError), f'{seed}: {told}'
        assert not lacked_memory(found), f'{seed}: {told}'
        assert 'weights_only' not in str(found), f'{seed}: {found}'
        assert len(str(found)) < 50_000, f'{seed}: a message that nobody reads'
        assert sorted(entry.name for entry in path.parent.iterdir()) == before, seed
        outcomes['read' if found is None else 'refused'] += 1

    return call


def generators(name: str, count: int) -> list[tuple[str, Rng]]:
    return [
        (f'{name} {seed}', np.random.default_rng([*name.encode(), seed])) for seed in range(count)
    ]


def with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the JSON of a safetensors file."""
    length = struct.unpack('<Q', data[:8])[0]
    changed = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
    return struct.pack('<Q', len(changed)) + changed + data[8 + length :]


@pytest.fixture(scope='module')
def own(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp('own') / 'tiny.safetensors'
    save_checkpoint(path, make_model(), CARD)
    return path.read_bytes()


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers has it."""
    folder = tmp_path_factory.mktemp('hf') / 'tiny'
    torch.manual_seed(0)
    model = CLIPSeg(OpenClipBackbone(overrides=TOWERS), [0, 1], dim=8, feedforward=8)
    card = ModelCard.from_stored({'name': 'tiny', 'input_size': 32}, model.config(), folder)
    huggingface.save_huggingface(folder, model, card)
    return folder


def embed(path: Path) -> None:
    """Read a model and ask it something: its vocabulary is read late."""
    load_checkpoint(path)[0].embed_texts(['the mug'])


class TestOwnFiles:
    def test_bytes(self, own: bytes, tmp_path: Path, attempt: Any, outcomes: Any) -> None:
        path = tmp_path / 'a.safetensors'
        for seed, rng in generators('own bytes', 120):
            # The header is a small part of the file, and the part with a structure.
            cut = 8 + struct.unpack('<Q', own[:8])[0]
            head, body = own[:cut], own[cut:]
            if rng.random() < 0.7:
                head = mutate_bytes(head, rng)
            else:
                body = mutate_bytes(body, rng)
            path.write_bytes(head + body)
            attempt(embed if rng.random() < 0.5 else load_card, path, seed)
        assert outcomes['refused'] > 60

    def test_the_vocabulary(self, own: bytes, tmp_path: Path, attempt: Any, outcomes: Any) -> None:
        path = tmp_path / 'a.safetensors'
        packed = load(own)['backbone.text.vocabulary'].numpy().tobytes()
        bomb = zlib.compress(b'[UNK]' + b'\n' * (1 << 28))[: len(packed)]
        for seed, rng in [*generators('vocabulary', 60), ('bomb', None)]:
            changed = mutate_bytes(packed, rng) if rng is not None else bomb
            changed = changed.ljust(len(packed), b'\0')[: len(packed)]
            path.write_bytes(own.replace(packed, changed))
            attempt(embed, path, seed)
        assert outcomes['refused'] > 20

    def test_headers(self, own: bytes, tmp_path: Path, attempt: Any, outcomes: Any) -> None:
        path = tmp_path / 'a.safetensors'
        for seed, rng in generators('own header', 60):
            path.write_bytes(with_header(own, lambda header, r=rng: mutate_json(header, r)))  # type: ignore[misc]
            attempt(load_checkpoint, path, seed)
        assert outcomes['refused'] > 30

    @pytest.mark.parametrize('entry', ['config', 'card', 'without'])
    def test_settings(
        self, own: bytes, tmp_path: Path, attempt: Any, outcomes: Any, entry: str
    ) -> None:
        path = tmp_path / 'a.safetensors'

        def change(header: dict[str, Any], rng: Rng) -> dict[str, Any]:
            metadata = header['__metadata__']
            text = mutate_json_text(json.loads(metadata[entry]), rng)
            return {**header, '__metadata__': {**metadata, entry: text.decode(errors='replace')}}

        for seed, rng in generators(f'own {entry}', 60 if entry != 'without' else 20):
            path.write_bytes(with_header(own, lambda header, r=rng: change(header, r)))  # type: ignore[misc]
            attempt(load_checkpoint, path, seed)
        assert outcomes['refused'] > 10

    def test_cards(self, tmp_path: Path, attempt: Any, outcomes: Any) -> None:
        path = tmp_path / 'a.safetensors'
        card = ModelCard.from_stored(CARD, make_model().config(), path)
        stored = {**card.stored_fields(), 'details': {'seed': 1, 'best': [1, {'iou': 0.5}]}}
        for seed, rng in generators('card', 200):
            damaged = mutate_json(stored, rng)
            if isinstance(damaged, dict):
                attempt(lambda p, d=damaged: ModelCard.from_stored(d, {}, p), path, seed)
        assert min(outcomes.values()) > 20


class TestFolders:
    @pytest.mark.parametrize(
        'name', ['config.json', 'preprocessor_config.json', 'clipseg_ros.json']
    )
    def test_settings(
        self, whole: Path, tmp_path: Path, attempt: Any, outcomes: Any, name: str
    ) -> None:
        folder = tmp_path / 'tiny'
        shutil.copytree(whole, folder)
        content = json.loads((whole / name).read_text())
        for seed, rng in generators(name, 80):
            (folder / name).write_bytes(mutate_json_text(content, rng))
            # What is in the settings alone, and now and then the weights too, which takes long.
            slow = name == 'config.json' and rng.random() < 0.4
            attempt(load_checkpoint if slow else load_card, folder, seed)
        assert min(outcomes.values()) > 4

    def test_an_index(self, whole: Path, tmp_path: Path, attempt: Any, outcomes: Any) -> None:
        folder = tmp_path / 'tiny'
        shutil.copytree(whole, folder)
        part = 'model-00001-of-00001.safetensors'
        (folder / 'model.safetensors').rename(folder / part)
        keys = list(official())[:6]
        index = {'metadata': {}, 'weight_map': dict.fromkeys(keys, part)}
        for seed, rng in generators('index', 40):
            (folder / 'model.safetensors.index.json').write_bytes(mutate_json_text(index, rng))
            attempt(load_checkpoint, folder, seed)
        assert outcomes['refused'] > 5


class TestPickles:
    @pytest.mark.filterwarnings('ignore')
    @pytest.mark.parametrize('zipped', [True, False])
    def test_bytes(self, tmp_path: Path, attempt: Any, outcomes: Any, zipped: bool) -> None:
        path = tmp_path / 'a.pth'
        torch.save(official(), path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for seed, rng in generators(f'pickle bytes {zipped}', 60):
            # Where the structure is: in the middle of a file of zeros nothing is to be found.
            at = int(rng.choice([0, len(whole) - 4000, rng.integers(0, len(whole))]))
            part = mutate_bytes(whole[at : at + 4000], rng)
            path.write_bytes(whole[:at] + part + whole[at + 4000 :])
            attempt(read_official, path, seed)
        assert outcomes['refused'] > 20

    @pytest.mark.filterwarnings('ignore')
    def test_the_pickle_in_a_zip(self, tmp_path: Path, attempt: Any, outcomes: Any) -> None:
        path = tmp_path / 'a.pth'
        torch.save(official(), path)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        (name,) = (name for name in entries if name.endswith('data.pkl'))
        for seed, rng in generators('pickle', 120):
            with zipfile.ZipFile(path, 'w') as archive:
                for entry, content in entries.items():
                    archive.writestr(
                        entry, mutate_bytes(content, rng) if entry == name else content
                    )
            attempt(read_official, path, seed)
        assert outcomes['refused'] > 80


class TestManifests:
    def test_manifests(self, tmp_path: Path, attempt: Any, outcomes: Any) -> None:
        folder = tmp_path / 'onnx'
        card = ModelCard('tiny', 'clipseg', {}, 64)

        def write(made: Path) -> dict[str, Any]:
            (made / 'encoder.onnx').write_bytes(b'an export')
            return {'parts': 3}

        write_variant(folder, card, 'ab' * 32, {'torch': '2'}, write)
        content = json.loads((folder / MANIFEST).read_text())
        for seed, rng in generators('manifest', 200):
            (folder / MANIFEST).write_bytes(mutate_json_text(content, rng))
            attempt(lambda path: read_variant(path, 'ab' * 32, {'torch': '2'}), folder, seed)
        assert min(outcomes.values()) > 20
