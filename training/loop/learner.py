"""The model that is trained, on frozen towers, and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.backbone import IMAGENET_MEAN
from clipseg_model.modeling.base import ImageFeatures, SegmentationModel, build_model
from clipseg_model.registry import get_card, list_models, load_model
from clipseg_model.weights.checkpoints import load_card, load_towers
from training.loop.activations import taps_of
from training.loop.feeding import Load
from training.loop.prompting import PromptSettings
from training.loop.settings import Settings, SettingsError


class Learner(nn.Module):
    """A model with frozen towers, all else trained, and the papers' loss."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        model.requires_grad_(True)
        for tower in towers_of(model):
            tower.requires_grad_(False)
        self._reads = taps_of(model.config())
        shape = (1, 3, 1, 1)
        self.register_buffer('_mean', torch.tensor(model.backbone.mean).view(shape), False)
        self.register_buffer('_std', torch.tensor(model.backbone.std).view(shape), False)
        self._mean: Tensor
        self._std: Tensor

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the weights that are trained, by name in the model."""
        named = self.model.named_parameters()
        return {name: value for name, value in named if value.requires_grad}

    def forward(self, load: Load) -> tuple[Tensor, Tensor]:
        """Run a batch of B samples.

        Returns:
            Binary cross-entropy (CLIPSeg, supplement), summed over the pixels that count; and the
            logits (B, 1, S, S) in float32.
        """
        device = self._mean.device
        logits = self.model.decode(self.features(load), self.conditions(load)[:, None]).float()
        truth = load.batch.masks.to(device, non_blocking=True)
        valid = load.batch.valid.to(device, non_blocking=True)
        losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction='none')
        return (losses * valid).sum(), logits

    def features(self, load: Load) -> ImageFeatures:
        """Return what the towers make of the images, or made of them when they were cached."""
        device = self._mean.device
        size = load.batch.masks.shape[-1]
        if load.taps is not None:
            # Stored in half precision; the decoder runs in whatever precision the run has.
            read = [load.taps[load.layers.index(layer)] for layer in self._reads]
            taps = [tap.to(device, non_blocking=True).float() for tap in read]
            return ImageFeatures(taps, load.grid, size, size)
        return self.model.encode_image(self.normalised(load.batch.images))

    def normalised(self, images: Tensor) -> Tensor:
        """Return images (B, 3, S, S) of 0…1 as the towers take them, on their device."""
        pixels = images.to(self._mean.device, non_blocking=True)
        return (pixels - self._mean) / self._std

    def conditions(self, load: Load) -> Tensor:
        """Return conditional vectors (B, E): a · text + (1 - a) · image, a the text's share."""
        device = self._mean.device
        texts, supports = self.embeddings(load)
        share = load.batch.text_weights.to(device)[:, None].to(texts.dtype)
        return share * texts + (1 - share) * supports

    def embeddings(self, load: Load) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, E) of captions and of prompt images, zero without one."""
        device = self._mean.device
        if load.texts is not None and load.supports is not None:
            return load.texts.to(device), load.supports.to(device)
        texts = self.model.embed_texts(load.batch.texts)
        supports = torch.zeros_like(texts)
        has = load.batch.has_support
        if bool(has.any()):
            pixels = load.batch.supports[has].to(device).permute(0, 3, 1, 2).float() / 255
            embedded = self.model.embed_images(self.normalised(pixels))
            supports[has.to(device)] = embedded.to(supports.dtype)
        return texts, supports


def towers_of(model: SegmentationModel) -> list[nn.Module]:
    """Return the frozen parts: CLIP's towers, and ViTSeg's image tower."""
    parts = [model.backbone, getattr(model, 'image_tower', None)]
    return [part for part in parts if isinstance(part, nn.Module)]


def begin_model(settings: Settings) -> tuple[SegmentationModel, ModelCard | None]:
    """Build the model that a run begins with, and return the card of its checkpoint, if any.

    Raises:
        SettingsError: The configuration of the model does not fit, or has keys that mean nothing.
        CheckpointError: Weights are missing or damaged.
        ModelNotFoundError: ``init_from`` is no name and no path.
    """
    if settings.init_from is not None:
        model, card = load_model(settings.init_from)
        if settings.model is not None:
            _check_used(settings.model, model.config(), f'the model of {settings.init_from}')
        _check_ground(settings.prompts, model)
        return model, card
    assert settings.model is not None
    config = dict(settings.model)
    towers = None
    if settings.towers != 'random':
        assert settings.towers is not None
        towers = load_towers(settings.towers, config.get('backbone'))
        # Hugging Face's folders and checkpoints know better what they hold; a file of open_clip
        # is as the configuration says.
        config['backbone'] = towers.config()
    if settings.image_tower is not None:
        config['image_tower'] = {
            **config.get('image_tower', {}),
            'pretrained': str(settings.image_tower),
        }
    try:
        model = build_model(config)
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f'the model cannot be built: {error!r}') from error
    _check_used(settings.model, model.config(), 'the model that is built', but=('backbone',))
    if towers is not None:
        assert isinstance(towers, nn.Module)
        assert isinstance(model.backbone, nn.Module)
        model.backbone.load_state_dict(towers.state_dict())
    elif isinstance(config.get('backbone'), dict):
        _check_used(config['backbone'], model.config()['backbone'], 'its backbone')
    _check_ground(settings.prompts, model)
    return model, None


def follow_card(settings: Settings) -> Settings:
    """Fill in side, background and method of prompt images from ``init_from``, unless given.

    Raises CheckpointError or ModelNotFoundError where there is no such checkpoint.
    """
    name = settings.init_from
    if name is None or name.endswith('.pth'):
        return settings
    card = get_card(name) if name in list_models() else load_card(name)
    mean = card.config.get('backbone', {}).get('mean', IMAGENET_MEAN)
    known = {
        'size': card.input_size,
        'ground': card.ground_levels(mean),
        'method': card.visual_method,
    }
    given = settings.prompts.model_fields_set
    changes = {key: value for key, value in known.items() if key not in given}
    prompts = settings.prompts.model_copy(update=changes)
    return settings.model_copy(update={'prompts': prompts})


def ground_name(prompts: PromptSettings, mean: tuple[float, ...]) -> str:
    """Return the card's name for the background of prompt images, or raise SettingsError."""
    if tuple(prompts.ground) == (0, 0, 0):
        return 'black'
    if all(abs(a - 255 * b) < 0.5 for a, b in zip(prompts.ground, mean, strict=True)):
        return 'mean'
    raise SettingsError(
        f'prompts.ground is {list(prompts.ground)}; a model can be run with black ([0, 0, 0]) or '
        f'with its mean colour ({[round(255 * level, 3) for level in mean]})'
    )


def _check_ground(prompts: PromptSettings, model: SegmentationModel) -> None:
    ground_name(prompts, tuple(model.backbone.mean))
    side = model.backbone.patch_size
    if prompts.size % side:
        raise SettingsError(f'prompts.size {prompts.size} is no multiple of the patches, {side} px')


def _check_used(
    given: Mapping[str, Any], built: Mapping[str, Any], what: str, but: tuple[str, ...] = ()
) -> None:
    """Make sure that no key of a configuration was ignored, or meant something else."""
    for key, value in given.items():
        if key in but:
            continue
        if key not in built:
            raise SettingsError(
                f'model key {key!r} means nothing to {what}; there are {", ".join(built)}'
            )
        if isinstance(value, Mapping) and isinstance(built[key], Mapping) and key != 'overrides':
            _check_used(value, built[key], what)
        elif value != built[key]:
            raise SettingsError(f'model key {key!r} is {value!r}, and {built[key]!r} in {what}')
