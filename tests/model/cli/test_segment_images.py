"""`clipseg segment` on images and folders."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from clipseg_command import clipseg, segment, squeezed
from numpy.typing import NDArray
from PIL import Image

from clipseg_model import registry
from clipseg_model.cli.file_runner import find_files, slug
from clipseg_model.images import read_image, read_mask


class TestImages:
    def test_files_of_an_image(self, checkpoint: Path, photo: Path) -> None:
        result = segment(checkpoint, photo, '-p', 'the mug; seat: something to sit on', '-o', 'res')
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in Path('res').iterdir()) == [
            'photo.json',
            'photo_overlay.png',
            'photo_seat_mask.png',
            'photo_the-mug_mask.png',
        ]
        found = registry.create_model(checkpoint, 'cpu').segment(
            read_image(photo), ['the mug', 'something to sit on']
        )
        record = json.loads(Path('res/photo.json').read_text())
        assert (record['width'], record['height'], record['model']) == (120, 90, 'tiny')
        assert [entry['name'] for entry in record['prompts']] == ['the mug', 'seat']
        assert [entry['prompt'] for entry in record['prompts']] == [
            'the mug',
            'something to sit on',
        ]
        for entry, expected in zip(record['prompts'], found.results, strict=True):
            mask = read_mask(Path('res') / entry['mask'])
            assert np.array_equal(mask, expected.mask)
            assert entry['score'] == pytest.approx(expected.score, abs=1e-6)
            assert entry['pixels'] == mask.sum() > 0
            left, top, width, height = entry['box']
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            assert entry['present'] is True
            assert entry['threshold'] == 0.5
        assert set(np.unique(cv2.imread('res/photo_seat_mask.png', -1))) == {0, 255}
        assert read_image('res/photo_overlay.png').shape == (90, 120, 3)
        assert 'the mug' in result.stdout
        assert f'{found.results[0].score:.3f}' in result.stdout

    def test_the_notice_is_shown_once(self, checkpoint: Path, photo: Path) -> None:
        (photo.parent / 'second.png').write_bytes(photo.read_bytes())
        result = segment(checkpoint, photo, 'second.png', '-p', 'mug')
        assert result.exit_code == 0
        assert squeezed(result.stderr).count('its masks mean nothing') == 1

    def test_threshold(self, checkpoint: Path, photo: Path) -> None:
        counts = []
        for threshold in (0.01, 0.99):
            segment(checkpoint, photo, '-p', 'mug', '--threshold', threshold)
            entry = json.loads(Path('out/photo.json').read_text())['prompts'][0]
            assert entry['threshold'] == threshold
            counts.append(entry['pixels'])
        assert counts == [90 * 120, 0]
        assert entry['box'] is None

    def test_colours(self, checkpoint: Path, photo: Path, image: NDArray[np.uint8]) -> None:
        words = ('-p', 'cup: the mug; !red chair; chair', '--threshold', 0.01)
        pictures = {}
        for colours in ((), ('Cup=#123456', '2=#fedcba')):
            options = [part for colour in colours for part in ('--color', colour)]
            result = segment(checkpoint, photo, *words, *options)
            assert result.exit_code == 0, result.output
            pictures[colours] = read_image('out/photo_overlay.png').astype(int)
        plain, coloured = pictures.values()
        changed = (plain != coloured).any(axis=2)
        labelled = changed.copy()
        labelled[:30] = False  # The legend.
        assert labelled.sum() > 1000, 'the test model finds something'
        half = {
            colour: (image + np.array(colour)) / 2 for colour in ((18, 52, 86), (254, 220, 186))
        }
        outline = [(coloured == np.array(colour)).all(axis=2) for colour in half]
        near = [np.abs(coloured - tint).max(axis=2) <= 1 for tint in half.values()]
        assert np.logical_or.reduce([*near, *outline])[labelled].all()

    @pytest.mark.parametrize(
        ('colour', 'words'),
        [
            ('mug=orange', "'mug=orange' is not NAME_OR_ID=#RRGGBB"),
            ('cup=#ff8800', "'cup', and no prompt is called that; the prompts are mug (id 1)"),
            ('2=#ff8800', 'the prompts are mug (id 1)'),
        ],
    )
    def test_bad_colours(self, checkpoint: Path, photo: Path, colour: str, words: str) -> None:
        result = segment(checkpoint, photo, '-p', 'mug; !chair', '--color', colour)
        assert result.exit_code == 1
        assert words in ' '.join(result.stderr.split())
        assert not Path('out/photo_overlay.png').exists()

    def test_example_image(self, checkpoint: Path, photo: Path) -> None:
        mask = np.zeros((90, 120), np.uint8)
        mask[20:60, 30:80] = 255
        Image.fromarray(mask).save('mask.png')
        result = segment(
            checkpoint, photo, '--prompt-image', photo, '--prompt-mask', 'mask.png', '-p', 'mug'
        )
        assert result.exit_code == 0, result.output
        names = [x['name'] for x in json.loads(Path('out/photo.json').read_text())['prompts']]
        assert names == ['mug', 'photo']
        assert segment(checkpoint, photo, '--prompt-image', photo).exit_code == 0

    def test_files_of_one_name_do_not_overwrite_each_other(
        self, checkpoint: Path, photo: Path
    ) -> None:
        Path('other').mkdir()
        Image.new('RGB', (50, 40)).save('other/photo.jpg')
        result = segment(checkpoint, photo, 'other/photo.jpg', '-p', 'mug')
        assert result.exit_code == 0
        sizes = [
            json.loads(Path(f'out/{n}.json').read_text())['width'] for n in ('photo', 'photo_2')
        ]
        assert sizes == [120, 50]

    def test_prompts_of_one_file_name(self, checkpoint: Path, photo: Path) -> None:
        segment(checkpoint, photo, '-p', 'red mug', '-p', 'red, mug')
        masks = {x['mask'] for x in json.loads(Path('out/photo.json').read_text())['prompts']}
        assert masks == {'photo_red-mug_mask.png', 'photo_red-mug-2_mask.png'}


class TestPhotographs:
    @pytest.mark.parametrize('name', ['coffee', 'cat', 'astronaut'])
    def test_at_their_own_size(self, checkpoint: Path, work: Path, name: str) -> None:
        photograph = getattr(skimage.data, name)()
        Image.fromarray(photograph).save(f'{name}.jpg')
        model = 'tabletop' if registry.get_card('tabletop').present else checkpoint
        prompts = 'the mug; something to sit on'
        result = clipseg('segment', f'{name}.jpg', '-p', prompts, '-m', model, '--device', 'cpu')
        assert result.exit_code == 0, result.output
        assert result.stderr.count('Note:') == 1
        for part in ('the-mug_mask', 'something-to-sit-on_mask', 'overlay'):
            assert read_image(f'out/{name}_{part}.png').shape == photograph.shape


class TestFolders:
    def test_a_bad_file_does_not_stop_the_others(self, checkpoint: Path, photo: Path) -> None:
        Path('pictures').mkdir()
        Path('pictures/a.jpg').write_bytes(b'not an image')
        Path('pictures/b.PNG').write_bytes(photo.read_bytes())
        Path('pictures/notes.txt').write_text('not looked at')
        Path('pictures/inner').mkdir()
        result = segment(checkpoint, 'pictures', '-p', 'mug')
        assert result.exit_code == 1
        assert Path('out/b.json').is_file()
        assert 'pictures/a.jpg: pictures/a.jpg cannot be read as an image' in result.stderr
        assert '1 of 2 inputs failed' in result.stderr
        assert 'notes' not in result.output

    def test_inputs_that_are_not_there(self, checkpoint: Path, photo: Path) -> None:
        Path('empty').mkdir()
        result = segment(checkpoint, 'none.jpg', 'empty', photo, '-p', 'mug')
        assert result.exit_code == 1
        assert 'none.jpg: there is no such file or folder' in result.stderr
        assert 'empty: the folder holds no image' in result.stderr
        assert '2 of 3 inputs failed' in result.stderr
        assert Path('out/photo.json').is_file()

    def test_nothing_to_do(self, checkpoint: Path, work: Path) -> None:
        result = segment(checkpoint, 'none.jpg', '-p', 'mug')
        assert result.exit_code == 1
        assert 'nothing to segment' in result.stderr

    def test_finding(self, work: Path) -> None:
        for name in ('b.jpg', 'a.png', 'c.txt', 'v.mp4'):
            Path(name).touch()
        files, problems = find_files([Path('c.txt'), Path(), Path('a.png')])
        assert [path.name for path in files] == ['c.txt', 'a.png', 'b.jpg']
        assert problems == []


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('The red mug!', 'the-red-mug'),
        ('../../etc/passwd', 'etc-passwd'),
        ('茶碗', '茶碗'),
        ('☕', 'prompt'),
        ('x' * 200, 'x' * 40),
        ('a_b  c', 'a-b-c'),
    ],
)
def test_slugs(text: str, expected: str) -> None:
    assert slug(text) == expected
