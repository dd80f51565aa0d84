"""Options of `clipseg segment`, and the messages where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clipseg_command import clipseg, segment, squeezed

from clipseg_model import registry
from clipseg_model.images import read_image, read_mask
from clipseg_model.prompts import Prompt


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
            (['-p', 'mug', '--text-weight', '0.5'], '--text-weight belongs to a --prompt-image'),
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
