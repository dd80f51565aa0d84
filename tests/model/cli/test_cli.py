from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from tiny_models import CARD
from typer.testing import CliRunner

from clipseg_model import registry
from clipseg_model.cli import console
from clipseg_model.cli import weights as weight_commands
from clipseg_model.cli.app import app
from clipseg_model.cli.file_runner import count_frames, find_files, slug
from clipseg_model.images import read_image, read_mask
from clipseg_model.prompts import Prompt
from clipseg_model.weights.untrained import UNTRAINED

CODEC = cv2.VideoWriter.fourcc(*'mp4v')


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'work'
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def photo(work: Path, image: NDArray[np.uint8]) -> Path:
    Image.fromarray(image).save(work / 'photo.png')
    return work / 'photo.png'


@pytest.fixture
def video(work: Path, image: NDArray[np.uint8]) -> Path:
    path = work / 'walk.mp4'
    writer = cv2.VideoWriter(str(path), CODEC, 10, (120, 90))
    for number in range(4):
        writer.write(np.roll(image, 5 * number, axis=1))
    writer.release()
    return path


def clipseg(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    # Users see messages, not tracebacks.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def segment(checkpoint: Path, *arguments: object) -> Result:
    return clipseg('segment', *arguments, '--model', checkpoint, '--device', 'cpu')


def squeezed(text: str) -> str:
    return re.sub(r'\s+', ' ', text)


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


class TestVideos:
    def test_files_of_a_video(self, checkpoint: Path, video: Path) -> None:
        result = segment(checkpoint, video, '-p', 'mug; red chair', '--frame-masks')
        assert result.exit_code == 0, result.output
        lines = [json.loads(line) for line in Path('out/walk.jsonl').read_text().splitlines()]
        assert [line['frame'] for line in lines] == [0, 1, 2, 3]
        assert [line['seconds'] for line in lines] == [0.0, 0.1, 0.2, 0.3]
        assert count_frames(Path('out/walk_overlay.mp4')) == 4
        masks = sorted(path.name for path in Path('out/walk_masks').iterdir())
        assert len(masks) == 8
        assert masks[:2] == ['000000_mug.png', '000000_red-chair.png']
        for line in lines:
            for entry in line['prompts']:
                assert read_mask(Path('out') / entry['mask']).sum() == entry['pixels']
        assert '4 of 4' in result.stdout

    def test_progress_counts_frames(
        self, checkpoint: Path, video: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown = io.StringIO()
        monkeypatch.setattr(console, 'err', Console(file=shown, force_terminal=True, width=100))
        assert segment(checkpoint, video, photo, '-p', 'mug').exit_code == 0
        assert '5/5' in shown.getvalue()

    def test_masks_only_when_asked_for(self, checkpoint: Path, video: Path) -> None:
        assert segment(checkpoint, video, '-p', 'mug').exit_code == 0
        assert sorted(path.name for path in Path('out').iterdir()) == [
            'walk.jsonl',
            'walk_overlay.mp4',
        ]
        assert 'mask' not in json.loads(Path('out/walk.jsonl').read_text().split('\n')[0])

    def test_reuse_of_encodings(
        self, checkpoint: Path, work: Path, photo: Path, image: NDArray[np.uint8]
    ) -> None:
        for name in ('one.mp4', 'two.mp4'):
            writer = cv2.VideoWriter(name, CODEC, 10, (120, 90))
            for seen in (image, image, image, image[::-1], image[::-1]):
                writer.write(np.ascontiguousarray(seen))
            writer.release()
        inputs = ('one.mp4', 'two.mp4', photo, '-p', 'mug')
        result = segment(checkpoint, *inputs, '--reuse-below', 20)
        assert result.exit_code == 0, result.output
        for name in ('one', 'two'):
            lines = Path(f'out/{name}.jsonl').read_text().splitlines()
            reused = [json.loads(line)['reused'] for line in lines]
            assert reused == [False, True, True, False, True], 'not from one video to the next'
        said = squeezed(result.stderr)
        assert 'Approximation: 6 of 11 images reused an encoding' in said
        assert '20 levels' in said
        exact = segment(checkpoint, 'one.mp4', '-p', 'mug', '-o', 'exact')
        assert 'Approximation' not in exact.stderr
        assert '"reused"' not in Path('exact/one.jsonl').read_text()

    def test_where_nothing_can_be_reused(self, checkpoint: Path, video: Path, photo: Path) -> None:
        result = segment(checkpoint, photo, '-p', 'mug', '--reuse-below', 3)
        assert result.exit_code == 1
        assert '--reuse-below is for videos' in squeezed(result.stderr)
        result = segment(checkpoint, video, '-p', 'mug', '--reuse-below', 3, '--zoom', 'self')
        assert result.exit_code == 1
        assert 'leave zoom out' in squeezed(result.stderr)
        result = segment(checkpoint, video, '-p', 'mug', '--reuse-below', 300)
        assert 'not 300' in squeezed(result.stderr)

    def test_a_damaged_video(self, checkpoint: Path, photo: Path) -> None:
        Path('bad.mp4').write_bytes(b'not a video')
        result = segment(checkpoint, 'bad.mp4', photo, '-p', 'mug')
        assert result.exit_code == 1
        assert 'bad.mp4 cannot be read as a video' in result.stderr
        assert not Path('out/bad.jsonl').exists()
        assert Path('out/photo.json').is_file()


class TestPromptOptions:
    def scores(self, photo: Path) -> list[float]:
        record = json.loads(Path(f'out/{photo.stem}.json').read_text())
        return [entry['score'] for entry in record['prompts']]

    def test_template(self, checkpoint: Path, photo: Path) -> None:
        segmenter = registry.create_model(checkpoint, 'cpu')
        found = []
        for template in ('none', 'ensemble', 'the red {}'):
            result = segment(checkpoint, photo, '-p', 'mug', '--template', template)
            assert result.exit_code == 0, result.output
            segmenter.template = template
            expected = segmenter.segment(read_image(photo), ['mug']).results[0]
            found += self.scores(photo)
            assert found[-1] == pytest.approx(expected.score, abs=1e-6)
        assert len(set(found)) == 3

    def test_visual_prompt(self, checkpoint: Path, photo: Path) -> None:
        cv2.imwrite('mask.png', cv2.rectangle(np.zeros((90, 120)), (30, 20), (79, 59), 255, -1))
        segmenter = registry.create_model(checkpoint, 'cpu')
        example = Prompt(image=read_image(photo), mask=read_mask('mask.png'))
        found = []
        for method in ('crop_blur_10', 'red_outline', 'attention_all'):
            options = ('--prompt-mask', 'mask.png', '--visual-prompt', method)
            result = segment(checkpoint, photo, '--prompt-image', photo, *options)
            assert result.exit_code == 0, result.output
            segmenter.visual_method = method
            expected = segmenter.segment(read_image(photo), [example]).results[0]
            found += self.scores(photo)
            assert found[-1] == pytest.approx(expected.score, abs=1e-6)
        assert len(set(found)) == 3

    def test_a_box_in_place_of_a_mask(self, checkpoint: Path, photo: Path) -> None:
        cv2.imwrite('mask.png', cv2.rectangle(np.zeros((90, 120)), (30, 20), (79, 59), 255, -1))
        both = []
        for option in (('--prompt-mask', 'mask.png'), ('--prompt-box', '30,20,50,40')):
            result = segment(checkpoint, photo, '--prompt-image', photo, *option)
            assert result.exit_code == 0, result.output
            both += self.scores(photo)
        segment(checkpoint, photo, '--prompt-image', photo)
        assert both[0] == both[1] != self.scores(photo)[0]

    def test_text_weight_makes_one_prompt_of_both(self, checkpoint: Path, photo: Path) -> None:
        segmenter = registry.create_model(checkpoint, 'cpu')
        image = read_image(photo)
        for weight in (0.0, 0.3):
            options = ('-p', 'cup: mug', '--prompt-image', photo, '--text-weight', weight)
            result = segment(checkpoint, photo, *options)
            assert result.exit_code == 0, result.output
            mixed = Prompt('mug', image=image, weight=weight)
            expected = segmenter.segment(image, [mixed]).results[0].score
            assert self.scores(photo) == [pytest.approx(expected, abs=1e-6)]
        assert json.loads(Path('out/photo.json').read_text())['prompts'][0]['name'] == 'cup'


class TestUserErrors:
    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (['-p', ' ; '], 'nothing to look for'),
            ([], 'nothing to look for'),
            (['-p', 'x' * 10_000], '10000 characters'),
            (['-p', ';'.join(map(str, range(255)))], 'At most 254'),
            (['-p', '茶碗'], '茶碗'),
            (['-p', 'mug', '--threshold', '1.5'], 'between 0 and 1, not 1.5'),
            (['-p', 'mug', '--prompt-mask', 'photo.png'], 'belongs to a --prompt-image'),
            (['-p', 'mug', '--prompt-image', 'none.png'], 'no image file none.png'),
            (['-p', 'mug', '-o', 'photo.png/out'], 'cannot be made'),
            (['-p', 'mug', '--template', 'nine'], "no template 'nine'; there are plain, fixed"),
            (['-p', 'mug', '--visual-prompt', 'glow'], "no method 'glow' for visual prompts"),
            (['-p', 'mug', '--prompt-box', '1,1,5,5'], '--prompt-box belongs to a --prompt-image'),
            (['-p', 'mug', '--text-weight', '0.5'], 'mixes a --prompt with a --prompt-image'),
            (['--prompt-image', 'photo.png', '--text-weight', '0.5'], 'and there are 0'),
            (
                ['-p', 'mug', '--prompt-image', 'photo.png', '--text-weight', '2'],
                'weight must be in 0…1, not 2.0',
            ),
            (['--prompt-image', 'photo.png', '--prompt-box', '1,1,0,5'], 'has no area'),
            (['--prompt-image', 'photo.png', '--prompt-box', '500,1,5,5'], 'outside of its image'),
            (['--prompt-image', 'photo.png', '--prompt-box', '1,1,5'], "unlike '1,1,5'"),
            (
                ['--prompt-image', 'photo.png', '--prompt-mask', 'black.png'],
                'mask is empty: it must be non-zero',
            ),
            (
                ['--prompt-image', 'photo.png', '--prompt-mask', 'small.png'],
                '(90, 120), not (9, 12): resize it',
            ),
            (
                [
                    *('--prompt-image', 'photo.png', '--prompt-mask', 'black.png'),
                    *('--prompt-box', '1,1,5,5'),
                ],
                'give one of them',
            ),
        ],
    )
    def test_one_message_and_exit_code_1(
        self, checkpoint: Path, photo: Path, arguments: list[str], message: str
    ) -> None:
        cv2.imwrite('black.png', np.zeros((90, 120)))
        cv2.imwrite('small.png', np.full((9, 12), 255.0))
        result = segment(checkpoint, photo, *arguments)
        assert result.exit_code == 1
        assert result.stderr.count('Error:') == 1
        assert message in squeezed(result.stderr)
        assert not Path('out').exists() or not list(Path('out').iterdir())

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (['--model', 'tabeltop'], "Did you mean 'tabletop'"),
            (['--model', 'clipseg-rd64'], 'clipseg download clipseg-rd64'),
            (['--model', 'none.safetensors'], 'no checkpoint none.safetensors'),
            (['--model', 'bad.safetensors'], 'not a readable safetensors file'),
        ],
    )
    def test_models(self, photo: Path, arguments: list[str], message: str) -> None:
        Path('bad.safetensors').write_bytes(b'x' * 100)
        result = clipseg('segment', photo, '-p', 'mug', *arguments)
        assert result.exit_code == 1
        assert message in squeezed(result.stderr)

    def test_a_device_that_is_not_there(
        self, checkpoint: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        arguments = (photo, '-p', 'mug', '--model', checkpoint, '--device', 'cuda')
        result = clipseg('segment', *arguments)
        assert result.exit_code == 1
        assert "use device 'cpu' or 'auto'" in squeezed(result.stderr)

    def test_usage(self) -> None:
        assert clipseg('segment').exit_code == 2
        assert clipseg('segment', 'a.jpg', '--nonsense').exit_code == 2

    def test_names_are_not_read_as_markup(self, checkpoint: Path, photo: Path) -> None:
        result = segment(checkpoint, photo, '[bold].jpg', '-p', '[red]: mug')
        assert '[bold].jpg: there is no such file' in result.stderr
        assert '[red]' in result.stdout


class TestModels:
    def test_table(self) -> None:
        result = clipseg('models')
        assert result.exit_code == 0
        for name in registry.list_models():
            assert f'{name}: {registry.get_card(name).description}' in squeezed(result.stdout)
        text = squeezed(result.stdout)
        assert '352 px' in text
        assert 'Source: https://huggingface.co/CIDAS/clipseg-rd64-refined.' in text
        assert 'clipseg download NAME' in text

    def test_what_a_threshold_is_worth(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """0.5 is what everybody takes; other values are calibrated, and say on what."""
        monkeypatch.setattr(weight_commands, 'out', Console(width=200))
        rows = clipseg('models').stdout.splitlines()
        row = next(row for row in rows if ' clipseg-rd64 ' in row)
        assert '0.5 (usual)' in row
        assert 'about 603 MB' in row
        assert 'not present' in row

    def test_for_machines(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, 'WEIGHTS_FOLDER', tmp_path)
        checkpoint.rename(tmp_path / 'tabletop.safetensors')
        result = clipseg('models', '--json')
        assert result.exit_code == 0
        entries: list[dict[str, Any]] = json.loads(result.stdout)
        bundled, *others = entries
        assert bundled['present'] is True
        assert bundled['size_mb'] > 0
        assert bundled['licence'] == 'Apache-2.0'
        assert bundled['layers'] == [0, 2]
        assert bundled['threshold'] == 0.5
        assert bundled['calibrated'] is False
        assert bundled['source'] == 'trained by this project'
        names = ['clipseg-rd64-refined', 'clipseg-rd64', 'clipseg-rd16']
        assert [other['name'] for other in others] == [*names, *UNTRAINED]
        assert not any(other['present'] for other in others)
        for other in others[: len(names)]:
            assert other['layers'] == [3, 6, 9]
            assert other['input_size'] == 352
            assert other['source'] == f'https://huggingface.co/CIDAS/{other["name"]}'
            assert 'not MIT' in other['licence']

    def test_a_damaged_bundle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, 'WEIGHTS_FOLDER', tmp_path)
        (tmp_path / 'tabletop.safetensors').write_bytes(b'x')
        result = clipseg('models')
        assert result.exit_code == 1
        assert 'damaged' in result.stderr


class TestConvert:
    def test_a_checkpoint_to_half_the_size(self, checkpoint: Path, work: Path) -> None:
        result = clipseg('convert', checkpoint, 'half.safetensors', '--half')
        assert result.exit_code == 0, result.output
        assert 'Written to half.safetensors' in squeezed(result.stdout)
        assert Path('half.safetensors').stat().st_size < 0.6 * checkpoint.stat().st_size
        card = registry.create_model('half.safetensors', 'cpu').card
        assert (card.name, card.threshold, card.notice) == ('tiny', 0.5, CARD['notice'])

    def test_there_and_back(self, work: Path) -> None:
        theirs = pytest.importorskip('huggingface_models')
        theirs.save(theirs.make(), work / 'hf')
        for source, target in (('hf', 'own.safetensors'), ('own.safetensors', 'back')):
            result = clipseg('convert', source, target)
            assert result.exit_code == 0, result.output
        before, after = (load_file(f'{folder}/model.safetensors') for folder in ('hf', 'back'))
        assert before.keys() == after.keys()
        assert all(torch.equal(after[key], value) for key, value in before.items())

    def test_a_decoder_and_its_towers(self, checkpoint: Path, work: Path) -> None:
        result = clipseg('convert', checkpoint, 'part.safetensors', '--without-towers')
        assert result.exit_code == 0, result.output
        assert clipseg('convert', 'part.safetensors', 'a.safetensors').exit_code == 1
        result = clipseg('convert', 'part.safetensors', 'a.safetensors', '--towers', checkpoint)
        assert result.exit_code == 0, result.output
        before, after = load_file(checkpoint), load_file('a.safetensors')
        assert all(torch.equal(after[key], value) for key, value in before.items())

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (['clipseg-rd64', 'a.safetensors'], 'clipseg download clipseg-rd64'),
            (['none.safetensors', 'a.safetensors'], 'no checkpoint none.safetensors'),
            (['tiny.safetensors', 'folder'], 'plain CLIP towers'),
            (['tiny.safetensors', 'folder', '--half'], '--half and --without-towers are for'),
            (['tiny.safetensors', 'a.safetensors', '--layers', '3,6'], 'layers is for .pth files'),
            (['tiny.safetensors', 'a.safetensors', '--layers', '3;6'], "unlike '3;6'"),
        ],
    )
    def test_one_message_and_exit_code_1(
        self, checkpoint: Path, work: Path, arguments: list[str], message: str
    ) -> None:
        checkpoint.rename(work / 'tiny.safetensors')
        result = clipseg('convert', *arguments)
        assert result.exit_code == 1
        assert message in squeezed(result.stderr)
        assert os.listdir(work) == ['tiny.safetensors']


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
