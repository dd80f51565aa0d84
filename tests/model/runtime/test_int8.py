"""Quantisation to int8: only where masks agree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from runtime_models import PROMPTS, start

from clipseg_model.errors import (
    ExportError,
    PrecisionError,
)
from clipseg_model.quantization import export_int8, mask_agreement
from clipseg_model.registry import create_model, load_model
from clipseg_model.runtime.split import weights_digest


class TestInt8:
    @pytest.fixture
    def pictures(self) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
        return [np.kron(each, np.ones((16, 16, 1), np.uint8)) for each in coarse]

    def test_is_not_made_without_images(self, vit: Path) -> None:
        with pytest.raises(ExportError, match='--precision int8 --calibration'):
            start(vit, 'openvino', 'int8')

    @pytest.mark.slow
    def test_is_written_where_masks_agree(
        self, vit: Path, exported: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]
    ) -> None:
        pytest.importorskip('nncf')
        folder = Path(shutil.copytree(exported, tmp_path / 'chosen'))
        model, card = load_model(vit)
        digest = weights_digest(model)
        with pytest.raises(PrecisionError, match=r'agree with those of fp32 at IoU 0\.'):
            export_int8(model, card, digest, folder, pictures, PROMPTS, least_iou=0.99999)
        assert not (folder / 'openvino-int8').exists()
        agreement = export_int8(model, card, digest, folder, pictures, PROMPTS, least_iou=0.5)
        other = start(vit, 'openvino', 'int8', exports=folder)
        reference = create_model(vit, 'cpu', runtime='eager')
        again = mask_agreement(reference, other, pictures, [PROMPTS] * len(pictures))
        assert 0.5 <= agreement.iou < 1
        assert again.iou == pytest.approx(agreement.iou, abs=1e-3)
        manifest = json.loads((folder / 'openvino-int8' / 'manifest.json').read_text())
        assert manifest['calibration']['iou'] == pytest.approx(agreement.iou, abs=1e-4)

    def test_needs_enough_images(
        self, vit: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]
    ) -> None:
        pytest.importorskip('nncf')
        model, card = load_model(vit)
        with pytest.raises(ExportError, match='at least 8 images, and there are 2'):
            export_int8(model, card, 'digest', tmp_path, pictures[:2], PROMPTS)

    def test_agreement_counts_pixels(self, vit: Path, pictures: list[NDArray[np.uint8]]) -> None:
        reference, other = (
            create_model(vit, 'cpu', runtime='eager'),
            create_model(vit, 'cpu', runtime='eager'),
        )
        same = mask_agreement(reference, other, pictures[:2], [PROMPTS] * 2)
        assert same.iou == 1.0
        assert same.correlation == pytest.approx(1.0)
        with torch.no_grad():
            other.model.decoder.head.deconv2.bias += 0.3
        moved = mask_agreement(reference, other, pictures[:2], [PROMPTS] * 2)
        assert same.share_on == moved.share_on
        assert 0.3 < moved.iou < 0.99
        with torch.no_grad():
            reference.model.decoder.head.deconv2.bias -= 1e4
        with pytest.raises(PrecisionError, match='None of the prompts'):
            mask_agreement(reference, other, pictures[:2], [PROMPTS] * 2)
