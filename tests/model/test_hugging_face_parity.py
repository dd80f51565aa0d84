"""The same weights give the same numbers here and in Hugging Face's CLIPSeg."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipseg_model.clipseg import CLIPSegDecoder
from clipseg_model.segmenter import Segmenter

transformers = pytest.importorskip('transformers')


def theirs(head: str) -> torch.nn.Module:
    from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder as Decoder

    config = transformers.CLIPSegConfig(
        vision_config={'hidden_size': 24, 'patch_size': 16},
        projection_dim=12,
        reduce_dim=16,
        extract_layers=[3, 6, 9],
        decoder_num_attention_heads=4,
        decoder_intermediate_size=40,
        use_complex_transposed_convolution=head == 'refined',
    )
    decoder = Decoder(config).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return decoder


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ours: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        for old, new in (
            ('layers.', 'blocks.'),
            ('self_attn.out_proj', 'out_proj'),
            ('layer_norm', 'norm'),
            ('mlp.fc', 'linear'),
            ('transposed_convolution.0', 'head.conv'),
            ('transposed_convolution.2', 'head.deconv1'),
            ('transposed_convolution.4', 'head.deconv2'),
            ('transposed_convolution', 'head.deconv'),
        ):
            key = key.replace(old, new)
        ours[key] = value
    for block in range(3):
        for kind in ('weight', 'bias'):
            parts = [ours.pop(f'blocks.{block}.self_attn.{x}_proj.{kind}') for x in 'qkv']
            ours[f'blocks.{block}.in_proj.{kind}'] = torch.cat(parts)
    return ours


@pytest.mark.parametrize('head', ['plain', 'refined'])
@torch.no_grad()
def test_decoder(head: str) -> None:
    torch.manual_seed(0)
    reference = theirs(head)
    decoder = CLIPSegDecoder(24, 12, dim=16, num_heads=4, feedforward=40, head=head).eval()
    decoder.load_state_dict(renamed(reference.state_dict()), strict=True)
    taps = [torch.randn(2, 1 + 9, 24) for _ in range(3)]
    condition = torch.randn(2, 12)
    expected = reference(tuple(taps), condition).logits
    logits = decoder(taps, (3, 3), condition[:, None])[:, 0]
    assert logits.abs().max() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('size', [(480, 640), (301, 200)])
def test_preprocessing(segmenter: Segmenter, size: tuple[int, int]) -> None:
    backbone = segmenter.model.backbone
    processor = transformers.ViTImageProcessor(
        size={'height': 352, 'width': 352},
        resample=2,
        image_mean=list(backbone.mean),
        image_std=list(backbone.std),
    )
    large = Segmenter(segmenter.model, replace(segmenter.card, input_size=352), 'cpu')
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = processor(picture, return_tensors='pt')['pixel_values']
    pixels = large._pixels(picture, (352, 352))
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)
