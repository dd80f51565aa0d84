"""Who may talk to the console: hosts, origins, tokens, and connections that dawdle.

A page of another site may send requests to 127.0.0.1 too, or have its own name point there. So the
host has to be one of ours, and the origin, where a browser states one, that very host.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEADERS = {
    # Everything comes from here, and nothing is run that is not one of our files.
    'Content-Security-Policy': (
        "default-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "style-src 'self'; script-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'; object-src 'none'"
    ),
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
}

CHANGE, VIEW = 'change', 'view'
"""What somebody may do."""

_READS = ('GET', 'HEAD')


@dataclass(frozen=True)
class Access:
    """Who may do what.

    Attributes:
        token: Needed to do anything; empty where everybody on this machine may.
        view_token: Needed to look only, in its place.
        view: Whether nobody may change anything.
        hosts: Names of this machine beside ``localhost``; addresses are always taken.
    """

    token: str = ''
    view_token: str = ''
    view: bool = False
    hosts: frozenset[str] = field(default_factory=frozenset)

    def role(self, given: str) -> str:
        """Return what the holder of a token may do: ``change``, ``view`` or nothing."""
        if self.token and not _same(given, self.token):
            return VIEW if self.view_token and _same(given, self.view_token) else ''
        return VIEW if self.view else CHANGE


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(18)


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reached from this machine alone."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def machine_names() -> frozenset[str]:
    """Return the names that this machine goes by."""
    name = socket.gethostname().lower()
    short = name.partition('.')[0]
    return frozenset((name, short, f'{short}.local'))


class Guard:
    """ASGI middleware that lets through who may."""

    def __init__(self, app: Any, access: Access, cookie: str) -> None:
        self._app, self._access, self._cookie = app, access, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on with ``scope['role']``."""
        if scope['type'] not in ('http', 'websocket'):
            await self._app(scope, receive, send)
            return
        headers = {key.decode('latin1').lower(): value.decode('latin1')
                   for key, value in scope['headers']}  # fmt: skip
        refusal = self._refusal(scope, headers)
        query = parse_qs(scope['query_string'].decode('latin1'))
        given = query.get('token', [''])[-1]
        if refusal is None:
            role = self._access.role(given or self._remembered(headers))
            if not role:
                refusal = PlainTextResponse(
                    'The token is missing or wrong: open the address that the console printed '
                    'when it started, with the token in it.\n',
                    401,
                )
            elif role == VIEW and scope['type'] == 'http' and scope['method'] not in _READS:
                refusal = PlainTextResponse('You may look, and change nothing.\n', 403)
            elif given and scope['type'] == 'http' and scope['path'] == '/':
                # The address bar and the history have no token afterwards.
                refusal = RedirectResponse('/', 303)
                refusal.set_cookie(
                    self._cookie, given, httponly=True, samesite='strict', max_age=30 * 86400
                )
            scope['role'] = role
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope['type'] == 'websocket':
            # Before it is accepted: the browser gets 403.
            await receive()
            await send({'type': 'websocket.close', 'code': 1008})
        else:
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        host = headers.get('host', '')
        if not self._is_ours(host):
            return PlainTextResponse(
                'This console is not called so: open it by its address (such as 127.0.0.1), or '
                'start it with --allow-host and this name.\n',
                421,
            )
        origin = headers.get('origin')
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        site = headers.get('sec-fetch-site', 'none')
        # A link may open the page; what is asked for then, the page itself asks for.
        opens = scope['type'] == 'http' and scope['method'] in _READS and scope['path'] == '/'
        if foreign or (site not in ('same-origin', 'none') and not opens):
            return PlainTextResponse('Pages of other sites may not talk to the console.\n', 403)
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f'//{host}').hostname or ''
            urlsplit(f'//{host}').port  # noqa: B018 - raises for what is no port
        except ValueError:
            return False
        if name in ('localhost', *self._access.hosts):
            return True
        try:
            # Nobody else can have his page at our address.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _remembered(self, headers: dict[str, str]) -> str:
        try:
            cookie = SimpleCookie(headers.get('cookie', '')).get(self._cookie)
        except CookieError:
            return ''
        return '' if cookie is None else cookie.value


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message['type'] == 'http.response.start':
            there = {key.lower() for key, _ in message['headers']}
            message['headers'] = [
                *message['headers'],
                *((key.lower().encode(), value.encode()) for key, value in HEADERS.items()
                  if key.lower().encode() not in there),
            ]  # fmt: skip
        await send(message)

    return sending


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


class PatientProtocol(H11Protocol):
    """HTTP connections that have to ask for something soon.

    uvicorn waits for ever for a request that never ends, the first or a later one, and refuses
    whoever comes when there are many. Here those that ask for nothing make room for others, and end
    after a while.
    """

    patience = 10.0
    """Seconds in which a request has to be there, from the connection or the answer before it."""

    most = 96
    """Connections at once."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request; with too many connections, the oldest such one ends."""
        super().connection_made(transport)
        self._await_request()
        connections = self.connections
        if len(connections) > self.most:
            idle = [one for one in connections if isinstance(one, PatientProtocol) and one.is_idle]
            oldest = min(idle, key=lambda one: one._timer.when())
            oldest.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether it has asked for nothing, or for nothing more."""
        return self.cycle is None or self.cycle.response_complete

    def handle_events(self) -> None:
        """Take note of a request."""
        super().handle_events()
        if not self.is_idle:
            self._timer.cancel()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._timer.cancel()
        self._await_request()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Leave the connection to WebSocket, for as long as it likes."""
        self._timer.cancel()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """End waiting."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _await_request(self, unread: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.patience, self._expire, unread)

    def _expire(self, unread: int) -> None:
        """End the connection, unless its answer is still being read: then there is less of it."""
        if not self.is_idle or self.transport is None:
            return
        left = self.transport.get_write_buffer_size()
        if left and (left < unread or not unread):
            self._await_request(left)
        else:
            self.transport.abort()


def find_uses(hosts: Iterable[str]) -> frozenset[str]:
    """Return names of hosts as they are compared: lower case, without a port."""
    return frozenset(host.strip().lower().partition(':')[0] for host in hosts if host.strip())
