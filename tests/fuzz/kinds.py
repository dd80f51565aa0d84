"""The kinds of files that are read, each with sound samples and the reader that the package has."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import small_videos
import torch
from PIL import Image
from test_official import official
from tiny_models import CARD, make_model

from clipseg_model.cli.file_runner import find_files
from clipseg_model.cli.video_files import OverlayWriter, Video, count_frames
from clipseg_model.files.small_files import read_json, read_yaml
from clipseg_model.images import check_encoded, check_image, read_image, read_mask
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.prompts import Prompt
from clipseg_model.runtime.exports.files import read_variant, write_variant
from clipseg_model.runtime.exports.text_tokens import WORD_PIECES, open_tokenizer
from clipseg_model.weights import huggingface
from clipseg_model.weights.checkpoints import load_card, load_checkpoint, save_checkpoint
from clipseg_model.weights.official import read_official
from clipseg_ros.prompts.file import load_prompts, save_prompts
from clipseg_ros.prompts.set import ActivePrompt, PromptSet

FRAMES = 10
_PIECES = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'mug')
TOWERS: dict[str, Any] = {
    'embed_dim': 8,
    'vision_cfg': {'image_size': 32, 'layers': 3, 'width': 16, 'patch_size': 16, 'head_width': 8},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 8, 'heads': 2, 'layers': 1},
}


class Kind(NamedTuple):
    """A kind of files.

    Attributes:
        make: Writes sound samples, files or folders, into a folder.
        read: Reads one, given a folder to write to; raises an error of ours where it refuses.
    """

    make: Callable[[Path], None]
    read: Callable[[Path, Path], None]


def make_pictures(folder: Path) -> None:
    """One of each format, and of each way of packing that has a decoder of its own."""
    picture = Image.fromarray(small_videos.picture(3, 40, 30))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(folder / 'a.jpg', exif=exif)
    picture.save(folder / 'b.jpg', progressive=True)
    picture.save(folder / 'c.png')
    picture.convert('P').save(folder / 'd.png')
    picture.convert('LA').save(folder / 'e.png')
    picture.save(folder / 'f.webp')
    picture.save(folder / 'g.webp', lossless=True)
    picture.save(folder / 'h.tif')
    picture.save(folder / 'i.tif', compression='tiff_lzw')
    picture.convert('1').save(folder / 'j.tiff', compression='group4')
    picture.save(folder / 'k.bmp')
    picture.save(folder / 'l.ppm')
    picture.save(folder / 'm.png', format='GIF')  # Names need not tell the truth.
    picture.save(folder / 'n.jpg', format='JPEG2000')
    picture.convert('L').save(folder / 'o.png', format='TGA')
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(folder / 'p.png')


def read_picture(path: Path, _: Path) -> None:
    find_files([path])
    check_encoded(path.read_bytes())
    check_image(read_image(path))
    read_mask(path)


def make_videos(folder: Path) -> None:
    kinds = ('a.mp4 mp4v', 'b.avi MJPG', 'c.avi XVID', 'd.mkv FFV1', 'e.webm VP80', 'f.mov mp4v')
    for kind in kinds:
        name, codec = kind.split()
        small_videos.write(folder / name, codec, 6, (48, 32))
    small_videos.write_at(folder / 'g.mp4', [0, 40, 500, 540], (31, 21))
    small_videos.write_at(folder / 'h.mkv', [0, 40, 500, 540], (31, 21))


def read_video(path: Path, scratch: Path) -> None:
    count_frames(path)
    with closing(Video(path)) as video:
        target = scratch / 'overlay.mp4'
        last, found = -1.0, 0
        with closing(OverlayWriter(target, video.rate, video.regular)) as overlay:
            for seconds, frame in video.frames():
                assert seconds > last, 'times grow'
                last, found = seconds, found + 1
                overlay.write(seconds, frame)
                if found == FRAMES:  # A damaged header may make endless ones.
                    break
        target.unlink(missing_ok=True)


def make_exports(folder: Path) -> None:
    def write(made: Path) -> dict[str, Any]:
        (made / 'encoder.onnx').write_bytes(b'an export')
        packed = zlib.compress('\n'.join(_PIECES).encode())
        (made / 'vocabulary.bin').write_bytes(packed)
        tokenizer = {'kind': WORD_PIECES, 'pieces': len(_PIECES), 'most': 9}
        place = {'file': 'vocabulary.bin', 'offset': 0, 'bytes': len(packed)}
        return {'parts': 3, 'tokenizer': {**tokenizer, **place}}

    card = ModelCard('tiny', 'clipseg', {}, 64)
    write_variant(folder / 'onnx', card, 'ab' * 32, {'torch': '2'}, write)


def read_export(path: Path, _: Path) -> None:
    manifest = read_variant(path, 'ab' * 32, {'torch': '2'})
    open_tokenizer(manifest.get('tokenizer'), path)  # type: ignore[arg-type]


def make_checkpoints(folder: Path) -> None:
    save_checkpoint(folder / 'tiny.safetensors', make_model(), CARD)


def read_checkpoint(path: Path, _: Path) -> None:
    load_card(path)
    # The vocabulary is read late.
    load_checkpoint(path)[0].embed_texts(['the mug'])


def make_folders(folder: Path) -> None:
    """Write a folder as transformers has it, whole and in parts."""
    torch.manual_seed(0)
    model = CLIPSeg(OpenClipBackbone(overrides=TOWERS), [0, 1], dim=8, feedforward=8)
    for name in ('whole', 'parts'):
        card = ModelCard.from_stored({'name': 'tiny', 'input_size': 32}, model.config(), folder)
        huggingface.save_huggingface(folder / name, model, card)
    part = 'model-00001-of-00001.safetensors'
    (folder / 'parts' / 'model.safetensors').rename(folder / 'parts' / part)
    index = {'metadata': {}, 'weight_map': dict.fromkeys(list(official())[:6], part)}
    (folder / 'parts' / 'model.safetensors.index.json').write_text(json.dumps(index))


def read_folder(path: Path, _: Path) -> None:
    load_card(path)
    load_checkpoint(path)


def make_pickles(folder: Path) -> None:
    for name, zipped in (('new', True), ('old', False)):
        torch.save(official(), folder / f'{name}.pth', _use_new_zipfile_serialization=zipped)


def read_pickle(path: Path, _: Path) -> None:
    read_official(path)


def make_prompts(folder: Path) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (12, 17, 3)).astype(np.uint8), rng.random((12, 17)) > 0.5
    entries = (
        ActivePrompt(1, Prompt('the mug')),
        ActivePrompt(4, Prompt('short green grass', name='grass', threshold=0.3), enabled=False),
        ActivePrompt(5, Prompt('Tisch', negative=True, presence_threshold=0.25)),
        ActivePrompt(9, Prompt(image=image, mask=mask, name='example', weight=0.0)),
        ActivePrompt(254, Prompt('rote Tasse ☕', image=image, name='mixed', weight=0.7)),
    )
    save_prompts(folder / 'all' / 'prompts.yaml', entries)


def read_prompts(path: Path, _: Path) -> None:
    PromptSet().replace(load_prompts(path / 'prompts.yaml'))


def make_settings(folder: Path) -> None:
    content = {'model': {'name': 'x', 'layers': [1, 2, 3]}, 'rate': 0.1, 'on': True, 'n': None}
    (folder / 'a.json').write_text(json.dumps(content))
    (folder / 'b.yaml').write_text('a: &x [1, 2.5, ~]\nb: {c: "d", e: 0x1f}\nf: |\n  text\n')


def read_settings(path: Path, _: Path) -> None:
    (read_json if path.suffix == '.json' else read_yaml)(path)


KINDS: dict[str, Kind] = {
    'pictures': Kind(make_pictures, read_picture),
    'videos': Kind(make_videos, read_video),
    'exports': Kind(make_exports, read_export),
    'checkpoints': Kind(make_checkpoints, read_checkpoint),
    'folders': Kind(make_folders, read_folder),
    'pickles': Kind(make_pickles, read_pickle),
    'prompts': Kind(make_prompts, read_prompts),
    'settings': Kind(make_settings, read_settings),
}
"""All but bags, which :mod:`tests.fuzz.bags` adds where ROS messages are at hand."""
