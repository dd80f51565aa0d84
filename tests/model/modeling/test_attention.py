from __future__ import annotations

import torch

from clipseg_model.modeling.attention import attend


def test_gradients_of_long_sequences_on_a_cpu_are_exact() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(3, 2, 100, 16, requires_grad=True) for _ in range(3)]
    query, key, value = parts
    plain = (query * 0.25 @ key.mT).softmax(-1) @ value
    attended = attend(query, key, value)
    assert torch.allclose(attended, plain, atol=1e-6)
    change = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, parts, change)
    for one, other in zip(torch.autograd.grad(attended, parts, change), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
