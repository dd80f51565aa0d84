from __future__ import annotations

import logging

import pytest
import torch

from clipseg_model.errors import DeviceError
from clipseg_model.runtime.devices import Device, describe_device, resolve_device


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda _: 'Example GPU')


def test_cpu_is_always_there() -> None:
    assert resolve_device('cpu') == Device('cpu')
    assert resolve_device(torch.device('cpu')) == resolve_device(Device('cpu')) == Device('cpu')


@pytest.mark.usefixtures('no_cuda')
def test_auto_without_cuda_says_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, 'clipseg_model'):
        assert resolve_device('auto') == Device('cpu')
    assert caplog.messages == ['Device auto: cpu']


@pytest.mark.usefixtures('two_gpus')
def test_auto_with_cuda(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, 'clipseg_model'):
        assert resolve_device('auto').type == 'cuda'
    assert caplog.messages == ['Device auto: cuda (Example GPU)']
    assert describe_device(Device('cuda', 1)) == 'cuda:1 (Example GPU)'


@pytest.mark.usefixtures('two_gpus')
def test_cuda_by_number() -> None:
    assert resolve_device('cuda:1') == Device('cuda', 1)
    assert str(resolve_device('cuda:1')) == 'cuda:1'
    with pytest.raises(DeviceError, match=r'2 CUDA device.*cuda:0 to cuda:1'):
        resolve_device('cuda:2')


@pytest.mark.usefixtures('no_cuda')
@pytest.mark.parametrize('name', ['cuda', 'cuda:0', 'CUDA'])
def test_cuda_is_never_replaced_silently(name: str) -> None:
    with pytest.raises(DeviceError, match=r"sees no CUDA device here: use.*'cpu' or 'auto'"):
        resolve_device(name)


@pytest.mark.parametrize('name', ['gpu', 'cuda:', 'cuda:x', 'mps', '', 'cpu:'])
def test_other_names(name: str) -> None:
    with pytest.raises(DeviceError, match=f"not '{name}'"):
        resolve_device(name)
