"""Damaged files: read, or refused in our words; no traceback, no hang, no crash, no flood."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_videos
from PIL import Image

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name('fuzz_readers.py')
SEED = int(os.environ.get('FUZZ_SEED', '18'))


def _pictures(folder: Path) -> None:
    """One of each kind, and of each way of packing that has a decoder of its own."""
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


def _videos(folder: Path) -> None:
    kinds = ('a.mp4 mp4v', 'b.avi MJPG', 'c.avi XVID', 'd.mkv FFV1', 'e.webm VP80', 'f.mov mp4v')
    for kind in kinds:
        name, codec = kind.split()
        small_videos.write(folder / name, codec, 6, (48, 32))
    small_videos.write_at(folder / 'g.mp4', [0, 40, 500, 540], (31, 21))
    small_videos.write_at(folder / 'h.mkv', [0, 40, 500, 540], (31, 21))


def _manifests(folder: Path) -> None:
    manifest = {
        'format': 'clipseg_ros export',
        'version': 1,
        'model': 'tiny',
        'weights_sha256': 'a' * 64,
        'versions': {'torch': '2'},
        'files': {'encoder.onnx': 'b' * 64},
    }
    (folder / 'manifest.json').write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ('kind', 'count', 'least_read'),
    [('pictures', 1000, 100), ('videos', 400, 50), ('manifests', 200, 0), ('cards', 200, 10)],
)
def test_damaged_files(
    checkpoint: Path, tmp_path: Path, kind: str, count: int, least_read: int
) -> None:
    samples, scratch = tmp_path / 'samples', tmp_path / 'scratch'
    samples.mkdir()
    scratch.mkdir()
    if kind == 'cards':
        (samples / 'tiny.safetensors').write_bytes(checkpoint.read_bytes())
    else:
        {'pictures': _pictures, 'videos': _videos, 'manifests': _manifests}[kind](samples)
    done = subprocess.run(
        [sys.executable, SCRIPT, kind, samples, scratch, str(SEED), str(count)],
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:{SCRIPT.parent}', 'OPENCV_LOG_LEVEL': 'OFF'},
        cwd=scratch,
        capture_output=True,
        text=True,
        errors='replace',
        timeout=250,
    )
    told = done.stdout.splitlines()
    # A damaged file that matters stays in the scratch folder, under the name that was told last.
    assert done.returncode == 0, f'seed {SEED}, {told[-1:]}: {done.stderr[-3000:]}'
    outcome = json.loads(told[-1])
    assert outcome.get('read', 0) + outcome.get('refused', 0) == count
    assert outcome.get('read', 0) >= least_read, 'not all are refused at the first byte'
    assert outcome.get('refused', 0) >= 20
    assert outcome['peak_kb'] < 2_500_000
    assert sorted(path.name for path in scratch.iterdir() if path.name != 'variant') == ['out']
    assert list((scratch / 'out').iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path != checkpoint) == [
        'samples',
        'scratch',
    ]
