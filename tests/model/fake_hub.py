"""A Hugging Face hub of one repository, on this machine, that can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = '0123456789abcdef' * 2 + '01234567'
LARGE = 1000
"""From this size on, files are in Git LFS and the index states their sha256."""


@dataclass
class FakeHub:
    """What the server has and does.

    Attributes:
        files: Contents by name.
        repository: Its one repository.
        stop_after: Bytes after which the connection is closed, for files longer than that; used
            up by the first such answer.
        ranges: Whether it knows the Range header.
        corrupt: Whether the contents differ from those of the index.
        status: Answer to everything, where not None.
        requests: Path and Range header of every request.
    """

    files: dict[str, bytes]
    repository: str = 'CIDAS/clipseg-rd64'
    stop_after: int | None = None
    ranges: bool = True
    corrupt: bool = False
    status: int | None = None
    index: Any = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def start(self) -> str:
        """Returns the address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub._answer(self)

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

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, request.headers['Range']))
        api = f'/api/models/{self.repository}'
        resolve = f'/{self.repository}/resolve/{COMMIT}/'
        if self.status is not None:
            request.send_error(self.status)
        elif request.path == f'{api}/revision/main':
            self._send_json(request, {'sha': COMMIT} if self.index is None else self.index)
        elif request.path == f'{api}/tree/{COMMIT}':
            self._send_json(request, [self._entry(name) for name in self.files])
        elif request.path.removeprefix(resolve) in self.files:
            self._send_file(request, self.files[request.path.removeprefix(resolve)])
        else:
            request.send_error(404)

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        blob = hashlib.sha1(f'blob {len(content)}\0'.encode() + content).hexdigest()
        entry: dict[str, Any] = {'type': 'file', 'path': name, 'size': len(content), 'oid': blob}
        if len(content) >= LARGE:
            digest = hashlib.sha256(content).hexdigest()
            entry.update(oid='0' * 40, lfs={'oid': digest, 'size': len(content)})
        return entry

    def _send_json(self, request: BaseHTTPRequestHandler, value: Any) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        request.send_response(200)
        request.send_header('Content-Length', str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _send_file(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        if self.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        asked = request.headers['Range']
        if asked and self.ranges:
            start = int(asked.removeprefix('bytes=').removesuffix('-'))
            request.send_response(206)
            last = len(content) - 1
            request.send_header('Content-Range', f'bytes {start}-{last}/{len(content)}')
        else:
            request.send_response(200)
        content = content[start:]
        request.send_header('Content-Length', str(len(content)))
        request.end_headers()
        if self.stop_after is not None and len(content) > self.stop_after:
            content, self.stop_after = content[: self.stop_after], None
        request.wfile.write(content)
