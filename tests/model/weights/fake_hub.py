"""A Hugging Face hub of one repository, on this machine, that can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from huggingface_hub import constants

COMMIT = '0123456789abcdef' * 2 + '01234567'
WEIGHTS = bytes(range(256)) * 40
LARGE = 1000
"""From this size on, files are in Git LFS and the index states their sha256."""


@dataclass
class FakeHub:
    """What the server has and does.

    Attributes:
        files: Contents by name.
        repository: Its one repository.
        stop_after: Bytes after which the connection is closed, for files longer than that.
        stops: How many answers are cut off like that.
        corrupt: How many answers differ from what the index states.
        busy: How many answers are 503.
        pause: Seconds between the parts of an answer, each of 64 KiB.
        status: Answer to everything, where not None.
        error_code: Header ``X-Error-Code`` of that answer.
        index: Answer to questions for the index, where not None.
        requests: Path and Range header of every GET request.
        tokens: Authorization header of every request.
    """

    files: dict[str, bytes]
    repository: str = 'CIDAS/clipseg-rd64'
    stop_after: int = 0
    stops: int = 0
    corrupt: int = 0
    busy: int = 0
    pause: float = 0
    status: int | None = None
    error_code: str = ''
    index: Any = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def start(self) -> str:
        """Returns the address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append((self.path.partition('?')[0], self.headers['Range']))
                hub._answer(self, with_content=True)

            def do_HEAD(self) -> None:
                hub._answer(self, with_content=False)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return f'http://127.0.0.1:{self.server.server_port}'

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _answer(self, request: BaseHTTPRequestHandler, with_content: bool) -> None:
        self.tokens.append(request.headers['Authorization'])
        path = request.path.partition('?')[0]
        name = path.removeprefix(f'/{self.repository}/resolve/{COMMIT}/')
        if self.busy:
            self.busy -= 1
            self._send(request, 503, {}, b'')
        elif self.status is not None:
            self._send(request, self.status, {'X-Error-Code': self.error_code}, b'')
        elif path == f'/api/models/{self.repository}/revision/main':
            self._send(request, 200, {}, self._index())
        elif name in self.files:
            self._send_file(request, name, with_content)
        else:
            found = path.startswith(f'/api/models/{self.repository}/')
            code = 'RevisionNotFound' if found else 'RepoNotFound'
            self._send(request, 404, {'X-Error-Code': code}, b'')

    def _index(self) -> bytes:
        if self.index is not None:
            return self.index if isinstance(self.index, bytes) else json.dumps(self.index).encode()
        siblings = [self._entry(name) for name in self.files]
        return json.dumps({'id': self.repository, 'sha': COMMIT, 'siblings': siblings}).encode()

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        entry = {'rfilename': name, 'size': len(content), 'blobId': self._digest(name)}
        if len(content) >= LARGE:
            lfs = {'sha256': self._digest(name), 'size': len(content), 'pointerSize': 130}
            entry |= {'blobId': '0' * 40, 'lfs': lfs}
        return entry

    def _digest(self, name: str) -> str:
        content = self.files[name]
        if len(content) >= LARGE:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(f'blob {len(content)}\0'.encode() + content).hexdigest()

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes
    ) -> None:
        request.send_response(status)
        for key, value in {'Content-Length': str(len(content)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        for start in range(0, len(content), 1 << 16):
            request.wfile.write(content[start : start + (1 << 16)])
            time.sleep(self.pause)

    def _send_file(self, request: BaseHTTPRequestHandler, name: str, with_content: bool) -> None:
        content = self.files[name]
        headers = {'X-Repo-Commit': COMMIT, 'ETag': f'"{self._digest(name)}"'}
        headers['Content-Length'] = str(len(content))
        if not with_content:
            self._send(request, 200, headers, b'')
            return
        if self.corrupt:
            self.corrupt -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int((request.headers['Range'] or 'bytes=0-').removeprefix('bytes=').rstrip('-'))
        status = 206 if request.headers['Range'] else 200
        if start:
            headers['Content-Range'] = f'bytes {start}-{len(content) - 1}/{len(content)}'
        content = content[start:]
        headers['Content-Length'] = str(len(content))
        if self.stops and len(content) > self.stop_after:
            self.stops -= 1
            content = content[: self.stop_after]
        self._send(request, status, headers, content)


def cached_snapshot() -> Path:
    """An empty snapshot of the repository in the cache of Hugging Face's own tools."""
    base = Path(constants.HF_HUB_CACHE) / 'models--CIDAS--clipseg-rd64'
    snapshot = base / 'snapshots' / COMMIT
    snapshot.mkdir(parents=True)
    (base / 'refs').mkdir()
    (base / 'refs' / 'main').write_text(COMMIT)
    return snapshot
