from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_model, make_small_clip
from torch import Tensor, nn

from clipseg_model.modeling.base import ImageFeatures
from clipseg_model.modeling.clipseg import CLIPSeg, build_clipseg
from clipseg_model.modeling.decoder import CLIPSegDecoder

PAPER = {'token_width': 768, 'embed_dim': 512, 'feedforward': 2048, 'patch_size': 16}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def pixels(height: int = 48, width: int = 64, batch: int = 1, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=generator)


class TestParameterCounts:
    def test_used_parameters_of_the_decoder_on_vit_b_16(self) -> None:
        assert count(CLIPSegDecoder(dim=64, **PAPER)) == 1_073_153

    def test_the_papers_number_counts_the_weights_of_one_unused_projection(self) -> None:
        """Its 768 × 64 weights, that is; with its 64 biases the sum would be 1,122,369."""
        unused = nn.Linear(768, 64, bias=False)
        assert count(CLIPSegDecoder(dim=64, **PAPER)) + count(unused) == 1_122_305

    def test_the_released_decoder_with_d_16(self) -> None:
        """The public rd16 file holds 275,985 values, its unused projection and bias included."""
        assert count(CLIPSegDecoder(dim=16, **PAPER)) + count(nn.Linear(768, 16)) == 275_985

    def test_every_counted_parameter_is_used(self) -> None:
        torch.manual_seed(0)
        decoder = CLIPSegDecoder(token_width=24, embed_dim=12, dim=16, feedforward=32)
        taps = [torch.randn(1, 7, 24) for _ in range(3)]
        decoder(taps, (2, 3), torch.randn(1, 2, 12)).square().sum().backward()
        unused = [
            name
            for name, parameter in decoder.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        ]
        assert unused == []


@pytest.fixture
def grad_free() -> Iterator[None]:
    with torch.no_grad():
        yield


def reference_decode(
    decoder: CLIPSegDecoder, taps: list[Tensor], grid: Any, text: Tensor
) -> Tensor:
    """One prompt on one image with torch's own layers, as the public implementations do it."""
    dim, heads = decoder.options['dim'], decoder.options['num_heads']
    state: Tensor | None = None
    for index, tap in enumerate(reversed(taps)):
        ours = decoder.blocks[index]
        layer = nn.TransformerEncoderLayer(
            dim, heads, decoder.options['feedforward'], dropout=0.0, batch_first=True
        )
        layer.load_state_dict(
            {
                'self_attn.in_proj_weight': ours.in_proj.weight,
                'self_attn.in_proj_bias': ours.in_proj.bias,
                'self_attn.out_proj.weight': ours.out_proj.weight,
                'self_attn.out_proj.bias': ours.out_proj.bias,
                **{
                    f'{part}.{kind}': getattr(getattr(ours, part), kind)
                    for part in ('linear1', 'linear2', 'norm1', 'norm2')
                    for kind in ('weight', 'bias')
                },
            }
        )
        reduced = decoder.reduces[index](tap)
        state = reduced if state is None else state + reduced
        if index == decoder.cond_layer:
            state = decoder.film_mul(text) * state + decoder.film_add(text)
        state = layer(state)
    assert state is not None
    patches = state[:, 1:].transpose(1, 2).reshape(1, dim, *grid)
    logits: Tensor = decoder.head(patches)[0, 0]
    return logits


@pytest.mark.usefixtures('grad_free')
class TestDecoder:
    @pytest.mark.parametrize('head', ['plain', 'refined'])
    @pytest.mark.parametrize('cond_layer', [0, 1, 2])
    def test_equals_a_plain_transcription_of_the_paper(self, head: str, cond_layer: int) -> None:
        torch.manual_seed(3)
        decoder = CLIPSegDecoder(
            token_width=24, embed_dim=12, dim=16, feedforward=40, head=head, cond_layer=cond_layer
        ).eval()
        taps = [torch.randn(1, 1 + 2 * 3, 24) for _ in range(3)]
        texts = torch.randn(1, 2, 12)
        logits = decoder(taps, (2, 3), texts)
        assert logits.shape == (1, 2, 32, 48)
        for prompt in range(2):
            expected = reference_decode(decoder, taps, (2, 3), texts[0, prompt])
            torch.testing.assert_close(logits[0, prompt], expected, rtol=1e-4, atol=1e-5)

    def test_takes_the_genuine_weights(self, repository: Path) -> None:
        path = repository.parent / 'shared' / 'data' / 'rd16-uni.pth'
        if not path.is_file():
            pytest.skip('the released rd16 weights are not here')
        renamed = {}
        for key, value in torch.load(path, 'cpu', weights_only=True).items():
            if not key.startswith('reduce.'):  # the projection that nothing uses
                key = key.replace('self_attn.in_proj_', 'in_proj.')
                key = key.replace('self_attn.', '').replace('trans_conv', 'head.deconv')
                renamed[key] = value
        decoder = CLIPSegDecoder(dim=16, **PAPER).eval()
        decoder.load_state_dict(renamed, strict=True)
        torch.manual_seed(6)
        taps = [torch.randn(1, 1 + 4 * 6, 768) for _ in range(3)]
        text = torch.randn(512)
        logits = decoder(taps, (4, 6), text[None, None])[0, 0]
        expected = reference_decode(decoder, taps, (4, 6), text)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    def test_patches_land_where_they_came_from(self) -> None:
        """Without attention between tokens, a token decides over its own patch alone."""
        torch.manual_seed(4)
        decoder = CLIPSegDecoder(token_width=8, embed_dim=4, dim=8, num_layers=1, feedforward=8)
        for block in decoder.blocks:
            nn.init.zeros_(block.out_proj.weight)
        tap = torch.randn(1, 1 + 6, 8)
        other = tap.clone()
        other[0, 1 + 4] += 1  # row 1, column 1 of a grid of 2 × 3
        texts = torch.randn(1, 1, 4)
        difference = decoder([other], (2, 3), texts) - decoder([tap], (2, 3), texts)
        changed = difference[0, 0].abs().gt(1e-6)
        assert changed[16:32, 16:32].all()
        assert changed.sum() == 256

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'dim': 30, 'num_heads': 4}, 'divisible'),
            ({'cond_layer': 3}, 'cond_layer'),
            ({'head': 'fancy'}, "'fancy'"),
        ],
    )
    def test_sizes_that_do_not_fit(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            CLIPSegDecoder(token_width=8, embed_dim=4, **options)


@pytest.mark.usefixtures('grad_free')
class TestCLIPSeg:
    def test_one_encoding_serves_all_prompts(self) -> None:
        model = make_model()
        features = model.encode_image(pixels())
        assert isinstance(features, ImageFeatures)
        assert (features.grid, features.height, features.width) == ((3, 4), 48, 64)
        assert [tap.shape for tap in features.taps] == [(1, 13, 32)] * 2
        condition = model.embed_texts(['a mug', 'the red chair', 'blue cup'])
        logits = model.decode(features, condition)
        assert logits.shape == (3, 48, 64)
        assert logits.dtype == torch.float32
        for index in range(3):
            alone = model.decode(features, condition[index : index + 1])[0]
            torch.testing.assert_close(logits[index], alone, rtol=1e-4, atol=1e-5)

    def test_prompts_and_images_matter(self) -> None:
        model = make_model()
        condition = model.embed_texts(['a mug', 'the red chair'])
        first = model.decode(model.encode_image(pixels(seed=1)), condition)
        second = model.decode(model.encode_image(pixels(seed=2)), condition)
        assert (first[0] - first[1]).abs().max() > 1e-3
        assert (first - second).abs().max() > 1e-3

    def test_batch_of_images_with_prompts_of_their_own(self) -> None:
        model = make_model()
        images = pixels(batch=2)
        texts = model.embed_texts(['a mug', 'the red chair', 'blue cup', 'something'])
        condition = texts.view(2, 2, -1)
        logits = model.decode(model.encode_image(images), condition)
        assert logits.shape == (2, 2, 48, 64)
        assert torch.equal(logits, model(images, condition))
        for index in range(2):
            features = model.encode_image(images[index : index + 1])
            alone = model.decode(features, condition[index])
            torch.testing.assert_close(logits[index], alone, rtol=1e-4, atol=1e-5)

    def test_one_set_of_prompts_for_many_images_is_ambiguous(self) -> None:
        model = make_model()
        with pytest.raises(ValueError, match=r'features hold 2'):
            model.decode(model.encode_image(pixels(batch=2)), model.embed_texts(['a mug']))

    def test_taps_are_the_backbones(self) -> None:
        model = make_model()
        taps, _ = model.backbone.image_tokens(pixels(), [0, 2])
        features = model.encode_image(pixels())
        assert all(torch.equal(ours, its) for ours, its in zip(features.taps, taps, strict=True))

    def test_image_prompts_share_the_embedding_space(self) -> None:
        model = make_model()
        images = model.embed_images(pixels(64, 64, batch=2))
        assert images.shape == (2, model.embed_texts(['a mug']).shape[1])

    @pytest.mark.parametrize('head', ['plain', 'refined'])
    def test_configuration_rebuilds_the_model(self, head: str) -> None:
        model = make_model(head=head)
        rebuilt = build_clipseg(model.config())
        rebuilt.load_state_dict(model.state_dict(), strict=True)
        condition = model.embed_texts(['a mug'])[None]
        assert torch.equal(rebuilt.eval()(pixels(), condition), model(pixels(), condition))
        assert rebuilt.config() == model.config()

    @pytest.mark.parametrize('layers', [[], [2, 0], [1, 1], [0, 3], [-1, 2]])
    def test_layers_that_are_not_there(self, layers: list[int]) -> None:
        with pytest.raises(ValueError, match='layers'):
            CLIPSeg(make_small_clip(), layers, dim=16)

    def test_configuration_of_another_model(self) -> None:
        with pytest.raises(ValueError, match='clipseg'):
            build_clipseg({**make_model().config(), 'architecture': 'vitseg'})
