"""`clipseg models` and `clipseg convert`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from clipseg_command import clipseg, squeezed
from rich.console import Console
from safetensors.torch import load_file
from tiny_models import CARD

from clipseg_model import registry
from clipseg_model.cli import models as models_commands
from clipseg_model.weights.untrained import UNTRAINED


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
        monkeypatch.setattr(models_commands, 'out', Console(width=200))
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
        everyday, bundled, *others = entries
        assert (everyday['name'], everyday['present']) == ('everyday', False)
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

    @pytest.mark.parametrize('link', [False, True])
    def test_a_file_that_is_there_stays(self, checkpoint: Path, work: Path, link: bool) -> None:
        mine = work / 'mine.safetensors'
        if link:
            mine.symlink_to(work / 'elsewhere')
        else:
            mine.write_text('mine')
        result = clipseg('convert', checkpoint, 'mine.safetensors')
        assert result.exit_code == 1
        assert 'mine.safetensors is there already' in squeezed(result.stderr)
        assert os.listdir(work) == ['mine.safetensors']
        assert link or mine.read_text() == 'mine'
        result = clipseg('convert', checkpoint, 'mine.safetensors', '--overwrite')
        assert result.exit_code == 0, result.output
        assert not mine.is_symlink()
        assert load_file(mine)

    @pytest.mark.parametrize('command', ['download', 'convert', 'export'])
    def test_exit_statuses_are_told(self, command: str) -> None:
        text = squeezed(clipseg(command, '--help').output)
        assert re.search(r'Exit status: 0 if .*, 1 if .*, 2 for a wrong command line', text)
        assert clipseg(command, '--nothing').exit_code == 2

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
