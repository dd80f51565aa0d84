"""Weights of torchvision's detectors from where torchvision publishes them."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from clipseg_model.errors import DownloadError
from clipseg_model.files.atomic_files import replacing
from clipseg_model.weights.torchvision_store import TorchvisionWeights

_CHUNK = 1 << 20
_PATIENCE_S = 60


def download_detector(weights: TorchvisionWeights) -> Path:
    """Fetch weights to where :attr:`TorchvisionWeights.path` says, checked; keep an intact file.

    Raises:
        DownloadError: The place cannot be reached, the file is not the one that was published, or
            the disk refuses.
    """
    path = weights.path
    if path.is_file() and _digest(path).startswith(weights.digest):
        return path
    try:
        with (
            urllib.request.urlopen(weights.url, timeout=_PATIENCE_S) as answer,
            replacing(path) as incoming,
        ):
            with incoming.open('wb') as file:
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
            found = _digest(incoming)
            if not found.startswith(weights.digest):
                raise DownloadError(
                    f'{weights.url} did not arrive as it was published: its sha256 is {found} and '
                    f'does not begin with {weights.digest}. It was not kept: run the same command '
                    'again; if this stays, something on the way (a proxy, say) changes files'
                )
    except (urllib.error.URLError, HTTPException, TimeoutError) as error:
        raise DownloadError(
            f'{weights.url} cannot be fetched ({error}): is there a network? Behind a proxy, '
            'HTTPS_PROXY names it; or fetch the file elsewhere and give its path'
        ) from error
    except OSError as error:
        raise DownloadError(
            f'{path} could not be written: {error}. CLIPSEG_MODELS names another folder'
        ) from error
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
