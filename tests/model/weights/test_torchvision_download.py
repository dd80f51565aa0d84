"""Weights of torchvision's detectors: checked by the digest that their name has."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from clipseg_model.cli.app import app
from clipseg_model.errors import CheckpointError, DownloadError
from clipseg_model.weights.torchvision_download import download_detector
from clipseg_model.weights.torchvision_store import detector_weights, list_detectors
from clipseg_model.zoom.torchvision_detectors import load_detector

NAME = 'ssdlite320_mobilenet_v3_large'


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server in place of torchvision's, and the file that it publishes."""
    from torchvision.models import get_model

    monkeypatch.setenv('CLIPSEG_MODELS', str(tmp_path / 'models'))
    (tmp_path / 'served').mkdir()
    state = get_model(NAME, weights=None, weights_backbone=None).state_dict()
    torch.save(state, tmp_path / 'served/weights.pth')
    digest = hashlib.sha256((tmp_path / 'served/weights.pth').read_bytes()).hexdigest()
    file = tmp_path / f'served/ssd_coco-{digest[:8]}.pth'
    (tmp_path / 'served/weights.pth').rename(file)
    server = HTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(tmp_path / 'served')))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/{file.name}'
    meta = {'categories': ['__background__', *(f'thing {n}' for n in range(90))]}
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=url, meta=meta))
    monkeypatch.setattr('torchvision.models.get_model_weights', lambda name: weights)
    yield file
    server.shutdown()
    server.server_close()


def test_every_detector_of_torchvision_has_a_digest_in_its_name() -> None:
    for name in list_detectors():
        weights = detector_weights(name)
        assert len(weights.digest) >= 8
        assert weights.path.name.endswith(f'-{weights.digest}.pth')


def test_a_detector_is_fetched_once_and_loaded_by_its_name(published: Path) -> None:
    with pytest.raises(CheckpointError, match=f'run "clipseg download {NAME}"'):
        load_detector(name=NAME)
    for _ in range(2):
        result = CliRunner().invoke(app, ['download', NAME])
        assert result.exit_code == 0, result.output
        published.unlink(missing_ok=True)
    assert 'BSD-3-Clause' in result.output
    assert load_detector(name=NAME).categories[1] == 'thing 0'


def test_a_file_that_is_not_the_published_one_is_not_kept(published: Path) -> None:
    published.write_bytes(published.read_bytes()[:-1] + b'?')
    with pytest.raises(DownloadError, match='did not arrive as it was published'):
        download_detector(detector_weights(NAME))
    folder = detector_weights(NAME).path.parent
    assert not any(folder.iterdir())


def test_a_damaged_copy_is_fetched_again(published: Path) -> None:
    path = download_detector(detector_weights(NAME))
    path.write_bytes(b'damaged')
    assert download_detector(detector_weights(NAME)).read_bytes() == published.read_bytes()


def test_a_place_that_has_no_such_file(published: Path) -> None:
    published.unlink()
    with pytest.raises(DownloadError, match='404'):
        download_detector(detector_weights(NAME))
    result = CliRunner().invoke(app, ['download', 'no_such_detector'])
    assert result.exit_code == 1
    assert 'fasterrcnn_resnet50_fpn_v2' in result.stderr


def test_a_disk_that_refuses(published: Path, tmp_path: Path) -> None:
    (tmp_path / 'models').write_text('a file where a folder should be')
    with pytest.raises(DownloadError, match='could not be written'):
        download_detector(detector_weights(NAME))
