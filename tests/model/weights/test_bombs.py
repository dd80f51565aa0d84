"""Checkpoints that are small and would fill the memory, never end, or reach for other files."""

from __future__ import annotations

import json
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from test_official import official
from tiny_models import CARD, make_model

from clipseg_model.errors import CheckpointError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.bundled.word_pieces import unpack_tokenizer
from clipseg_model.modeling.open_clip_models import create_clip
from clipseg_model.modeling.vitseg import ImageNetViT
from clipseg_model.registry import create_model
from clipseg_model.weights.checkpoints import load_card, load_checkpoint, load_towers
from clipseg_model.weights.checkpoints import save_checkpoint as save_own
from clipseg_model.weights.files import outline
from clipseg_model.weights.official import read_official
from tests.fuzz.mutations import guarded

MEGABYTE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'tiny.safetensors'
    save_own(path, make_model(), CARD)
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], object], **tensors: Any) -> None:
    """Change the configuration of a checkpoint, and some of its tensors."""
    data = path.read_bytes()
    length = struct.unpack('<Q', data[:8])[0]
    metadata = json.loads(data[8 : 8 + length])['__metadata__']
    config = json.loads(metadata['config'])
    change(config)
    path.write_bytes(save({**load(data), **tensors}, {**metadata, 'config': json.dumps(config)}))


def refused(path: Path, words: str, memory: int = 300 * MEGABYTE) -> None:
    with guarded(20, memory), pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


class TestConfigurations:
    @pytest.mark.parametrize(
        ('where', 'value'),
        [
            (('backbone', 'num_blocks'), 10**9),
            (('backbone', 'num_blocks'), 1000),
            (('backbone', 'text_blocks'), 10**6),
            (('backbone', 'width'), 10**7),
            (('backbone', 'max_pieces'), 10**6),
            (('backbone', 'max_pieces'), 10**20),
            (('layers',), [0] * 10**6),
            (('layers',), [0, 10**9]),
            (('decoder', 'dim'), 10**6),
            (('decoder', 'feedforward'), 2**20),
            (('backbone',), {'type': 'open_clip', 'architecture': 'ViT-bigG-14'}),
        ],
    )
    def test_sizes(self, path: Path, where: tuple[str, ...], value: Any) -> None:
        def change(config: dict[str, Any]) -> None:
            for key in where[:-1]:
                config = config[key]
            config[where[-1]] = value

        rewrite(path, change)
        refused(path, 'configuration|do not fit', 900 * MEGABYTE)

    def test_memory_beside_the_weights(self, tmp_path: Path) -> None:
        """The mask of causal attention is as large as the square of a text's length."""
        text = {'context_length': 60_000, 'vocab_size': 9, 'width': 8, 'heads': 1, 'layers': 1}
        overrides = {'text_cfg': text}
        backbone = {'type': 'open_clip', 'architecture': 'ViT-B-32', 'overrides': overrides}
        config = {'architecture': 'clipseg', 'backbone': backbone, 'layers': [1], 'decoder': {}}
        with guarded(20, 900 * MEGABYTE), pytest.raises(CheckpointError, match='beside its weig'):
            outline(config, tmp_path)

    def test_weights_of_something_else_are_not_read(self, path: Path) -> None:
        """A file of four gigabytes, most of it a hole, with the card of a small model."""
        data = path.read_bytes()
        length = struct.unpack('<Q', data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        size = 1 << 32
        end = len(data) - 8 - length
        header['more'] = {'dtype': 'U8', 'shape': [size], 'data_offsets': [end, end + size]}
        text = json.dumps(header).encode()
        with path.open('wb') as file:
            file.write(struct.pack('<Q', len(text)) + text + data[8 + length :])
            file.truncate(8 + len(text) + end + size)
        with pytest.raises(CheckpointError, match='more is unknown'):
            load_checkpoint(path)

    @pytest.mark.parametrize('length', [1 << 25, 1 << 40, (1 << 64) - 1])
    def test_headers_without_end(self, path: Path, length: int) -> None:
        with path.open('wb') as file:
            file.write(struct.pack('<Q', length) + b'{')
            file.truncate(1 << 41)
        for read in (load_checkpoint, load_card):
            with guarded(5, 300 * MEGABYTE), pytest.raises(CheckpointError, match='header would'):
                read(path)

    @pytest.mark.parametrize(
        'text', ['[' * 100_000, '{"a":' * 100_000, '{"num_blocks": ' + '9' * 900_000 + '}']
    )
    def test_texts(self, path: Path, text: str) -> None:
        data = path.read_bytes()
        length = struct.unpack('<Q', data[:8])[0]
        metadata = json.loads(data[8 : 8 + length])['__metadata__']
        for key in ('config', 'card', 'without'):
            path.write_bytes(save(load(data), {**metadata, key: text}))
            refused(path, f'The {key} in .*tiny')

    def test_more_patches_than_attention_can_hold(self, path: Path) -> None:
        model, card = load_checkpoint(path)
        stored = {**card.stored_fields(), 'input_size': 4096}
        assert ModelCard.from_stored(stored, model.config(), path).input_size == 4096
        model.backbone.patch_size = 8
        from clipseg_model.segmenter import Segmenter

        with pytest.raises(CheckpointError, match='more than 256 patches of 8'):
            Segmenter(model, ModelCard.from_stored(stored, model.config(), path), 'cpu')


class TestOtherPlaces:
    """A configuration does not make the program open files, or a network."""

    ADDRESSES = ('hf-hub:owner/name', 'local-dir:/etc', 'ViT-B/16', 'hf-hub:' + 'x' * 10**6)

    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*words: object, **options: object) -> None:
            raise AssertionError('a network was asked')

        monkeypatch.setattr(socket.socket, 'connect', refuse)
        monkeypatch.setattr(socket, 'getaddrinfo', refuse)

    @pytest.mark.parametrize('name', ADDRESSES, ids=lambda name: name[:20])
    def test_architectures_are_names(self, path: Path, name: str) -> None:
        rewrite(
            path, lambda config: config.update(backbone={'type': 'open_clip', 'architecture': name})
        )
        refused(path, 'knows no architecture', 900 * MEGABYTE)
        with pytest.raises(CheckpointError, match='knows no architecture') as caught:
            create_clip(name, None, {})
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize('name', ADDRESSES, ids=lambda name: name[:20])
    def test_towers_of_timm_are_names(self, path: Path, name: str) -> None:
        tower = {'architecture': name}
        rewrite(path, lambda config: config.update(architecture='vitseg', image_tower=tower))
        refused(path, 'knows no plain vision transformer', 900 * MEGABYTE)

    @pytest.mark.parametrize('option', ['checkpoint_path', 'pretrained_cfg', 'cache_dir'])
    def test_options_of_timm_that_fetch_weights(self, tmp_path: Path, option: str) -> None:
        with pytest.raises(CheckpointError, match=f'{option} are no options'):
            ImageNetViT(overrides={option: str(tmp_path)})

    @pytest.mark.parametrize('where', ['backbone', 'image_tower'])
    def test_files_of_weights(self, path: Path, where: str) -> None:
        tower = {'type': 'open_clip', 'architecture': 'ViT-B-32', 'pretrained': '/etc/passwd'}
        rewrite(path, lambda config: config.update({where: tower}))
        refused(path, 'names a file of weights')

    @pytest.mark.parametrize('part', ['vision_cfg', 'text_cfg'])
    def test_towers_of_others(self, path: Path, part: str) -> None:
        names = {
            'timm_model_name': 'hf-hub:a/b',
            'hf_model_name': 'a/b',
            'hf_tokenizer_name': 'a/b',
        }
        tower = {'type': 'open_clip', 'architecture': 'ViT-B-32', 'overrides': {part: names}}
        rewrite(path, lambda config: config.update(backbone=tower))
        refused(path, 'configuration', 900 * MEGABYTE)


class TestVocabularies:
    @pytest.mark.parametrize(
        'text',
        [
            b'[UNK]' + b'\n' * (1 << 28),
            b'[UNK]\n' + b'\n'.join(b'%x' % number for number in range(600_000)),
            b'[UNK]\n' + b'x' * (1 << 26),
        ],
        ids=['lines', 'pieces', 'one piece'],
    )
    def test_bombs(self, text: bytes) -> None:
        packed = zlib.compress(text)
        for size in (2, 600_001, (1 << 28) + 1):
            with guarded(5, 100 * MEGABYTE), pytest.raises(CheckpointError, match='vocabulary'):
                unpack_tokenizer(packed, size)

    def test_cut_off(self) -> None:
        special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]']
        packed = zlib.compress('\n'.join([*special, *map(str, range(1000))]).encode())
        assert unpack_tokenizer(packed, 1004).get_vocab_size() == 1004
        assert unpack_tokenizer(packed + bytes(9), 1004) is not None
        with pytest.raises(CheckpointError, match='cut off'):
            unpack_tokenizer(packed[:-9], 1004)
        with pytest.raises(CheckpointError, match=r'vocabulary.*sep_token'):
            unpack_tokenizer(zlib.compress(b'[UNK]\na'), 2)


class TestPickles:
    @pytest.fixture
    def whole(self, tmp_path: Path) -> Path:
        torch.save(official(), tmp_path / 'whole.pth')
        return tmp_path / 'whole.pth'

    @pytest.mark.parametrize('read', [read_official, load_towers])
    @pytest.mark.parametrize('record', ['data/0', 'data.pkl'])
    def test_compressed_zeros(self, whole: Path, read: Any, record: str) -> None:
        path = whole.with_name('bomb.pth')
        with (
            zipfile.ZipFile(whole) as source,
            zipfile.ZipFile(path, 'w', compresslevel=1) as target,
        ):
            for entry in source.infolist():
                if not entry.filename.endswith(record):
                    target.writestr(entry, source.read(entry))
                    continue
                packed = zipfile.ZipInfo(entry.filename)
                packed.compress_type = zipfile.ZIP_DEFLATED
                with target.open(packed, 'w', force_zip64=True) as file:
                    for _ in range(512):
                        file.write(bytes(MEGABYTE))
        assert path.stat().st_size < 3 * MEGABYTE
        with guarded(5, 300 * MEGABYTE), pytest.raises(CheckpointError, match='is compressed'):
            read(path)

    def test_compressed_zeros_beside_a_mark_of_programs(self, whole: Path) -> None:
        path = whole.with_name('bomb.pth')
        with (
            zipfile.ZipFile(whole) as source,
            zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as target,
        ):
            for name in source.namelist():
                target.writestr(name, source.read(name))
            target.writestr('whole/x/constants.pkl', b'')
        with pytest.raises(CheckpointError, match='is a program'):
            read_official(path)

    def test_entries_that_share_their_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / 'shared.pth'
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('a/data/0', bytes(MEGABYTE))
            first = archive.filelist[0]
            for number in range(1, 1000):
                other = zipfile.ZipInfo(f'a/data/{number}')
                for key in ('header_offset', 'file_size', 'compress_size', 'CRC'):
                    setattr(other, key, getattr(first, key))
                archive.filelist.append(other)
        with guarded(5, 300 * MEGABYTE), pytest.raises(CheckpointError, match='larger than it is'):
            read_official(path)

    def test_decoders_that_no_memory_holds(self, tmp_path: Path) -> None:
        state = official()
        state['film_mul.weight'] = torch.zeros(1 << 18, 1)
        state['reduces.0.weight'] = torch.zeros(1, 1 << 18)
        torch.save(state, tmp_path / 'a.pth')
        with guarded(10, 500 * MEGABYTE), pytest.raises(CheckpointError, match='do not fit'):
            read_official(tmp_path / 'a.pth')
        more = {f'reduces.{number}.weight': torch.zeros(1, 1) for number in range(1000)}
        torch.save({**official(), **more}, tmp_path / 'a.pth')
        with guarded(10, 500 * MEGABYTE), pytest.raises(CheckpointError, match='1000 blocks'):
            read_official(tmp_path / 'a.pth')


def test_the_bundled_model_is_within_all_limits() -> None:
    segmenter = create_model('tabletop', 'cpu', runtime='eager')
    assert segmenter.segment(np.zeros((9, 9, 3), np.uint8), ['the mug']).labels().shape == (9, 9)
