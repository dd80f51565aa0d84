"""An export in a folder of its own: everything that is needed is in it, the checkpoint is not.

torch's exporter takes a minute: here it is replaced by the graphs that are bundled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from typer.testing import CliRunner

from clipseg_model.cli.app import app
from clipseg_model.errors import ExportError
from clipseg_model.prompts import Prompt
from clipseg_model.registry import WEIGHTS_FOLDER, create_model, load_model
from clipseg_model.runtime import split
from clipseg_model.runtime.exporting import ensure_onnx
from clipseg_model.runtime.exports.files import (
    MANIFEST,
    ONNX,
    ExportSource,
    check_replaceable,
    find_export,
    open_onnx,
)
from clipseg_model.runtime.onnx_runtime import OnnxRuntime
from clipseg_model.runtime.split import weights_digest

onnx = pytest.importorskip('onnx')
OTHER = 'clipseg-rd64-refined'


def clipseg(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def bundled_part(part: str, *_: Any) -> Any:
    """What torch would export."""
    return onnx.load(WEIGHTS_FOLDER / f'tabletop.{part}.onnx')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a model that is not on this machine."""
    root = tmp_path_factory.mktemp('exports')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, '_export', bundled_part)
        model, card = load_model('tabletop')
        ensure_onnx(model, replace(card, name=OTHER, weights=None), weights_digest(model), root)
    return root


@pytest.mark.parametrize('runtime', ['auto', 'onnxruntime'])
def test_runs_without_the_checkpoint(folder: Path, image: NDArray[np.uint8], runtime: str) -> None:
    files = {path.name for path in (folder / ONNX).iterdir()}
    graphs = {f'{part}.onnx' for part in ('encoder', 'decoder', 'text', 'prompt')}
    assert files == {*graphs, 'weights.bin', 'vocabulary.bin', 'manifest.json'}
    own, bundled = create_model(OTHER, runtime=runtime, exports=folder), create_model('tabletop')
    assert own.card.name == OTHER
    assert own.card.threshold == bundled.card.threshold
    mask = np.zeros(image.shape[:2], bool)
    mask[20:60, 30:80] = True
    prompts = ['the mug', Prompt(image=image, mask=mask)]
    expected = bundled.segment(image, prompts).results
    for one, other in zip(own.segment(image, prompts).results, expected, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-3)


def test_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(ExportError, match=f"made of the model '{OTHER}', and 'clipseg-rd64' is"):
        create_model('clipseg-rd64', runtime='onnxruntime', exports=folder)


def test_of_another_checkpoint_is_refused(folder: Path, checkpoint: Path) -> None:
    with pytest.raises(ExportError, match=r'does not say what checkpoint.*clipseg export'):
        create_model(checkpoint, runtime='onnxruntime', exports=folder)


def test_what_is_damaged_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / 'copy'))
    weights = copy / ONNX / 'weights.bin'
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ExportError, match='truncated or was changed'):
        create_model(OTHER, runtime='onnxruntime', exports=copy)


@pytest.mark.parametrize('place', ['../encoder.onnx', '../../onnx/encoder.onnx'])
def test_parts_elsewhere_are_refused(folder: Path, tmp_path: Path, place: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / 'copy')) / ONNX
    shutil.copy(copy / 'encoder.onnx', copy.parent)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest['parts']['encoder']['file'] = place
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match='is damaged'):
        open_onnx(copy.parent, None, None)


@pytest.mark.parametrize(
    'make',
    [
        lambda variant: (variant / 'notes').write_text('mine'),
        lambda variant: (variant / MANIFEST).write_text('{"format": "another"}'),
        lambda variant: (variant / MANIFEST).write_text('{"format": '),
        lambda variant: variant.rmdir() or variant.write_text('mine'),
        lambda variant: variant.rmdir() or variant.symlink_to(variant.parent),
        lambda variant: shutil.copy(WEIGHTS_FOLDER / 'tabletop.safetensors', variant),
    ],
)
def test_what_is_of_no_export_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any]
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(OnnxRuntime, 'export', lambda *given: made.append(given[3]))
    (tmp_path / ONNX).mkdir()
    assert clipseg('export', 'tabletop', str(tmp_path)).exit_code == 0, 'an empty folder'
    make(tmp_path / ONNX)
    refused = clipseg('export', 'tabletop', str(tmp_path))
    assert refused.exit_code == 1
    assert 'is there already, and of no export' in ' '.join(refused.stderr.split())
    assert len(made) == 1
    assert clipseg('export', 'tabletop', str(tmp_path), '--overwrite').exit_code == 0
    assert len(made) == 2


def test_an_older_export_is_replaced_unless_there_is_more(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / ONNX, tmp_path / 'copy'))
    (copy / 'weights.bin').write_bytes(b'damaged')
    check_replaceable(copy)
    (copy / 'notes').write_text('mine')
    with pytest.raises(ExportError, match='notes is there already'):
        check_replaceable(copy)


def test_is_found_in_the_cache_by_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, '_export', bundled_part)
    monkeypatch.setenv('CLIPSEG_EXPORTS', str(tmp_path / 'cache'))
    mine = tmp_path / 'mine.safetensors'
    shutil.copy(WEIGHTS_FOLDER / 'tabletop.safetensors', mine)
    made = clipseg('export', str(mine))
    assert made.exit_code == 0, made.stderr
    assert create_model(mine).runtime.name == 'onnxruntime'
    # Touched, it is looked at again; changed, it is another one.
    mine.write_bytes(mine.read_bytes())
    assert create_model(mine).runtime.name == 'onnxruntime'
    data = bytearray(mine.read_bytes())
    data[-4] ^= 64
    mine.write_bytes(data)
    with pytest.raises(ExportError, match='made of other weights'):
        find_export(ExportSource(str(mine), mine), None)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['clipseg-rd64', '--exports', 'x'], '--exports is the folder of one model'),
        (['a/b', 'c/d', '--runtime', 'openvino', '--exports', 'x'], 'one name'),
    ],
)
def test_what_a_download_with_an_export_refuses(arguments: list[str], words: str) -> None:
    result = clipseg('download', *arguments)
    assert result.exit_code == 1
    assert words in ' '.join(result.stderr.split())
