"""Every model learns a few scenes by heart: none is wired wrongly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipseg_model.modeling.base import SegmentationModel, build_model
from clipseg_model.registry import WEIGHTS_FOLDER
from clipseg_model.weights.checkpoints import load_checkpoint
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from training.bundled.inputs import normalise
from training.bundled.losses import mask_loss
from training.metrics.pixels import PixelStatistics, index_of

SCENES = 8
SIDE = 128
PROMPTS = 2
#: Share of the picture that a thing must fill to be asked for.
LEAST = 0.02
#: Most steps of training; it ends as soon as the scenes are known.
STEPS = 1500
RATE = 2e-3
GOAL = 0.9

DECODER = {'dim': 64, 'num_heads': 4, 'feedforward': 256, 'head': 'plain'}


def clsclip(guidance: str, blocks: list[int], learned_tokens: int = 0) -> dict[str, Any]:
    return {
        'architecture': 'clsclip',
        'blocks': blocks,
        'guidance': guidance,
        'learned_tokens': learned_tokens,
        'decoder': {**DECODER, 'num_layers': 2},
    }


#: Configurations without their towers, whose blocks are 0 to 3.
MODELS: dict[str, dict[str, Any]] = {
    'clipseg': {'architecture': 'clipseg', 'layers': [1, 2, 3], 'decoder': DECODER},
    'clip-deconv': {
        'architecture': 'clip-deconv',
        'layers': [1],
        'decoder': {'dim': 128, 'hidden': 512},
    },
    'vitseg': {
        'architecture': 'vitseg',
        'image_tower': {
            'architecture': 'vit_tiny_patch16_224',
            'overrides': {'img_size': SIDE, 'depth': 4},
        },
        'layers': [1, 2, 3],
        'decoder': DECODER,
    },
    'clsclip': clsclip('cls', [1, 2]),
    'clsclip-channel': clsclip('channel', [1, 2]),
    'clsclip-spatial': clsclip('spatial', [1, 2]),
    'clsclip-vpt': clsclip('channel', [4], learned_tokens=50),
}


@pytest.fixture(scope='module')
def scenes() -> tuple[Tensor, list[str], Tensor]:
    """Pictures uint8 (8, S, S, 3), two texts for each, and their masks, bool (8, 2, S, S)."""
    pictures, texts, masks = [], [], []
    with Renderer(SIDE, SIDE) as renderer:
        seed = 0
        while len(pictures) < SCENES:
            frame = renderer.render(generate_scene(seed, 'train'), 0, depth=False)
            seed += 1
            named: dict[str, Tensor] = {}
            instances = torch.from_numpy(frame.instances.copy())
            for item in frame.scene.objects:
                if item.colour:
                    text = f'the {item.colour} {item.category}'.replace('_', ' ')
                    mask = instances == item.id
                    named[text] = named.get(text, torch.zeros_like(mask)) | mask
            large = [text for text, mask in named.items() if mask.float().mean() >= LEAST]
            if len(large) >= PROMPTS:
                pictures.append(torch.from_numpy(frame.rgb.copy()))
                texts += large[:PROMPTS]
                masks.append(torch.stack([named[text] for text in large[:PROMPTS]]))
    return torch.stack(pictures), texts, torch.stack(masks)


def make(name: str) -> SegmentationModel:
    """A model with random weights on the towers of the bundled model, which are frozen."""
    torch.manual_seed(0)
    tabletop, _ = load_checkpoint(WEIGHTS_FOLDER / 'tabletop.safetensors')
    model = build_model({**MODELS[name], 'backbone': tabletop.backbone.config()})
    model.backbone.load_state_dict(tabletop.backbone.state_dict())
    model.backbone.requires_grad_(False)
    if name == 'vitseg':
        # Weights of ImageNet are not here: this tower starts at random, so it has to learn.
        model.image_tower.requires_grad_(True)
    return model


def iou_foreground(logits: Tensor, masks: Tensor) -> float:
    statistics = PixelStatistics()
    statistics.add(logits.detach().sigmoid().numpy(), masks.numpy())
    return float(statistics.iou_foreground()[index_of(0.5)])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('name', list(MODELS))
def test_eight_scenes_are_learned_by_heart(
    name: str, scenes: tuple[Tensor, list[str], Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, texts, masks = scenes
    model = make(name)
    images = normalise(pictures, model.backbone, (SIDE, SIDE))
    with torch.no_grad():
        condition = model.embed_texts(texts).view(SCENES, PROMPTS, -1)
    features = model.encode_image(images)
    frozen = not features.taps[0].requires_grad
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0)
    known = torch.ones(SCENES, PROMPTS, dtype=torch.bool)
    iou, step = 0.0, 0
    while iou < GOAL and step < STEPS:
        step += 1
        for group in optimizer.param_groups:
            group['lr'] = RATE * min(1, step / 50) * (1 - step / STEPS) ** 0.5
        if not frozen:
            features = model.encode_image(images)
        logits = model.decode(features, condition)
        bce, dice = mask_loss(logits, masks, known)
        optimizer.zero_grad()
        (bce + dice).backward()
        nn.utils.clip_grad_norm_(parameters, 1)
        optimizer.step()
        if step % 25 == 0:
            iou = iou_foreground(model(images, condition), masks)
    with capsys.disabled():
        print(f'\n{name}: IoU_FG {iou:.3f} on {SCENES} scenes after {step} steps')
    assert iou >= GOAL
