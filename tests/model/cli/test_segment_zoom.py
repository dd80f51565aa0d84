"""`clipseg segment --zoom` and `--instances`."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clipseg_command import segment
from PIL import Image

from clipseg_model.cli.zoom_options import ZoomKind, ZoomOptions
from clipseg_model.images import read_image, read_mask
from clipseg_model.registry import create_model
from clipseg_model.zoom.detectors import DetectorProposals
from clipseg_model.zoom.model_detector import ModelDetector
from clipseg_model.zoom.proposals import GivenBoxes
from clipseg_model.zoom.refinement import Zoom
from tests.doc_examples import check_options, run_python


def entries() -> list[dict[str, Any]]:
    record: dict[str, Any] = json.loads(Path('out/photo.json').read_text())
    prompts: list[dict[str, Any]] = record['prompts']
    return prompts


def test_boxes(checkpoint: Path, photo: Path) -> None:
    options = ['--zoom', 'boxes', '--zoom-box', '20,15,30,20', '--zoom-box', '60.5,40,50,30']
    result = segment(checkpoint, photo, '-p', 'mug; red chair', *options)
    assert result.exit_code == 0, result.output
    segmenter = create_model(checkpoint, 'cpu')
    segmenter.zoom = Zoom(GivenBoxes([(20, 15, 30, 20), (60.5, 40, 50, 30)]))
    found = segmenter.segment(read_image(photo), ['mug', 'red chair'])
    for entry, expected in zip(entries(), found.results, strict=True):
        assert np.array_equal(read_mask(Path('out') / entry['mask']), expected.mask)
        assert entry['score'] == pytest.approx(expected.score, abs=1e-6)
        assert len(entry['looked_at']) == 2
        x, y, width, height = entry['looked_at'][0]
        assert x <= 20
        assert y <= 15
        assert x + width >= 50
        assert y + height >= 35


def test_self(checkpoint: Path, photo: Path) -> None:
    result = segment(checkpoint, photo, '-p', 'mug', '--zoom', 'self', '--zoom-combine', 'max')
    assert result.exit_code == 0, result.output
    assert segment(checkpoint, photo, '-p', 'mug').exit_code == 0
    assert 'looked_at' not in entries()[0]


def test_detector(checkpoint: Path, photo: Path) -> None:
    from torchvision.models import get_model

    name = 'ssdlite320_mobilenet_v3_large'
    torch.save(get_model(name, weights=None, weights_backbone=None).state_dict(), 'ssd.pth')
    options = ['--zoom', 'detector', '--zoom-weights', 'ssd.pth', '--zoom-detector', name]
    result = segment(checkpoint, photo, '-p', 'mug', *options, '--zoom-category', 'cup')
    assert result.exit_code == 0, result.output
    result = segment(checkpoint, photo, '-p', 'mug', *options, '--zoom-category', 'spaceship')
    assert result.exit_code == 1
    assert "knows no category 'spaceship'" in re.sub(r'\s+', ' ', result.stderr)


def test_a_model_as_the_detector_and_a_category_for_a_prompt(checkpoint: Path, photo: Path) -> None:
    options = ['--zoom', 'detector', '--zoom-detector', str(checkpoint.resolve())]
    asked = [*options, '--zoom-category', 'mug=red chair', '--zoom-combine', 'regions']
    asked += ['--zoom-tiles', '2']
    result = segment(checkpoint, photo, '-p', 'mug', *asked)
    assert result.exit_code == 0, result.output
    segmenter = create_model(checkpoint, 'cpu')
    proposer = DetectorProposals(
        ModelDetector(create_model(checkpoint, 'cpu'), tiles=2), categories_of={'mug': 'red chair'}
    )
    segmenter.zoom = Zoom(proposer, 'regions')
    expected = segmenter.segment(read_image(photo), ['mug']).results[0]
    assert np.array_equal(read_mask(Path('out') / entries()[0]['mask']), expected.mask)


def test_clsclip_zooms_as_published(photo: Path) -> None:
    options = ZoomOptions(zoom=ZoomKind.boxes, zoom_box=['1,2,3,4'])
    proposer = options.refiner('cpu')
    assert proposer is not None
    assert proposer.combination == 'mean'
    for architecture, combination in (('clsclip', 'regions'), ('clipseg', 'mean')):
        segmenter = SimpleNamespace(card=SimpleNamespace(architecture=architecture), zoom=proposer)
        options.fit(segmenter)
        assert segmenter.zoom.combination == combination
    asked = dataclasses.replace(options, zoom_combine='max', zoom_regions=3)
    segmenter = SimpleNamespace(card=SimpleNamespace(architecture='clsclip'), zoom=proposer)
    asked.fit(segmenter)
    assert (segmenter.zoom.combination, segmenter.zoom.max_regions) == ('max', 3)
    assert segmenter.zoom.context == 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('--zoom-box 1,2,3,4', '--zoom-box belongs to --zoom boxes'),
        ('--zoom self --zoom-box 1,2,3,4', '--zoom-box belongs to --zoom boxes'),
        ('--zoom boxes --zoom-category cup', '--zoom-category belongs to --zoom detector'),
        ('--zoom-regions 3', '--zoom-regions belongs to --zoom self or boxes or detector'),
        ('--zoom boxes', 'needs a --zoom-box'),
        ('--zoom boxes --zoom-box 1,2,3', 'Box 1 must be four numbers'),
        ('--zoom boxes --zoom-box 1,2,0,4', 'Box 1 has no area'),
        ('--zoom boxes --zoom-box 1,2,nan,4', 'finite'),
        ('--zoom detector', 'run "clipseg download fasterrcnn_resnet50_fpn_v2"'),
        ('--zoom detector --zoom-detector yolo', "no detector 'yolo'"),
        ('--zoom detector --zoom-weights none.pth', 'no file none.pth'),
        ('--zoom self --zoom-combine sum', "not by 'sum'"),
        ('--zoom self --zoom-regions 0', 'from 1, not 0'),
        ('--instances --min-area 0', 'from 1, not 0'),
        ('--min-area 5', '--min-area belongs to --instances'),
    ],
)
def test_options_that_make_no_sense(
    checkpoint: Path, photo: Path, options: str, message: str
) -> None:
    result = segment(checkpoint, photo, '-p', 'mug', *shlex.split(options))
    assert result.exit_code == 1
    assert message in re.sub(r'\s+', ' ', result.stderr)
    assert not Path('out').exists()


def test_a_box_outside_one_image_of_several(checkpoint: Path, photo: Path) -> None:
    Image.new('RGB', (400, 300)).save('large.png')
    options = ['--zoom', 'boxes', '--zoom-box', '300,200,50,50']
    result = segment(checkpoint, photo, 'large.png', '-p', 'mug', *options)
    assert result.exit_code == 1
    assert 'outside the image of 120 × 90' in re.sub(r'\s+', ' ', result.stderr)
    assert Path('out/large.json').is_file()


def test_instances(checkpoint: Path, photo: Path) -> None:
    assert segment(checkpoint, photo, '-p', 'mug', '--instances').exit_code == 0
    (entry,) = entries()
    mask = read_mask(Path('out') / entry['mask'])
    assert sum(one['area'] for one in entry['instances']) == mask.sum() > 0
    count, _, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    assert len(entry['instances']) == count - 1
    x, y, width, height = entry['instances'][0]['box']
    assert entry['instances'][0]['area'] == statistics[1:, cv2.CC_STAT_AREA].max()
    assert mask[y : y + height, x : x + width].any()
    assert 0.5 < entry['instances'][0]['probability'] <= 1
    assert x <= entry['instances'][0]['centroid'][0] < x + width
    segment(checkpoint, photo, '-p', 'mug', '--instances', '--min-area', 90 * 120 + 1)
    assert entries()[0]['instances'] == []
    segment(checkpoint, photo, '-p', 'mug')
    assert 'instances' not in entries()[0]


def test_the_page_is_true(
    repository: Path, checkpoint: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examples run, options exist."""
    import clipseg_model

    page = (repository / 'docs' / 'zoom.md').read_text(encoding='utf-8')
    monkeypatch.setattr(clipseg_model, 'create_model', lambda *_: create_model(checkpoint, 'cpu'))
    assert run_python(page) >= 3
    assert check_options(page) >= 3
