"""Sending shots to one browser, at its own pace.

The browser asks for each shot when it has drawn the one before: at most one is under way, and a
slow browser leaves shots out instead of getting them late. It also gets smaller pictures.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from clipseg_model.errors import ClipsegError
from clipseg_ros.console.hub import Hub, Viewer
from clipseg_ros.console.shots import LAYERS, QUALITIES, message

_SLOW, _FAST = 0.30, 0.12
"""Seconds from sending a shot until the next is asked for, beyond which quality changes."""

_PATIENCE = 8
"""Fast shots in a row after which the quality rises."""


class Quality:
    """The quality of the pictures of one browser, an index of ``QUALITIES``."""

    def __init__(self) -> None:
        self.level = 0
        self._fast = 0

    def took(self, seconds: float) -> None:
        """Take note of how long a shot took until the browser had drawn it."""
        if seconds > _SLOW:
            self._fast = 0
            step = 2 if seconds > 2 * _SLOW else 1
            self.level = min(self.level + step, len(QUALITIES) - 1)
        elif seconds < _FAST:
            self._fast += 1
            if self._fast >= _PATIENCE and self.level:
                self.level -= 1
                self._fast = 0
        else:
            self._fast = 0


class Pace:
    """Sends shots to one browser until it goes."""

    def __init__(self, hub: Hub, socket: WebSocket) -> None:
        self._hub, self._socket = hub, socket
        self._viewer, self._quality = Viewer(), Quality()
        self._asks: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=2)

    async def run(self) -> None:
        """Answer asks until the browser goes."""
        reader = asyncio.create_task(self._read())
        try:
            await self._hub.look(self._viewer, frozenset({'labels'}))
            await self._send_all(reader)
        except (WebSocketDisconnect, RuntimeError):
            return
        finally:
            reader.cancel()
            await self._hub.look(self._viewer, None)

    async def _read(self) -> None:
        try:
            while True:
                ask = await self._socket.receive_json()
                if not isinstance(ask, dict):
                    return
                browser = ask.get('browser')
                if isinstance(browser, str):
                    self._viewer.browser = browser[:40]
                layers = ask.get('layers')
                if isinstance(layers, list):
                    wanted = frozenset(name for name in layers if name in LAYERS)
                    if wanted != self._viewer.layers:
                        await self._hub.look(self._viewer, wanted)
                if 'after' in ask:
                    await self._asks.put(ask)
        except (WebSocketDisconnect, RuntimeError, ValueError, KeyError):
            return

    async def _send_all(self, reader: asyncio.Task[None]) -> None:
        sent_at = 0.0
        while True:
            waiting = asyncio.create_task(self._asks.get())
            while not (waiting.done() or reader.done() or self._hub.ending):
                await asyncio.wait(
                    {waiting, reader}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED
                )
            if not waiting.done():
                waiting.cancel()
                return
            after = waiting.result()['after']
            if sent_at:
                self._quality.took(time.monotonic() - sent_at)
            after = after if isinstance(after, int) else 0
            data = None
            while data is None:
                found = await self._hub.next_shot(after, 0.5)
                if reader.done() or self._hub.ending:
                    return
                if found is None:
                    continue
                number, shot = found
                after = number
                more = {'sent': time.time()}
                level = self._quality.level
                wanted = [name for name in LAYERS if name in self._viewer.layers]
                # Of an image whose picture has never come, there may be the node's drawing alone.
                with suppress(ClipsegError):
                    data = await asyncio.to_thread(message, shot, number, wanted, level, more)
            self._viewer.sent.append((number, shot))
            sent_at = time.monotonic()
            await self._socket.send_bytes(data)
