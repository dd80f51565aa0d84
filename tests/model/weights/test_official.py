"""The decoders that the authors of CLIPSeg published."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clipseg_model import create_model
from clipseg_model.errors import CheckpointError
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.modeling.decoder import CLIPSegDecoder
from clipseg_model.weights import store
from clipseg_model.weights.checkpoints import load_checkpoint, load_towers, save_checkpoint
from clipseg_model.weights.official import read_official

GENUINE = 'rd16-uni.pth'
DIM, WIDTH, EMBED = 16, 64, 24

TOWERS = {
    'embed_dim': EMBED,
    'vision_cfg': {'image_size': 64, 'layers': 10, 'width': WIDTH, 'patch_size': 16},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1},
}


def official(
    refined: bool = False, dim: int = DIM, width: int = WIDTH, embed: int = EMBED
) -> dict[str, torch.Tensor]:
    """What the official code saves of a model: its decoder, built from torch's own layers."""
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.film_mul, model.film_add = torch.nn.Linear(embed, dim), torch.nn.Linear(embed, dim)
    model.reduce = torch.nn.Linear(width, dim)
    layer = torch.nn.TransformerEncoderLayer(dim, 4, dim_feedforward=48)
    model.reduces = torch.nn.ModuleList(torch.nn.Linear(width, dim) for _ in range(3))
    model.blocks = torch.nn.ModuleList(copy.deepcopy(layer) for _ in range(3))
    model.trans_conv = torch.nn.ConvTranspose2d(dim, 1, 16, stride=16)
    if refined:
        model.trans_conv = torch.nn.Sequential(
            torch.nn.Conv2d(dim, dim, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(dim, dim // 2, 4, stride=4),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(dim // 2, 1, 4, stride=4),
        )
    state = model.state_dict()
    generator = torch.Generator().manual_seed(1)
    return {
        key: value + 0.1 * torch.randn(value.shape, generator=generator)
        for key, value in state.items()
    }


def run(state: dict[str, torch.Tensor], taps: list[torch.Tensor], condition: torch.Tensor) -> Any:
    """The official forward pass, written down from its description with torch's own layers."""
    dim, feedforward = state['film_mul.bias'].shape[0], state['blocks.0.linear1.bias'].shape[0]

    def linear(name: str, value: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(value, state[f'{name}.weight'], state[f'{name}.bias'])

    tokens: Any = 0
    for number, tap in enumerate(reversed(taps)):
        tokens = linear(f'reduces.{number}', tap) + tokens
        if number == 0:
            tokens = linear('film_mul', condition)[:, None] * tokens
            tokens = tokens + linear('film_add', condition)[:, None]
        block = torch.nn.TransformerEncoderLayer(dim, 4, feedforward, batch_first=True).eval()
        prefix = f'blocks.{number}.'
        block.load_state_dict(
            {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        )
        tokens = block(tokens)
    patches = tokens[:, 1:].transpose(1, 2)
    side = int(patches.shape[2] ** 0.5)
    patches = patches.unflatten(2, (side, side))
    deconv = torch.nn.functional.conv_transpose2d
    if 'trans_conv.weight' in state:
        return deconv(patches, state['trans_conv.weight'], state['trans_conv.bias'], 16)[:, 0]
    weights = [state[f'trans_conv.{number}.weight'] for number in (0, 2, 4)]
    biases = [state[f'trans_conv.{number}.bias'] for number in (0, 2, 4)]
    patches = torch.nn.functional.conv2d(patches, weights[0], biases[0], padding=1).relu()
    return deconv(deconv(patches, weights[1], biases[1], 4).relu(), weights[2], biases[2], 4)[:, 0]


def decoder_of(path: Path) -> CLIPSegDecoder:
    tensors, options, _ = read_official(path)
    decoder = CLIPSegDecoder(**options).eval()
    decoder.load_state_dict({key.removeprefix('decoder.'): v for key, v in tensors.items()})
    return decoder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save(official(), tmp_path / 'rd16-tiny.pth')
    return tmp_path / 'rd16-tiny.pth'


@pytest.fixture(scope='module')
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of this project whose towers fit the tiny decoder."""
    torch.manual_seed(2)
    backbone = OpenClipBackbone(overrides=TOWERS)
    file = tmp_path_factory.mktemp('towers') / 'towers.safetensors'
    save_checkpoint(file, CLIPSeg(backbone, [1], dim=8), {'name': 'towers', 'input_size': 64})
    return file


@torch.no_grad()
@pytest.mark.parametrize('refined', [False, True])
def test_the_decoder_computes_what_the_official_one_does(tmp_path: Path, refined: bool) -> None:
    state = official(refined)
    torch.save(state, tmp_path / 'a.pth')
    taps = [torch.randn(2, 1 + 9, WIDTH) for _ in range(3)]
    condition = torch.randn(2, EMBED)
    logits = decoder_of(tmp_path / 'a.pth')(taps, (3, 3), condition[:, None])[:, 0]
    expected = run(state, taps, condition)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_on_towers_of_another_file(
    path: Path, towers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model, card = load_checkpoint(path, backbone_weights=towers)
    assert 'reduce.weight, reduce.bias are not used' in caplog.text
    assert card.details['unused weights'] == ['reduce.weight', 'reduce.bias']
    assert (card.name, card.input_size, card.layers) == ('rd16-tiny', 352, (3, 6, 9))
    assert card.prompt_ground == 'mean'
    assert 'not MIT' in card.licence
    known = load_checkpoint(towers)[0].backbone.state_dict()  # type: ignore[attr-defined]
    found = model.backbone.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(found[key], value) for key, value in known.items())
    assert torch.equal(model.decoder.reduces[2].weight, official()['reduces.2.weight'])
    assert load_checkpoint(path, backbone_weights=towers, layers=[3, 7, 9])[1].layers == (3, 7, 9)


def test_converted_it_is_a_checkpoint_like_any_other(
    path: Path, towers: Path, tmp_path: Path
) -> None:
    model, card = load_checkpoint(path, backbone_weights=towers)
    save_checkpoint(tmp_path / 'own.safetensors', model, card.stored_fields())
    loaded, known = load_checkpoint(tmp_path / 'own.safetensors')
    assert known.details == card.details
    pixels, condition = torch.randn(1, 3, 64, 64), torch.randn(1, 2, EMBED)
    with torch.no_grad():
        assert torch.equal(loaded(pixels, condition), model(pixels, condition))


def test_towers_are_asked_for(path: Path) -> None:
    for attempt in (load_checkpoint, create_model):
        with pytest.raises(CheckpointError, match=r'decoder alone.*--towers.*download clip-vit'):
            attempt(path)


def test_downloaded_towers_are_found(path: Path, towers: Path) -> None:
    folder = store.SOURCES[store.TOWERS[16]].folder
    folder.mkdir(parents=True)
    shutil.copy(towers, folder / 'open_clip_model.safetensors')
    found = load_checkpoint(path)[0].state_dict()
    expected = load_checkpoint(path, backbone_weights=towers)[0].state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


class TestPatchesOf32:
    @pytest.fixture
    def state(self) -> dict[str, torch.Tensor]:
        return {**official(width=768, embed=512), 'trans_conv.weight': torch.rand(DIM, 1, 32, 32)}

    def test_its_towers_are_asked_for(self, path: Path, state: dict[str, torch.Tensor]) -> None:
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=r'patches of 32 px.*download clip-vit-b-32"'):
            load_checkpoint(path)
        torch.save({**state, 'trans_conv.weight': torch.rand(DIM, 1, 14, 14)}, path)
        with pytest.raises(CheckpointError, match=r'patches of 14 px.*--towers') as got:
            load_checkpoint(path)
        assert 'clipseg download' not in str(got.value)

    def test_it_gets_them(self, path: Path, state: dict[str, torch.Tensor]) -> None:
        torch.save(state, path)
        torch.manual_seed(0)
        weights = OpenClipBackbone('ViT-B-32-quickgelu').model.state_dict()
        source = store.SOURCES['clip-vit-b-32']
        assert sum(value.numel() for value in weights.values()) == source.parameters
        source.folder.mkdir(parents=True)
        save_file(weights, source.folder / 'open_clip_model.safetensors')
        model, _ = load_checkpoint(path)
        assert model.backbone.patch_size == 32
        assert torch.equal(model.backbone.model.visual.proj, weights['visual.proj'])  # type: ignore[attr-defined]
        named = load_towers('clip-vit-b-32')
        assert named.patch_size == 32


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'film_mul.bias': None}, r'film_mul\.bias is missing, and has to be \(16,\)'),
        ({'blocks.1.norm1.bias': None}, r'blocks\.1\.norm1\.bias is missing'),
        ({'trans_conv.weight': None}, r'trans_conv\.weight must have 4 dimensions'),
        (
            {'extra_blocks.0.norm1.bias': torch.zeros(16)},
            r'extra_blocks\.0\.norm1\.bias is unknown',
        ),
        (
            {'blocks.0.self_attn.in_proj_weight': torch.zeros(16, 48)},
            r'in_proj_weight is \(16, 48\), not \(48, 16\)',
        ),
        ({'reduces.2.weight': torch.zeros(16, 7)}, r'reduces\.2\.weight is \(16, 7\)'),
        ({'film_add.bias': torch.full((16,), torch.nan)}, 'not finite'),
        ({'film_add.weight': None}, 'no decoder of the official CLIPSeg'),
    ],
)
def test_contents_that_do_not_fit(
    path: Path, towers: Path, changes: dict[str, Any], message: str
) -> None:
    state = {key: value for key, value in {**official(), **changes}.items() if value is not None}
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, backbone_weights=towers)


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [({'width': 48}, 'tokens of size 48.* have 64'), ({'embed': 8}, 'embeddings of size 8')],
)
def test_towers_that_do_not_fit(
    path: Path, towers: Path, sizes: dict[str, int], message: str
) -> None:
    torch.save(official(**sizes), path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, backbone_weights=towers)


def test_layers_that_do_not_fit(path: Path, towers: Path) -> None:
    for layers, message in (([3, 6], 'number of blocks'), ([3, 6, 12], r'0…9')):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path, backbone_weights=towers, layers=layers)
    with pytest.raises(CheckpointError, match=r'layers is for \.pth'):
        load_checkpoint(towers, layers=[3, 6, 9])


def test_code_in_a_file_is_not_run(path: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / 'ran'),)

    torch.save({**official(), 'film_mul.bias': Malicious()}, path)
    with pytest.raises(CheckpointError, match=r'refused.*asks for posix\.mkdir .*could run code'):
        load_checkpoint(path)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('keep', [0, 1000, -300])
def test_a_file_that_is_cut_off(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match='damaged'):
        load_checkpoint(path)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'no checkpoint .*none\.pth'):
        load_checkpoint(tmp_path / 'none.pth')


class TestGenuine:
    """The rd16 decoder that the authors published; it is no part of the repository."""

    @pytest.fixture
    def genuine(self, repository: Path) -> Path:
        path = repository.parent / 'shared' / 'data' / GENUINE
        if not path.is_file():
            pytest.skip(f'{GENUINE} is not beside the checkout, in ../shared/data')
        return path

    def test_it_is_the_published_one(self, genuine: Path, repository: Path) -> None:
        digest = hashlib.sha256(genuine.read_bytes()).hexdigest()
        assert f'`{GENUINE}` | `{digest}`' in (repository / 'docs/models.md').read_text()

    def test_it_loads_strictly(self, genuine: Path) -> None:
        tensors, options, unused = read_official(genuine)
        assert unused == ['reduce.weight', 'reduce.bias']
        assert options == {
            'token_width': 768,
            'embed_dim': 512,
            'patch_size': 16,
            'num_layers': 3,
            'dim': 16,
            'num_heads': 4,
            'feedforward': 2048,
            'head': 'plain',
        }
        state = torch.load(genuine, 'cpu', weights_only=True)
        left_out = sum(state[key].numel() for key in unused)
        assert sum(value.numel() for value in tensors.values()) == 275_985 - left_out == 263_681

    def test_it_agrees_with_transformers(self, genuine: Path) -> None:
        transformers = pytest.importorskip('transformers')
        from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder as Theirs

        config = transformers.CLIPSegConfig(vision_config={'patch_size': 16}, reduce_dim=16)
        theirs = Theirs(config).eval()
        theirs.load_state_dict(for_transformers(torch.load(genuine, 'cpu', weights_only=True)))
        generator = torch.Generator().manual_seed(0)
        taps = [torch.randn(2, 1 + 49, 768, generator=generator) for _ in range(3)]
        condition = torch.randn(2, 512, generator=generator)
        decoder = decoder_of(genuine)
        expected = theirs(tuple(taps), condition).logits.detach()
        # With gradients, by the same operations of torch as theirs.
        logits = decoder(taps, (7, 7), condition[:, None])[:, 0].detach()
        assert expected.std() > 0.1
        # The order of sums depends on the number of threads: some units in the last place.
        torch.testing.assert_close(logits, expected, rtol=4e-6, atol=1e-5)
        # Without, sums are taken in another order, and come no less close to the truth.
        with torch.no_grad():
            faster = decoder(taps, (7, 7), condition[:, None])[:, 0]
            wide = [tap.double() for tap in taps]
            truth = theirs.double()(tuple(wide), condition.double()).logits.float()
        error = (expected - truth).abs().max()
        assert 0 < (faster - truth).abs().max() < 1.5 * error
        torch.testing.assert_close(faster, expected, rtol=0, atol=5e-5)

    @pytest.mark.slow
    def test_it_is_a_whole_model_on_towers_of_open_clip(
        self, genuine: Path, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        save_file(OpenClipBackbone().model.state_dict(), tmp_path / 'clip.safetensors')
        model, card = load_checkpoint(genuine, backbone_weights=tmp_path / 'clip.safetensors')
        assert sum(value.numel() for value in model.parameters()) == 149_884_418
        assert card.name == 'rd16-uni'
        assert card.layers == (3, 6, 9)


def for_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    theirs: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key.startswith('reduce.'):
            continue
        for old, new in (
            ('trans_conv', 'transposed_convolution'),
            ('blocks', 'layers'),
            ('norm', 'layer_norm'),
            ('linear', 'mlp.fc'),
        ):
            key = key.replace(old, new)
        if 'in_proj' in key:
            for name, part in zip('qkv', value.chunk(3), strict=True):
                theirs[key.replace('in_proj_', f'{name}_proj.')] = part
        else:
            theirs[key] = value
    return theirs
