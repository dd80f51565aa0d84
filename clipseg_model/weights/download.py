"""Weights from the Hugging Face hub.

This module and :mod:`~clipseg_model.weights.torchvision_download` alone use a network.

What arrives is checked here, since ``huggingface_hub`` accepts files whose digest is wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import WeakFileLock

from clipseg_model.errors import DownloadError
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.weights.store import Source, find_downloaded

_Answer = TypeVar('_Answer')

RECORD = 'download.json'
"""File beside downloaded weights: their repository, commit and digests."""

# Holds files until they are checked, so that nothing unchecked has the name of a model's file.
_INCOMING = '.incoming'
_CHUNK = 1 << 20
_BUSY = (408, 429, 500, 502, 503, 504)
_WAITS = (1, 2, 4)  # Seconds before a hub that is busy is asked again.
_PRIVATE = (
    'it is not there, or not public: check the name, or log in with "hf auth login" or HF_TOKEN'
)
_REFUSALS = {
    401: _PRIVATE,
    403: 'the token of this machine (HF_TOKEN, or of "hf auth login") may not read it',
    404: _PRIVATE,
    429: 'too many requests: wait a while',
}


@dataclass(frozen=True)
class _HubFile:
    """A file as the hub's index describes it; ``size`` in bytes, ``digest`` in hexadecimal digits.

    ``algorithm`` is ``sha256`` for large files (Git LFS), else ``git``: SHA-1 of a header with the
    size and of the content.
    """

    name: str
    size: int
    digest: str
    algorithm: str


def download(source: Source, revision: str = 'main') -> list[Path]:
    """Fetch weights and the files beside them into :attr:`Source.folder`, checked.

    Intact files are kept, and files in the cache of Hugging Face's own tools are copied from it.
    ``revision`` is a branch, tag or commit at the hub. A second process waits for the first.

    Returns:
        The files, that of the weights last.

    Raises:
        DownloadError: The hub cannot be reached or refuses, has no such files, a file did not
            arrive as it was published, or the disk refuses.
    """
    folder = source.folder
    # One process at a time: none replaces what another has just checked.
    with _explained(source, revision), WeakFileLock(folder.with_name(f'.{folder.name}.lock')):
        commit, wanted = _list_files(source, revision)
        pinned = source.sha256 if revision == 'main' else {}
        known = {file.name: file.digest for file in wanted if file.algorithm == 'sha256'}
        _check_pinned(source, pinned, known)
        missing = [file for file in wanted if not _is_intact(folder / file.name, file)]
        _check_room(folder, sum(file.size for file in missing))
        if missing:
            # It is of the files that were there, and they are about to be replaced.
            (folder / RECORD).unlink(missing_ok=True)
        for file in missing:
            _fetch(source, file, commit)
        digests = {file.name: _digest(folder / file.name, 'sha256') for file in wanted}
        _check_pinned(source, pinned, digests)
        record = {
            'repository': source.repository,
            'commit': commit,
            'fetched': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'sha256': digests,
        }
        write_atomically(folder / RECORD, json.dumps(record, indent=2))
        shutil.rmtree(folder / _INCOMING, ignore_errors=True)
    return [folder / file.name for file in wanted]


def _list_files(source: Source, revision: str) -> tuple[str, list[_HubFile]]:
    """Return the commit that a revision stands for, and those of its files that are needed."""
    if constants.is_offline_mode():
        raise OfflineModeIsEnabled
    try:
        info = _patiently(
            lambda: HfApi().model_info(source.repository, revision=revision, files_metadata=True)
        )
        if not info.sha:
            raise ValueError('no commit')
        files = {}
        for entry in info.siblings or ():
            digest, algorithm = str(entry.blob_id), 'git'
            if entry.lfs is not None:
                digest, algorithm = entry.lfs.sha256, 'sha256'
            files[entry.rfilename] = _HubFile(
                entry.rfilename, int(entry.size or 0), digest, algorithm
            )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DownloadError(
            f'{constants.ENDPOINT} answered in an unknown form ({error!r}): is HF_ENDPOINT a hub?'
        ) from error
    missing = [name for name in source.files if name not in files]
    weights = [name for name in source.weights if name in files]
    if not weights:
        missing.append(f'weights ({source.weights[0]} or the like)')
    if missing:
        raise DownloadError(
            f'{source.url} holds no model that can be read here: it lacks {", ".join(missing)}; it '
            f'has {", ".join(files) or "no files"}'
        )
    parts: list[str] = []
    if weights[0].endswith('.json'):
        stem, kind = weights[0].split('.')[:2]
        parts = [name for name in files if re.fullmatch(rf'{stem}[\w.]*-\d+-of-\d+\.{kind}', name)]
    return info.sha, [files[name] for name in (*source.files, *parts, weights[0])]


def _patiently(ask: Callable[[], _Answer]) -> _Answer:
    for wait in _WAITS:
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
            time.sleep(wait)
    return ask()


def _fetch(source: Source, file: _HubFile, commit: str) -> None:
    """Put a file into the folder of a source once it is known to be right."""
    incoming = source.folder / _INCOMING
    # The first attempt may find a damaged copy, in the user's cache say: the second asks the hub.
    for force in (False, True):
        fetch = partial(
            hf_hub_download, source.repository, file.name, revision=commit, local_dir=incoming
        )
        path = Path(_patiently(partial(fetch, force_download=force)))
        if _is_intact(path, file):
            path.replace(source.folder / file.name)
            return
    found = _digest(path, file.algorithm)
    path.unlink()
    raise DownloadError(
        f'{file.name} of {source.url} did not arrive as it was published: its {file.algorithm} '
        f'digest is {found}, and not {file.digest}. It was deleted: run the same command again; if '
        'this stays, something on the way (a proxy, say) changes files'
    )


def _check_pinned(source: Source, pinned: Mapping[str, str], digests: Mapping[str, str]) -> None:
    for name, known in pinned.items():
        if digests.get(name, known) != known:
            (source.folder / name).unlink(missing_ok=True)
            raise DownloadError(
                f'{name} of {source.url} is not the file that this version of the program knows: '
                f'its sha256 is {digests[name]} and not {known}. It was not kept; the authors may '
                'have changed it: update the program, or name the commit that you trust with '
                '--revision'
            )


def _check_room(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DownloadError(
            f'{folder} has {free / 1e6:.0f} MB free, and {size / 1e6:.0f} MB are needed: make '
            'room, or name another folder in CLIPSEG_MODELS'
        )


def _is_intact(path: Path, file: _HubFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return _digest(path, file.algorithm) == file.digest


def _digest(path: Path, algorithm: str) -> str:
    if algorithm == 'git':
        digest = hashlib.sha1(f'blob {path.stat().st_size}\0'.encode(), usedforsecurity=False)
    else:
        digest = hashlib.new(algorithm)
    with path.open('rb') as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _explained(source: Source, revision: str) -> Iterator[None]:
    """Turn what ``huggingface_hub`` raises into an error with a reason and a remedy."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        here = find_downloaded(source)
        raise DownloadError(
            'HF_HUB_OFFLINE is set, so nothing can be downloaded: unset it, and try again'
            + (f'. Without a download, {here} is used' if here else '')
        ) from error
    except GatedRepoError as error:
        raise DownloadError(
            f'{source.url} asks for consent to its terms: give it there, and log in with "hf auth '
            'login" (or HF_TOKEN)'
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(
            f'{source.url} has no revision {revision!r}: check it, or leave --revision out'
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise DownloadError(
            f'{source.url} answered {status} {error.response.reason_phrase}: '
            f'{_REFUSALS.get(status, "try again later")}'
        ) from error
    except (HTTPError, LocalEntryNotFoundError) as error:
        raise DownloadError(
            f'{constants.ENDPOINT} cannot be reached ({error.__cause__ or error}): is there a '
            'network? Behind a proxy, HTTPS_PROXY names it; HF_ENDPOINT names a mirror of the hub'
        ) from error
    except OSError as error:
        if error.errno is None:
            # Not of the disk: huggingface_hub says so of a file that is too short or too long.
            raise DownloadError(
                f'{source.url} did not arrive whole: {error} Run the same command again'
            ) from error
        raise DownloadError(
            f'{source.folder} could not be written: {error}. CLIPSEG_MODELS names another folder'
        ) from error
