"""Weights from the Hugging Face hub. The only module here that touches a network."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipseg_model.errors import DownloadError
from clipseg_model.weights.store import Source

__all__ = ['HubFile', 'Progress', 'download', 'fetch', 'list_files']

Progress = Callable[[str, int, int], None]
"""Told the name of a file, how many bytes of it are here, and how many it has."""

RECORD = 'download.json'
"""What a folder of a download says of where its files come from."""

TIMEOUT = 30.0
"""Longest silence of a server, seconds."""

_CHUNK = 1 << 20
_COMMIT = re.compile(r'[0-9a-f]{40}')


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the hub.

    Attributes:
        name: Its path in the repository.
        url: Where its content is, at one fixed revision.
        size: Bytes.
        digest: Hexadecimal digest of the content.
        algorithm: Of the digest: ``sha256`` for large files (Git LFS), ``git`` for the others:
            SHA-1 of a header with the size and of the content, as Git names its objects.
    """

    name: str
    url: str
    size: int
    digest: str
    algorithm: str


def download(
    source: Source, revision: str = 'main', progress: Progress | None = None
) -> list[Path]:
    """Fetch weights and what belongs to them, checked, into :attr:`Source.folder`.

    What is there and intact is kept; what is there in part is continued.

    Args:
        source: What to fetch.
        revision: Branch, tag or commit at the hub.
        progress: Called as the bytes come.

    Returns:
        The files, that of the weights last.

    Raises:
        DownloadError: The hub cannot be reached, has no such files, or a file did not arrive as
            it was published.
    """
    commit, files = list_files(source.repository, revision)
    wanted = _choose(source, files)
    folder = source.folder
    _make_room(folder, sum(file.size for file in wanted))
    paths = [fetch(file, folder / file.name, progress) for file in wanted]
    digests = {}
    for file, path in zip(wanted, paths, strict=True):
        large = file.algorithm == 'sha256'
        digests[file.name] = file.digest if large else _digest(path, 'sha256', file.size)
        known = source.sha256.get(file.name)
        if known is not None and digests[file.name] != known:
            path.unlink()
            raise DownloadError(
                f'{file.url} is not the file that this version of the program knows: its sha256 is '
                f'{digests[file.name]} and not {known}. It was deleted; the authors may have '
                'changed it: update the program'
            )
    record = {
        'repository': source.repository,
        'commit': commit,
        'fetched': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'sha256': digests,
    }
    _replace(folder / RECORD, json.dumps(record, indent=2).encode())
    return paths


def list_files(repository: str, revision: str = 'main') -> tuple[str, list[HubFile]]:
    """What a repository holds, by the hub's own index.

    Args:
        repository: ``owner/name``.
        revision: Branch, tag or commit.

    Returns:
        The commit that the revision stands for, and the files at its top.

    Raises:
        DownloadError: The hub cannot be reached, or has no such repository or revision.
    """
    hub = os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')
    name = urllib.parse.quote(repository)
    what = f'{hub}/api/models/{name}/revision/{urllib.parse.quote(revision, safe="")}'
    info = _read_json(what)
    commit = info.get('sha') if isinstance(info, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise DownloadError(f'{what} answered without a commit: is HF_ENDPOINT ({hub}) a hub?')
    tree = f'{hub}/api/models/{name}/tree/{commit}'
    files = []
    try:
        for entry in _read_json(tree):
            if entry['type'] != 'file':
                continue
            large = entry.get('lfs')
            files.append(
                HubFile(
                    name=str(entry['path']),
                    url=f'{hub}/{name}/resolve/{commit}/{urllib.parse.quote(entry["path"])}',
                    size=int(large['size'] if large else entry['size']),
                    digest=str(large['oid'] if large else entry['oid']),
                    algorithm='sha256' if large else 'git',
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        raise DownloadError(f'{tree} answered in an unknown form: {error!r}') from error
    return commit, files


def fetch(file: HubFile, path: Path, progress: Progress | None = None) -> Path:
    """Fetch one file, continuing what an earlier attempt left beside it (``….part``).

    Args:
        file: What to fetch.
        path: Where to; it appears only once its content is known to be right.
        progress: Called as the bytes come.

    Returns:
        ``path``.

    Raises:
        DownloadError: The server refuses, the connection breaks off (what came is kept for the
            next attempt), or the content is not that which was published (it is deleted).
    """
    tell = progress or (lambda name, done, total: None)
    if path.is_file() and _matches(path, file):
        tell(file.name, file.size, file.size)
        return path
    part = path.with_name(f'{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file() and part.stat().st_size > file.size:
            part.unlink()
        tell(file.name, part.stat().st_size if part.is_file() else 0, file.size)
        if not part.is_file() or part.stat().st_size < file.size:
            _receive(file, part, tell)
        if not _matches(part, file):
            found = _digest(part, file.algorithm, file.size)
            part.unlink()
            raise DownloadError(
                f'{file.url} did not arrive as it was published: its {file.algorithm} digest is '
                f'{found}, and not {file.digest}. It was deleted: run the same command again; if '
                'this stays, something on the way (a proxy, say) changes files'
            )
        part.replace(path)
    except OSError as error:
        raise DownloadError(f'{path} could not be written: {error}') from error
    return path


def _receive(file: HubFile, part: Path, tell: Callable[[str, int, int], None]) -> None:
    have = part.stat().st_size if part.is_file() else 0
    headers = {'Accept-Encoding': 'identity'}
    if have:
        headers['Range'] = f'bytes={have}-'
    with _open(file.url, headers) as response:
        # A server that does not know ranges sends everything, from the start.
        continued = response.status == http.client.PARTIAL_CONTENT
        if continued and not response.headers.get('Content-Range', '').startswith(f'bytes {have}-'):
            raise DownloadError(
                f'{file.url} was asked for bytes {have} on, and answered with '
                f'{response.headers.get("Content-Range")!r}: delete {part} and run the same '
                'command again'
            )
        have = have if continued else 0
        with part.open('ab' if continued else 'wb') as opened:
            while have <= file.size:
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _broken_off(file, have, str(error) or type(error).__name__) from error
                if not chunk:
                    break
                opened.write(chunk)
                have += len(chunk)
                tell(file.name, have, file.size)
    if have < file.size:
        raise _broken_off(file, have, 'the connection was closed')


def _broken_off(file: HubFile, have: int, why: str) -> DownloadError:
    return DownloadError(
        f'{file.url} broke off after {have} of {file.size} bytes ({why}). What came is kept: run '
        'the same command again, and it goes on from there'
    )


def _choose(source: Source, files: list[HubFile]) -> list[HubFile]:
    by_name = {file.name: file for file in files}
    missing = [name for name in source.files if name not in by_name]
    weights = [by_name[name] for name in source.weights if name in by_name]
    if not weights:
        missing.append(' or '.join(source.weights))
    if missing:
        raise DownloadError(
            f'{source.url} holds no model that can be read here: it lacks {", ".join(missing)}; it '
            f'has {", ".join(by_name) or "no files"}'
        )
    return [*(by_name[name] for name in source.files), weights[0]]


def _make_room(folder: Path, size: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        here = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DownloadError(
            f'{folder} cannot be used: {error}. CLIPSEG_MODELS names another folder'
        ) from error
    if size - here > free:
        raise DownloadError(
            f'{folder} has {free / 1e6:.0f} MB free, and {(size - here) / 1e6:.0f} MB are needed: '
            'make room, or name another folder in CLIPSEG_MODELS'
        )


def _matches(path: Path, file: HubFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    return _digest(path, file.algorithm, file.size) == file.digest


def _digest(path: Path, algorithm: str, size: int) -> str:
    if algorithm == 'git':
        digest = hashlib.sha1(f'blob {size}\0'.encode(), usedforsecurity=False)
    else:
        digest = hashlib.new(algorithm)
    with path.open('rb') as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise DownloadError(f'{path} could not be written: {error}') from error


def _read_json(url: str) -> Any:
    with _open(url, {'Accept': 'application/json'}) as response:
        try:
            return json.load(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DownloadError(
                f'{url} answered with something that is no JSON: {error}'
            ) from error


def _open(url: str, headers: dict[str, str]) -> Any:
    if not url.startswith(('https://', 'http://')):
        raise DownloadError(
            f'{url!r} is no address on the web: HF_ENDPOINT must be an https:// URL'
        )
    request = urllib.request.Request(url, headers={'User-Agent': 'clipseg', **headers})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        remedies = {
            401: 'it is not public, or not there: check the name',
            403: 'it is not public: fetch it with the tools of its owner',
            404: 'it is not there: check the name and the revision',
            429: 'too many requests: wait a while',
        }
        remedy = remedies.get(error.code, 'try again later')
        raise DownloadError(f'{url} answered {error.code} {error.reason}: {remedy}') from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, 'reason', error)
        raise DownloadError(
            f'{url} cannot be reached ({reason}): is there a network? Behind a proxy, HTTPS_PROXY '
            'names it; a mirror of the hub is named by HF_ENDPOINT'
        ) from error
