"""Exports: what is in them, what is refused, and the commands that make and use them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from copied_exports import copying
from numpy.typing import NDArray
from PIL import Image
from runtime_models import PROMPTS, assert_agrees, make_vit, start
from tiny_models import CARD, make_small_clip
from typer.testing import CliRunner

from clipseg_model.cli.app import app
from clipseg_model.errors import (
    ExportError,
)
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.modeling.clsclip import ClsCLIP
from clipseg_model.registry import create_model, load_model
from clipseg_model.runtime import create_runtime
from clipseg_model.runtime.exports.files import ONNX, exports_folder, read_variant, write_variant
from clipseg_model.runtime.split import weights_digest
from clipseg_model.weights.checkpoints import save_checkpoint


class TestWriting:
    CARD = ModelCard('tiny', 'clipseg', {}, 64)

    def test_others_may_read_it(self, tmp_path: Path) -> None:
        def write(made: Path) -> dict[str, Any]:
            (made / 'engine').touch(0o600)
            return {}

        for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
            before = os.umask(mask)
            try:
                write_variant(tmp_path / 'onnx', self.CARD, 'ab', {}, write)
            finally:
                os.umask(before)
            modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / 'onnx').iterdir()}
            assert modes == {mode}

    @pytest.mark.parametrize('error', [OSError(28, 'disk full'), RuntimeError('disk full')])
    def test_a_failure_leaves_the_older_export(self, tmp_path: Path, error: Exception) -> None:
        def write(made: Path) -> dict[str, Any]:
            (made / 'engine').write_text('whole')
            return {}

        def fail(made: Path) -> dict[str, Any]:
            (made / 'engine').write_text('half')
            raise error

        write_variant(tmp_path / 'onnx', self.CARD, 'ab', {}, write)
        with pytest.raises(ExportError, match=r'onnx cannot be written: .*disk full'):
            write_variant(tmp_path / 'onnx', self.CARD, 'ab', {}, fail)
        assert os.listdir(tmp_path) == ['onnx']
        assert read_variant(tmp_path / 'onnx', 'ab', {})['model'] == 'tiny'


@pytest.mark.slow
class TestOnnxText:
    @pytest.mark.parametrize('kind', ['open_clip', 'small'])
    def test_is_the_text_tower(self, kind: str, exported: Path, tmp_path: Path) -> None:
        ort = pytest.importorskip('onnxruntime')
        folder, model = exported / ONNX, make_vit()
        inputs: dict[str, Any] = {}
        if kind == 'small':
            from clipseg_model.runtime.split import write_onnx

            folder = tmp_path
            model = CLIPSeg(make_small_clip(), [0, 2], dim=16, feedforward=32)
            write_onnx(model.eval(), folder)
            texts = ['a mug', 'the red cup to drink from', 'something']
            tokens, mask = model.backbone.text.tokenize(texts)
            inputs = {'tokens': tokens.numpy(), 'mask': mask.numpy()}
        else:
            texts = PROMPTS
            tokens = model.backbone.tokenizer(texts)[:, :9]
            inputs = {'tokens': tokens.numpy()}
        session = ort.InferenceSession(folder / 'text.onnx', providers=['CPUExecutionProvider'])
        (found,) = session.run(None, inputs)
        with torch.inference_mode():
            expected = model.embed_texts(texts)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.ci
class TestExports:
    @pytest.fixture
    def folder(self, exported: Path, tmp_path: Path) -> Path:
        """A folder that the user chose, with good exports."""
        return Path(shutil.copytree(exported, tmp_path / 'chosen'))

    @pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
    @pytest.mark.parametrize(
        ('damage', 'words'),
        [
            (lambda f: (f / 'manifest.json').write_text('{"format": '), 'damaged'),
            (lambda f: (f / 'manifest.json').write_text('[]'), 'no manifest'),
            (lambda f: (f / 'manifest.json').unlink(), 'no export'),
            (lambda f: truncate(f / 'weights.bin'), 'truncated'),
            (lambda f: next(iter(sorted(f.glob('decoder.*')))).unlink(), 'missing'),
            (lambda f: edit(f, version=99), 'version 99'),
            (lambda f: edit(f, files={'../x': '0'}), 'missing'),
            (lambda f: edit(f, versions=None), 'damaged'),
        ],
    )
    def test_what_is_damaged_is_refused_in_a_folder_of_the_users(
        self, name: str, damage: Any, words: str, vit: Path, folder: Path
    ) -> None:
        start(vit, name, 'fp32', exports=folder)
        damage(folder / ONNX)
        before = sorted(folder.rglob('*'))
        with pytest.raises(ExportError, match=words) as caught:
            start(vit, name, 'fp32', exports=folder)
        assert f'clipseg export {vit} {folder} --runtime {name}' in str(caught.value)
        assert sorted(folder.rglob('*')) == before

    @pytest.mark.slow
    def test_what_is_damaged_is_made_anew_in_the_cache(
        self,
        vit: Path,
        folder: Path,
        image: NDArray[np.uint8],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cache = folder.parent / 'cache'
        monkeypatch.setenv('CLIPSEG_EXPORTS', str(cache))
        model, card = load_model(vit)
        shutil.copytree(folder, exports_folder(card, weights_digest(model)))
        truncate(exports_folder(card, weights_digest(model)) / ONNX / 'weights.bin')
        monkeypatch.setattr('clipseg_model.runtime.exporting.write_onnx', copying(folder / ONNX))
        with caplog.at_level('INFO'):
            made = start(vit, 'openvino', 'fp32')
        assert 'truncated' in caplog.text
        assert 'Exporting' in caplog.text
        assert_agrees(create_model(vit, 'cpu', runtime='eager'), made, image, 1e-4)
        caplog.clear()
        with caplog.at_level('INFO'):
            start(vit, 'openvino', 'fp32')
        assert 'Exporting' not in caplog.text

    @pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
    def test_of_another_checkpoint(self, name: str, folder: Path, tmp_path: Path) -> None:
        other = tmp_path / 'other.safetensors'
        save_checkpoint(other, make_vit(seed=1), CARD)
        with pytest.raises(ExportError, match='other weights'):
            start(other, name, 'fp32', exports=folder)

    def test_manifest_says_what_it_was_made_of(self, folder: Path, vit: Path) -> None:
        model, _ = load_model(vit)
        manifest = read_variant(folder / ONNX, weights_digest(model), {})
        assert manifest['model'] == 'tiny'
        assert manifest['input_size'] == 64
        assert manifest['weights_sha256'] == weights_digest(model)
        assert manifest['versions']['torch'] == torch.__version__.split('+')[0]
        parts = [f'{part}.onnx' for part in ('encoder', 'decoder', 'text', 'prompt')]
        assert set(manifest['files']) == {*parts, 'weights.bin', 'tokenizer.json'}
        text = {'file': 'text.onnx', 'inputs': ['tokens'], 'outputs': ['condition']}
        assert manifest['parts']['text'] == text
        with pytest.raises(ExportError, match='made for torch'):
            read_variant(folder / ONNX, weights_digest(model), {'torch': '1.0'})


class TestWithoutExport:
    def test_digest_changes_with_one_weight_and_the_configuration(self) -> None:
        model, other = make_vit(), make_vit()
        assert weights_digest(model) == weights_digest(other)
        with torch.no_grad():
            other.decoder.film_add.bias[0] += 1e-3
        assert weights_digest(model) != weights_digest(other)
        taps = make_vit()
        taps.layers = (1, 2)
        assert weights_digest(model) != weights_digest(taps)

    def test_a_model_that_cannot_be_split(self) -> None:
        towers = make_small_clip()
        model = ClsCLIP(towers, (1, 2), num_heads=4, dim=16, feedforward=32)
        card = ModelCard.from_stored(CARD, model.config(), Path('x.safetensors'))
        with pytest.raises(ExportError, match='eager or compile'):
            create_runtime(model, card, 'cpu', 'onnxruntime')


def clipseg(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


class TestCommands:
    @pytest.fixture
    def photos(self, tmp_path: Path, image: NDArray[np.uint8]) -> Path:
        folder = tmp_path / 'photos'
        folder.mkdir()
        for number in range(8):
            Image.fromarray(np.roll(image, 9 * number, 1)).save(folder / f'{number}.png')
        return folder

    @pytest.mark.slow
    @pytest.mark.ci
    def test_export_then_segment(
        self, vit: Path, exported: Path, photos: Path, tmp_path: Path
    ) -> None:
        pytest.importorskip('nncf')
        folder, out = Path(shutil.copytree(exported, tmp_path / 'exports')), tmp_path / 'out'
        arguments = ['export', vit, folder, '--runtime', 'openvino', '--precision', 'int8']
        more = ['--calibration', photos, '-p', 'a mug; a chair', '--least-iou', '0.2']
        made = clipseg(*arguments, *more)
        assert made.exit_code == 0, made.output
        assert 'Masks agree with fp32 at IoU' in made.output
        assert 'over 8 images' in made.output
        segment = ['segment', photos / '0.png', '-p', 'a mug', '--model', vit, '-o', out]
        done = clipseg(
            *segment, '--runtime', 'openvino', '--precision', 'int8', '--exports', folder
        )
        assert done.exit_code == 0, done.output
        assert 'Runtime: openvino int8 on cpu' in done.output
        assert (out / '0.json').is_file()

    @pytest.mark.parametrize(
        ('arguments', 'words'),
        [
            (['--runtime', 'eager'], 'runs the checkpoint itself'),
            (['--runtime', 'openvino', '--precision', 'fp16'], 'fp32, bf16, int8'),
            (['--runtime', 'openvino', '--precision', 'int8'], 'give --calibration FOLDER'),
            (['--runtime', 'openvino', '--least-iou', '0.5'], 'belong to --precision int8'),
            (['--runtime', 'tensorrt', '--device', 'cpu'], "'tensorrt' works on cuda"),
            (['--runtime', 'onnx'], "no runtime 'onnx'"),
        ],
    )
    def test_what_export_refuses(
        self, arguments: list[str], words: str, vit: Path, tmp_path: Path
    ) -> None:
        result = clipseg('export', vit, tmp_path / 'exports', *arguments)
        assert result.exit_code == 1
        assert words in ' '.join(result.output.split())
        assert not (tmp_path / 'exports').exists()

    def test_segment_refuses_a_precision(self, vit: Path, photos: Path) -> None:
        result = clipseg(
            'segment', photos / '0.png', '-p', 'x', '--model', vit, '--precision', 'int8'
        )
        assert result.exit_code == 1
        assert 'fp32, bf16, fp16' in ' '.join(result.output.split())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / 'manifest.json').read_text())
    (folder / 'manifest.json').write_text(json.dumps({**manifest, **changes}))
