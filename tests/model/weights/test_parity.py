"""The same weights give the same numbers here and in Hugging Face's transformers.

The names of the tests follow the list of what the two reference implementations really do.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip('transformers')

import huggingface_models as theirs
import transformers

from clipseg_model import create_model
from clipseg_model.errors import CheckpointError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.registry import get_card
from clipseg_model.segmenter import Segmenter
from clipseg_model.weights.huggingface import load_huggingface, save_huggingface

# Head, D, side of the images that the towers were trained on.
KINDS = [('plain', 16, 64), ('plain', 64, 48), ('refined', 16, 48), ('refined', 64, 64)]
CARD = ModelCard('theirs', 'clipseg', {}, 64)
TOLERANCE: dict[str, float] = {'rtol': 0, 'atol': 1e-4}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope='module')
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes a model of theirs and the same of ours, read from the folder that it was saved to."""

    @cache
    def make(head: str, dim: int, native: int, **changes: Any) -> tuple[Any, CLIPSeg]:
        vision = {
            'hidden_size': 48,
            'intermediate_size': 96,
            'num_hidden_layers': 5,
            'num_attention_heads': 4,
            'image_size': native,
            'patch_size': 16,
        }
        model = theirs.make(dim, head == 'refined', vision_config=vision, **changes)
        folder = theirs.save(model, tmp_path_factory.mktemp('hf'))
        return model, load_huggingface(folder)[0]

    return make


def images(size: int, count: int = 2, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def states(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    found: tuple[torch.Tensor, ...] = model.clip.get_image_features(
        pixels, output_hidden_states=True
    ).hidden_states
    return found


@pytest.mark.parametrize('kind', KINDS, ids=str)
@pytest.mark.parametrize('size', [48, 64, 112])
def test_logits_for_text_prompts(pair: Any, kind: tuple[Any, ...], size: int) -> None:
    model, ours = pair(*kind)
    pixels, texts = images(size), theirs.TEXTS[:2]
    expected = model(input_ids=theirs.tokens(texts), pixel_values=pixels)
    condition = ours.embed_texts(texts)
    torch.testing.assert_close(condition, expected.conditional_embeddings, **TOLERANCE)
    logits = ours(pixels, condition[:, None])[:, 0]
    assert logits.shape == (2, size, size)
    assert expected.logits.std() > 0.05
    torch.testing.assert_close(logits, expected.logits, **TOLERANCE)


@pytest.mark.parametrize('kind', KINDS, ids=str)
def test_logits_for_image_prompts(pair: Any, kind: tuple[Any, ...]) -> None:
    model, ours = pair(*kind)
    pixels, support = images(80), images(96, seed=4)
    expected = model(conditional_pixel_values=support, pixel_values=pixels)
    condition = ours.embed_images(support)
    torch.testing.assert_close(condition, expected.conditional_embeddings, **TOLERANCE)
    logits = ours(pixels, condition[:, None])[:, 0]
    torch.testing.assert_close(logits, expected.logits, **TOLERANCE)
    other = ours(pixels, condition.flip(0)[:, None])[:, 0]
    assert (other - logits).abs().max() > 0.01


def test_many_prompts_on_one_image(pair: Any) -> None:
    """One encoding here, one run for each prompt there; and a single prompt keeps its axis."""
    model, ours = pair(*KINDS[3])
    pixels = images(64, 1)
    condition = ours.embed_texts(theirs.TEXTS)
    logits = ours.decode(ours.encode_image(pixels), condition)
    expected = model(
        input_ids=theirs.tokens(theirs.TEXTS),
        pixel_values=pixels.expand(len(theirs.TEXTS), -1, -1, -1),
    ).logits
    torch.testing.assert_close(logits, expected, **TOLERANCE)
    single = ours.decode(ours.encode_image(pixels), condition[:1])
    torch.testing.assert_close(single, expected[:1], **TOLERANCE)


def test_1_normalisation_is_that_of_the_file_not_of_the_class(pair: Any, tmp_path: Path) -> None:
    _, ours = pair(*KINDS[0])
    assert ours.backbone.mean == (0.485, 0.456, 0.406)
    assert ours.backbone.std == (0.229, 0.224, 0.225)
    folder = theirs.save(theirs.make(), tmp_path / 'a')
    changed = folder / 'preprocessor_config.json'
    theirs.edit_json(changed, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    model, _ = load_huggingface(folder)
    assert (model.backbone.mean, model.backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    theirs.edit_json(changed, image_mean=None)
    with pytest.raises(CheckpointError, match='image_mean'):
        load_huggingface(folder)


@pytest.mark.parametrize('shape', [(480, 640), (301, 200), (352, 352), (90, 60), (1080, 400)])
def test_2_pixels_are_bit_for_bit_the_processors(pair: Any, shape: tuple[int, int]) -> None:
    _, ours = pair(*KINDS[0])
    card = replace(CARD, input_size=352)
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = theirs.processor(352)(picture, return_tensors='pt')['pixel_values']
    pixels = Segmenter(ours, card, 'cpu').preprocessor.pixels(picture, (352, 352))
    assert torch.equal(torch.as_tensor(pixels), expected)


@pytest.mark.parametrize(('act', 'eps'), [('quick_gelu', 1e-3), ('gelu', 1e-5)])
def test_3_activation_and_eps_are_the_files(tmp_path: Path, act: str, eps: float) -> None:
    model = theirs.make(act=act, eps=eps)
    ours, _ = load_huggingface(theirs.save(model, tmp_path / 'a'))
    pixels = images(64)
    taps, _ = ours.backbone.image_tokens(pixels, [0, 2, 4])
    for tap, number in zip(taps, (0, 2, 4), strict=True):
        torch.testing.assert_close(tap, states(model, pixels)[number + 1], **TOLERANCE)
    expected = model.clip.get_text_features(theirs.tokens(theirs.TEXTS)).pooler_output
    torch.testing.assert_close(ours.embed_texts(theirs.TEXTS), expected, **TOLERANCE)


@pytest.mark.parametrize('size', [32, 48, 64, 160])
def test_4_and_5_tapped_activations(pair: Any, size: int) -> None:
    """Positions on any grid, CLS first, no final LayerNorm; tap i is hidden_states[i + 1]."""
    model, ours = pair(*KINDS[0])
    pixels = images(size)
    taps, grid = ours.backbone.image_tokens(pixels, [0, 1, 2, 3, 4])
    assert grid == (size // 16, size // 16)
    expected = states(model, pixels)
    for number, tap in enumerate(taps):
        torch.testing.assert_close(tap, expected[number + 1], **TOLERANCE)
        assert (tap - expected[number]).abs().max() > 0.1


def test_6_taps_are_the_files_and_else_3_6_9(tmp_path: Path, pair: Any) -> None:
    assert pair(*KINDS[0])[1].layers == (0, 2, 3)
    vision = {'hidden_size': 48, 'intermediate_size': 96, 'num_attention_heads': 4}
    vision.update(patch_size=16, image_size=64, num_hidden_layers=10)
    model = theirs.make(extract_layers=[3, 6, 9], vision_config=vision)
    folder = theirs.save(model, tmp_path / 'a')
    theirs.edit_json(folder / 'config.json', extract_layers=None, conditional_layer=None)
    ours, card = load_huggingface(folder)
    assert ours.layers == card.layers == (3, 6, 9)
    assert ours.decoder.cond_layer == 0


def test_7_texts_are_neither_normalised_nor_moved_by_padding(pair: Any) -> None:
    model, ours = pair(*KINDS[0])
    embeddings = ours.embed_texts(theirs.TEXTS)
    assert (embeddings.norm(dim=1) - 1).abs().min() > 0.1
    padded = theirs.tokens(theirs.TEXTS)  # zeros behind the end, up to 77 tokens
    for padding in (0, 1, 49407):
        ids = padded.masked_fill(padded == 0, padding)
        expected = model.clip.get_text_features(ids).pooler_output
        torch.testing.assert_close(embeddings, expected, **TOLERANCE)


def test_8_image_prompts_go_through_every_block(pair: Any) -> None:
    model, ours = pair(*KINDS[0])
    pixels = images(64)
    expected = model.clip.vision_model.post_layernorm(states(model, pixels)[-1][:, 0])
    expected = model.clip.visual_projection(expected)
    torch.testing.assert_close(ours.embed_images(pixels), expected, **TOLERANCE)


@pytest.mark.parametrize('act', ['gelu', 'quick_gelu'])
def test_9_the_decoder_is_relu_whatever_the_file_says(tmp_path: Path, act: str) -> None:
    model = theirs.make(decoder_hidden_act=act, conditional_layer=2)
    ours, _ = load_huggingface(theirs.save(model, tmp_path / 'a'))
    pixels, condition = images(64), torch.randn(2, 24)
    expected = model(conditional_embeddings=condition, pixel_values=pixels).logits
    logits = ours(pixels, condition[:, None])[:, 0]
    torch.testing.assert_close(logits, expected, **TOLERANCE)


@pytest.mark.parametrize('patch', [8, 16, 32])
def test_10_the_plain_head_has_patches_of_any_size(tmp_path: Path, patch: int) -> None:
    vision = {'hidden_size': 48, 'intermediate_size': 96, 'num_attention_heads': 4}
    vision.update(patch_size=patch, image_size=64, num_hidden_layers=4)
    model = theirs.make(vision_config=vision)
    ours, _ = load_huggingface(theirs.save(model, tmp_path / 'a'))
    pixels, condition = images(96), torch.randn(2, 24)
    expected = model(conditional_embeddings=condition, pixel_values=pixels).logits
    logits = ours(pixels, condition[:, None])[:, 0]
    torch.testing.assert_close(logits, expected, **TOLERANCE)


@pytest.mark.parametrize('kind', KINDS, ids=str)
def test_converted_back_it_loads_in_transformers(
    pair: Any, kind: tuple[Any, ...], tmp_path: Path
) -> None:
    model, ours = pair(*kind)
    save_huggingface(tmp_path / 'back', ours, CARD)
    back = transformers.CLIPSegForImageSegmentation.from_pretrained(tmp_path / 'back').eval()
    expected, found = model.state_dict(), back.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    inputs = {'input_ids': theirs.tokens(theirs.TEXTS[:2]), 'pixel_values': images(80)}
    assert torch.equal(back(**inputs).logits, model(**inputs).logits)
    for key in ('projection_dim', 'reduce_dim', 'extract_layers', 'conditional_layer'):
        assert getattr(back.config, key) == getattr(model.config, key)
    for tower in ('vision_config', 'text_config'):
        settings, known = (getattr(each.config, tower).to_dict() for each in (back, model))
        assert {**settings, 'dtype': None} == {**known, 'dtype': None}


def test_the_processor_of_a_converted_folder(pair: Any, tmp_path: Path) -> None:
    save_huggingface(tmp_path / 'back', pair(*KINDS[0])[1], CARD)
    processor = transformers.CLIPSegProcessor.from_pretrained(tmp_path / 'back')
    texts = [*theirs.TEXTS, "The RED Mug,\tthe chair's 12:30"]
    found = processor.tokenizer(texts, padding='max_length').input_ids
    for ids, expected in zip(found, theirs.tokens(texts).tolist(), strict=True):
        length = expected.index(49407) + 1
        assert ids[:length] == expected[:length]
        assert len(ids) == 77
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    pixels = processor.image_processor(picture, return_tensors='pt')['pixel_values']
    assert torch.equal(pixels, theirs.processor(64)(picture, return_tensors='pt')['pixel_values'])


def test_the_whole_way_from_image_to_probability(tmp_path: Path) -> None:
    """`create_model` on a folder, against the usual few lines with transformers."""
    model = theirs.make(64, refined=True)
    folder = theirs.save(model, tmp_path / 'clipseg-mine', size=96)
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    pixels = theirs.processor(96)([picture] * 2, return_tensors='pt')['pixel_values']
    ids = theirs.tokens(theirs.TEXTS[:2])
    expected = model(input_ids=ids, pixel_values=pixels).logits.sigmoid().numpy()
    segmenter = create_model(folder, 'cpu')
    assert (segmenter.card.name, segmenter.card.input_size) == ('clipseg-mine', 96)
    found = segmenter.segment(picture, theirs.TEXTS[:2])
    for result, probability in zip(found.results, expected, strict=True):
        np.testing.assert_allclose(result.probability, probability, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_at_full_size(tmp_path: Path) -> None:
    """ViT-B/16 at 352 × 352 with the settings of the published refined model."""
    settings: dict[str, Any] = {
        'vision_config': {'patch_size': 16},
        'text_config': {},
        'projection_dim': 512,
        'extract_layers': [3, 6, 9],
        'conditional_layer': 0,
        'decoder_intermediate_size': 2048,
    }
    model = theirs.make(64, refined=True, **settings)
    folder = theirs.save(model, tmp_path / 'full', size=352)
    config = json.loads((folder / 'config.json').read_text())
    assert config['vision_config']['hidden_size'] == 768
    ours, card = load_huggingface(folder)
    assert card.config == get_card('clipseg-rd64-refined').config
    pixels = images(352, 1)
    texts = theirs.TEXTS[:1]
    expected = model(input_ids=theirs.tokens(texts), pixel_values=pixels)
    logits = ours(pixels, ours.embed_texts(texts)[None])[:, 0]
    torch.testing.assert_close(logits, expected.logits, **TOLERANCE)
