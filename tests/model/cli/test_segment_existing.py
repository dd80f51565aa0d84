"""What lies in the folder of results already is the user's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from clipseg_command import clipseg, squeezed
from numpy.typing import NDArray
from PIL import Image

from clipseg_model.cli.result_folder import ResultFolder
from clipseg_model.errors import ImageError
from clipseg_model.outputs.overlay import render_overlay
from clipseg_model.outputs.palette import PALETTE

RESULTS = ['photo.json', 'photo_mug_mask.png', 'photo_overlay.png']


def once(checkpoint: Path, *arguments: object) -> Result:
    return clipseg('segment', *arguments, '-p', 'mug', '--model', checkpoint, '--device', 'cpu')


@pytest.mark.parametrize('name', RESULTS)
@pytest.mark.parametrize('kind', ['file', 'link', 'dangling link', 'hard link', 'folder'])
def test_files_of_others_stay(checkpoint: Path, photo: Path, name: str, kind: str) -> None:
    folder, other = Path('out'), Path('other')
    folder.mkdir()
    if kind in ('link', 'hard link'):
        other.write_text('mine')
    if kind == 'folder':
        (folder / name).mkdir()
    elif kind == 'file':
        (folder / name).write_text('mine')
    elif kind == 'hard link':
        (folder / name).hardlink_to(other)
    else:
        (folder / name).symlink_to(other.absolute())
    result = once(checkpoint, photo)
    assert result.exit_code == 1
    assert f'{name} is' in squeezed(result.stderr)
    assert os.listdir(folder) == [name], 'nothing is begun'
    result = once(checkpoint, photo, '--overwrite')
    if kind == 'folder':
        assert result.exit_code == 1
        return
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(folder)) == RESULTS
    assert not (folder / name).is_symlink()
    assert (other.read_text() if other.exists() else 'mine') == 'mine'
    assert other.exists() == (kind in ('link', 'hard link'))


def test_a_run_into_the_folder_of_its_inputs(checkpoint: Path, photo: Path) -> None:
    Path('photo_overlay.png').write_bytes(photo.read_bytes())
    before = photo.read_bytes()
    result = once(checkpoint, 'photo.png', '-o', '.')
    assert result.exit_code == 1
    assert 'photo_overlay.png is there already' in squeezed(result.stderr)
    assert Path('photo_overlay.png').read_bytes() == before


def test_videos_and_the_folders_of_their_masks(checkpoint: Path, video: Path) -> None:
    outside = Path('outside')
    outside.mkdir()
    for name in ('walk_overlay.mp4', 'walk.jsonl', 'walk_masks'):
        shutil.rmtree('out', ignore_errors=True)
        Path('out').mkdir()
        Path('out', name).symlink_to((outside / 'x' if '.' in name else outside).absolute())
        for option in ([], ['--overwrite'] if name == 'walk_masks' else []):
            result = once(checkpoint, video, '--frame-masks', *option)
            assert result.exit_code == 1, result.output
            assert 'there already' in squeezed(result.stderr)
        assert os.listdir(outside) == []
    shutil.rmtree('out')
    assert once(checkpoint, video, '--frame-masks').exit_code == 0
    assert once(checkpoint, video, '--frame-masks').exit_code == 1
    assert once(checkpoint, video, '--frame-masks', '--overwrite').exit_code == 0


def test_pictures_of_a_run_are_replaced_by_the_run(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / 'new' / 'out')
    picture = np.zeros((4, 5), np.uint8)
    for _ in range(3):
        folder.replace_image('a.png', picture)
    assert os.listdir(folder.path) == ['a.png']
    with pytest.raises(ImageError, match='not of this run'):
        ResultFolder(folder.path).replace_image('a.png', picture)
    with pytest.raises(ImageError, match='cannot be made'):
        ResultFolder(folder.path / 'a.png')


def test_the_limit_of_pixels(checkpoint: Path, photo: Path, video: Path) -> None:
    result = once(checkpoint, photo, video, '--max-pixels', 10_799)
    assert result.exit_code == 1
    assert squeezed(result.stderr).count('120 × 90 pixels, and at most 10799 are read') == 2
    assert once(checkpoint, photo, video, '--max-pixels', 10_800).exit_code == 0
    result = once(checkpoint, photo, '--prompt-image', photo, '--max-pixels', 100, '-o', 'b')
    assert 'at most 100 are read' in squeezed(result.stderr)


def test_an_example_whose_name_is_no_text(checkpoint: Path, photo: Path) -> None:
    name = os.fsdecode(b'a\xff.png')
    photo.rename(name)
    result = once(checkpoint, name, '--prompt-image', name)
    assert result.exit_code == 0, result.output


def test_a_legend_that_is_no_text() -> None:
    """OpenCV would end the process."""
    rgb: NDArray[np.uint8] = np.zeros((90, 120, 3), np.uint8)
    labels = np.zeros((90, 120), np.uint8)
    drawn = render_overlay(rgb, labels, 0.5, [(1, 'a\udcff')], True, palette=PALETTE)
    assert drawn.any()
    assert cv2.imencode('.png', drawn)[0]
    assert Image.fromarray(drawn).size == (120, 90)
