"""The way from a frame to its masks without torch, and the graphs that are bundled for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from light_process import PROMPTS

from clipseg_model.errors import ExportError
from clipseg_model.images import read_image
from clipseg_model.prompts import Prompt
from clipseg_model.registry import BUNDLED, WEIGHTS_FOLDER, create_model
from clipseg_model.runtime.exports.files import bundled_manifest, open_bundled
from tests.without_torch import told_by

ROOT = Path(__file__).parents[3]
DEMO = ROOT / 'docs' / 'images' / 'demo.png'


@pytest.fixture(scope='module')
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process without torch said and made."""
    folder = tmp_path_factory.mktemp('light')
    script = Path(__file__).with_name('light_process.py')
    seen, errors = told_by(script, DEMO, folder)
    return {**seen, 'masks': dict(np.load(folder / 'masks.npz')), 'errors': errors}


def test_every_module_on_the_way_is_imported_without_torch(seen: dict[str, Any]) -> None:
    for module in ('segment_node', 'segment.lifecycle', 'outputs.publishers', 'prompts.server'):
        assert f'clipseg_ros.{module}' in seen['modules']
    for module in ('segmenter', 'registry', 'cli.segment', 'cli.file_runner', 'zoom.refinement'):
        assert f'clipseg_model.{module}' in seen['modules']
    assert seen['hidden'] == []


@pytest.mark.parametrize('name', BUNDLED)
def test_answers_are_those_of_torch(seen: dict[str, Any], name: str) -> None:
    assert seen[f'{name} runtime'].startswith('onnxruntime fp32 on cpu')
    image = np.ascontiguousarray(read_image(DEMO)[6:215, 6:286])
    mask = np.zeros(image.shape[:2], bool)
    mask[80:160, 100:200] = True
    eager = create_model(name, 'cpu', runtime='eager')
    expected = eager.segment(image, [*PROMPTS, Prompt(image=image, mask=mask)])
    scores = [result.score for result in expected.results]
    np.testing.assert_allclose(seen[f'{name} scores'], scores, atol=0.005)
    both = either = 0
    for number, result in enumerate(expected.results):
        ours, theirs = seen['masks'][f'{name} {number}'], result.resized_logits() > result.cut
        both, either = both + (ours & theirs).sum(), either + (ours | theirs).sum()
    assert either > 1000, 'something is seen'
    assert both / either >= 0.995


@pytest.mark.parametrize(
    ('feature', 'words'),
    [
        ('eager', ["'eager'", "package 'torch'", '"clipseg_ros[torch]"']),
        ('attention', ['restricted to a mask', 'crop_blur_10', 'clipseg_ros[torch]']),
        ('no export', ['mine.safetensors', 'clipseg export', '"clipseg_ros[torch]"']),
        (
            'not downloaded',
            ['clipseg export clipseg-rd64-refined', '"clipseg_ros[export]"', 'copy'],
        ),
        ('export', ['returned 1']),
    ],
)
def test_what_needs_torch_says_so(seen: dict[str, Any], feature: str, words: list[str]) -> None:
    for word in words:
        assert word in seen['refused'][feature]
    if feature == 'export':
        assert 'clipseg_ros[export]' in ' '.join(seen['errors'].split())


class TestBundledGraphs:
    @pytest.mark.parametrize('name', BUNDLED)
    def test_fit_the_weights(self, name: str) -> None:
        """If not: ``make exports``, after the weights of a bundled model have changed."""
        export = open_bundled(WEIGHTS_FOLDER / f'{name}.safetensors')
        assert export.manifest['model'] == name
        # Graphs alone: the weights are in the package once.
        graphs = [export.folder / file for file in export.manifest['files']]
        assert sum(file.stat().st_size for file in graphs) < 2_000_000

    def test_of_other_weights_are_refused(self, tmp_path: Path) -> None:
        checkpoint = WEIGHTS_FOLDER / 'tabletop.safetensors'
        for file in WEIGHTS_FOLDER.glob('tabletop.*'):
            shutil.copy(file, tmp_path)
        copy = tmp_path / checkpoint.name
        assert open_bundled(copy)
        data = bytearray(copy.read_bytes())
        data[-1] ^= 1
        copy.write_bytes(data)
        with pytest.raises(ExportError, match=r'made of other weights than those in .*tabletop'):
            open_bundled(copy)

    def test_of_another_version_are_refused(self, tmp_path: Path) -> None:
        for file in WEIGHTS_FOLDER.glob('tabletop.*'):
            shutil.copy(file, tmp_path)
        copy = tmp_path / 'tabletop.safetensors'
        path = bundled_manifest(copy)
        path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 1}))
        with pytest.raises(
            ExportError, match=r'version 1 and this program reads version 2.*export'
        ):
            open_bundled(copy)

    def test_are_found_where_a_build_links_to_its_sources(self, tmp_path: Path) -> None:
        for file in WEIGHTS_FOLDER.glob('tabletop.*'):
            (tmp_path / file.name).symlink_to(file)
        assert open_bundled(tmp_path / 'tabletop.safetensors').folder == WEIGHTS_FOLDER.resolve()
