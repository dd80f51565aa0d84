"""A hub that answers on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from fake_hub import WEIGHTS, FakeHub
from huggingface_hub import constants


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    served = FakeHub(
        {
            'config.json': b'{"model_type": "clipseg"}',
            'preprocessor_config.json': b'{"size": 352}',
            'model.safetensors': WEIGHTS,
            'pytorch_model.bin': b'a pickle that nobody needs' * 100,
            'README.md': b'read me',
        }
    )
    # huggingface_hub reads HF_ENDPOINT and HF_HUB_OFFLINE when it is imported.
    address = served.start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    for proxy in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(proxy, raising=False)
    yield served
    served.stop()
