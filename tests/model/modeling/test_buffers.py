from __future__ import annotations

import pytest
import torch

from clipseg_model.modeling.buffers import ALIGNMENT, empty


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('shape', [(3, 5, 7), (1, 0, 4), (2, 3, 1000, 1000)])
def test_it_is_a_tensor_of_its_own(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    made, other = (empty(*shape, dtype=dtype, device=torch.device('cpu')) for _ in range(2))
    assert made.shape == shape
    assert made.dtype == dtype
    assert made.is_contiguous()
    made.fill_(1)
    other.fill_(2)
    assert (made == 1).all()
    if made.numel():
        assert made.data_ptr() % ALIGNMENT == 0


def test_on_another_device_it_is_torch_s() -> None:
    made = empty(2, 3, dtype=torch.float16, device=torch.device('meta'))
    assert made.device.type == 'meta'
    assert made.shape == (2, 3)
    assert made.dtype == torch.float16
