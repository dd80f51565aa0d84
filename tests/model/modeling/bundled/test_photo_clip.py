from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import CARD, make_photo_model

from clipseg_model.modeling.backbone import Backbone
from clipseg_model.modeling.base import build_model
from clipseg_model.modeling.bundled.photo_clip import CLASSES, DeepStage, PhotoClip
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.weights.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture(scope='module')
def model() -> CLIPSeg:
    return make_photo_model()


@pytest.fixture(scope='module')
def towers(model: CLIPSeg) -> PhotoClip:
    assert isinstance(model.backbone, PhotoClip)
    return model.backbone


def pixels(height: int = 64, width: int = 96, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_odd_grids_lose_no_place() -> None:
    stage = DeepStage()
    torch.manual_seed(0)
    features = torch.randn(1, 272, 5, 7)
    assert stage(features).shape == (1, 320, 3, 4)
    other = features.clone()
    other[..., -1, -1] += 3
    change = (stage(other) - stage(features))[0].norm(dim=0)
    assert change[2, 3] > 0


@torch.no_grad()
def test_the_guide_holds_unit_patches_and_probabilities(towers: PhotoClip) -> None:
    taps, grid = towers.image_tokens(pixels(80, 112, 2), [0, 2])
    assert isinstance(towers, Backbone)
    assert grid == (5, 7)
    *tokens, guide = taps
    assert [tap.shape for tap in tokens] == [(2, 36, 32)] * 2
    assert guide.shape == (2, 35, towers.embed_dim + CLASSES)
    patches, classes = guide.split([towers.embed_dim, CLASSES], -1)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(2, 35), atol=1e-5)
    assert torch.allclose(classes.sum(-1), torch.ones(2, 35), atol=1e-4)


@torch.no_grad()
def test_a_name_leads_to_its_classes(model: CLIPSeg, towers: PhotoClip) -> None:
    meaning = towers.name_meanings()[0]
    condition = torch.cat([torch.zeros(16), meaning])[None]
    model.decoder.sharpness.fill_(6.0)
    _, _, _, classes, best = model.decoder.modulate(condition)
    model.decoder.sharpness.fill_(3.4)
    assert classes.argmax() == 5
    assert classes[0, 5] > 0.9
    assert best > 0.99


@torch.no_grad()
def test_prompts_do_not_disturb_each_other(model: CLIPSeg) -> None:
    condition = model.embed_texts(['mug', 'red chair', 'cup'])
    features = model.encode_image(pixels())
    together = model.decode(features, condition)
    alone = torch.cat([model.decode(features, one[None]) for one in condition])
    assert torch.allclose(together, alone, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


@torch.no_grad()
def test_gradients_change_no_answer(model: CLIPSeg) -> None:
    condition = model.embed_texts(['mug'])
    without = model(pixels(), condition[None])
    with torch.enable_grad():
        traced = model(pixels(), condition[None])
    assert torch.allclose(without, traced, atol=1e-4)


@torch.no_grad()
def test_a_prompt_image_speaks_of_its_class(towers: PhotoClip) -> None:
    tokens = torch.zeros(1, 5, 32)
    probabilities = torch.zeros(1, CLASSES)
    probabilities[0, 5] = 1
    own = towers.embed_tokens(tokens, torch.zeros(1, CLASSES))
    embedded = towers.embed_tokens(tokens, probabilities)
    meaning = towers.name_meanings()
    expected = torch.nn.functional.normalize(meaning[0] + meaning[2], dim=-1)
    assert torch.allclose(
        torch.nn.functional.normalize((embedded - own)[0, -32:], dim=-1), expected, atol=1e-4
    )


def test_config_rebuilds_it(model: CLIPSeg, tmp_path: Path) -> None:
    again = build_model(model.config())
    again.load_state_dict(model.state_dict())
    path = tmp_path / 'tiny.safetensors'
    save_checkpoint(path, model, CARD, dtype=torch.float32)
    loaded, _ = load_checkpoint(path)
    with torch.no_grad():
        condition = model.embed_texts(['red mug'])[None]
        assert torch.equal(again(pixels(), condition), model(pixels(), condition))
        assert torch.allclose(loaded(pixels(), condition), model(pixels(), condition), atol=1e-5)
