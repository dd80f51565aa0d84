"""The routes of the console, on Starlette: the page, shots, state, commands, uploads, files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.registry import DEFAULT_MODEL
from clipseg_ros.console import exports
from clipseg_ros.console.back_ends.base import BackEnd, ConsoleError
from clipseg_ros.console.back_ends.feeds import fitted
from clipseg_ros.console.back_ends.models import SpareModel, model_choices
from clipseg_ros.console.cards import find
from clipseg_ros.console.commands import Commands, compared
from clipseg_ros.console.guard import CHANGE, Access, Guard
from clipseg_ros.console.hub import TICK, Hub
from clipseg_ros.console.shots import LAYERS, encode_picture, message
from clipseg_ros.console.streaming import Pace
from clipseg_ros.console.uploads import read_body, read_picture
from clipseg_ros.console.words import without_folders
from clipseg_ros.prompts.support_pair import SupportImage

PAGE = Path(__file__).parent / 'page'

MOST_BROWSERS = 24
"""Browsers that get pictures at once."""

_COMMAND_BYTES = 200_000


class Server:
    """The console as an ASGI application, :attr:`app`; ``say`` prints a line in the terminal."""

    def __init__(
        self,
        back_end: BackEnd,
        access: Access,
        spare: SpareModel,
        cookie: str = 'clipseg',
        say: Callable[[str], Any] = lambda _: None,
    ) -> None:
        self.hub = Hub(back_end, access.view, say)
        self._commands = Commands(self.hub)
        self._spare = spare
        # One after the other: what is kept of a frozen shot is what was asked for last.
        self._comparing = asyncio.Lock()
        self._readers = 0
        routes = [
            Route('/', self._page),
            Route('/do/{name}', self._do, methods=['POST']),
            Route('/picture', self._take_picture, methods=['POST']),
            Route('/example', self._take_example, methods=['POST']),
            Route('/mask', self._take_mask, methods=['POST']),
            Route('/freeze/{number:int}', self._freeze),
            Route('/compare', self._compare, methods=['POST']),
            Route('/cutout', self._cutout),
            Route('/example-mask', self._example_mask),
            Route('/copy/{kind}', self._copy),
            Route('/save/prompts', self._save_prompts),
            WebSocketRoute('/state', self._state),
            WebSocketRoute('/shots', self._shots),
            Mount('/page', StaticFiles(directory=PAGE)),
        ]

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            await self.hub.start()
            yield
            await self.hub.close()

        inner = Starlette(
            routes=routes,
            lifespan=lifespan,
            exception_handlers={ClipsegError: self._refuse, Exception: _fail},
        )
        self.app = Guard(inner, access, cookie)

    async def _page(self, _: Request) -> Response:
        # A page has two connections. One that is open already learns the reason here, too.
        if self._readers + 2 > 2 * MOST_BROWSERS:
            return PlainTextResponse(
                f'{MOST_BROWSERS} browsers look already, and no more are possible: close the page '
                'in one of them, and load this one again.\n',
                503,
            )
        return FileResponse(PAGE / 'index.html')

    async def _do(self, request: Request) -> Response:
        command = self._commands.all.get(request.path_params['name'])
        if command is None:
            raise ConsoleError(f'there is no command {request.path_params["name"][:40]!r}')
        text = await read_body(request, _COMMAND_BYTES)
        try:
            body = json.loads(text or b'{}')
        except ValueError as error:
            raise ConsoleError(f'a command is a JSON object: {error}') from error
        if not isinstance(body, dict):
            raise ConsoleError('a command is a JSON object')
        return await self._said(command, body)

    async def _take_picture(self, request: Request) -> Response:
        name = request.query_params.get('name', '')[:80]
        rgb = await read_picture(request, name)
        return await self._said(self.hub.back_end.take_picture, rgb, name or 'a picture')

    async def _take_example(self, request: Request) -> Response:
        query = request.query_params
        rgb = await read_picture(request, query.get('file', '')[:80])
        # A model sees no more, and a node gets the pictures of all prompts with each change.
        example = SupportImage(await asyncio.to_thread(fitted, rgb))
        add = self._commands.add_example
        return await self._said(add, query.get('name', ''), query.get('phrase', ''), example)

    async def _take_mask(self, request: Request) -> Response:
        mask = (await read_picture(request, 'the mask')).max(axis=2) > 127
        return await self._said(self._commands.set_mask, request.query_params.get('name', ''), mask)

    async def _freeze(self, request: Request) -> Response:
        browser = request.query_params.get('browser', '')[:40]
        shot = self.hub.freeze(request.path_params['number'], browser)
        if shot is None:
            raise ConsoleError('that picture is no longer kept: try again')
        return JSONResponse({'said': 'frozen'})

    async def _compare(self, request: Request) -> Response:
        text = await read_body(request, _COMMAND_BYTES)
        try:
            body = json.loads(text)
            number, model = int(body['number']), str(body.get('model') or '')
            threshold = body.get('threshold')
            threshold = None if threshold is None else float(threshold)
            layers = body.get('layers') or ()
            wanted = ['labels', *(name for name in ('heat', 'instances') if name in layers)]
        except (ValueError, TypeError, KeyError) as error:
            raise ConsoleError(f'a comparison needs a number: {error}') from error
        async with self._comparing:
            frozen = self.hub.freeze(number, str(body.get('browser') or '')[:40])
            if frozen is None:
                raise ConsoleError('that picture is no longer kept: freeze another')
            shot = await asyncio.to_thread(
                compared, self.hub.back_end, self._spare, frozen, model, threshold
            )
            if not model and threshold is None:
                # What is marked or clicked in it from now on is what is shown now.
                self.hub.replace_still(number, shot)
        data = await asyncio.to_thread(message, shot, number, wanted, 0, {})
        return Response(data, media_type='application/octet-stream')

    async def _cutout(self, request: Request) -> Response:
        """Return the picture of a prompt, dark where its mask is not."""
        card = find(self.hub.back_end.cards, request.query_params.get('name', ''))
        if card.example is None:
            raise PromptError(f'the picture of {card.name!r} is not here')
        whole = request.query_params.get('whole') == '1'
        data = await asyncio.to_thread(_cut_out, card.example, whole)
        return Response(data, media_type='image/jpeg')

    async def _example_mask(self, request: Request) -> Response:
        from clipseg_ros.console.shots import encode_values

        card = find(self.hub.back_end.cards, request.query_params.get('name', ''))
        if card.example is None:
            raise PromptError(f'the picture of {card.name!r} is not here')
        mask = card.example.mask
        shape = card.example.image.shape[:2]
        values = np.full(shape, 255, np.uint8) if mask is None else mask.view(np.uint8) * 255
        data = await asyncio.to_thread(encode_values, values.astype(np.uint8))
        return Response(data, media_type='image/png')

    async def _copy(self, request: Request) -> Response:
        back_end, kind = self.hub.back_end, request.path_params['kind']
        status, cards = back_end.status(), back_end.cards_to_save()
        node = status.source if back_end.kind == 'ros' else '/clipseg'
        if kind == 'yaml':
            text, said = await asyncio.to_thread(exports.as_yaml, cards)
        elif kind == 'ros2':
            text, said = exports.as_command(cards, node)
        elif kind == 'python':
            # A script has no node whose parameters say the rest.
            on_robot = back_end.kind == 'ros'
            given = (status.threshold, status.presence) if on_robot else (None, None)
            text, said = exports.as_python(cards, status.model or DEFAULT_MODEL, *given)
        else:
            raise ConsoleError(f'{kind[:20]!r} is none of yaml, ros2, python')
        return JSONResponse({'text': text, 'said': said})

    async def _save_prompts(self, _: Request) -> Response:
        cards = self.hub.back_end.cards_to_save()
        data, name, _left_out = await asyncio.to_thread(exports.prompt_file, cards)
        kind = 'application/zip' if name.endswith('zip') else 'application/yaml'
        disposition = {'Content-Disposition': f'attachment; filename="{name}"'}
        return Response(data, media_type=kind, headers=disposition)

    async def _refuse(self, _: Request, error: Exception) -> Response:
        self.hub.terminal.refused(error)
        return JSONResponse({'error': without_folders(str(error))}, 400)

    async def _said(self, act: Any, *arguments: Any) -> Response:
        said = await asyncio.to_thread(act, *arguments)
        self.hub.change()
        return JSONResponse({'said': without_folders(said)})

    async def _state(self, socket: WebSocket) -> None:
        """Send the state whenever it changes, and answer to pings, by which clocks are compared."""
        if not await self._accept(socket):
            return
        may_change = socket.scope.get('role') == CHANGE
        pings = asyncio.create_task(self._answer_pings(socket))
        told = ''
        since: dict[str, float] = {}
        try:
            while not (pings.done() or self.hub.ending):
                state = self.hub.state(may_change)
                state['compare_models'] = [
                    {'key': one.key, 'text': one.text} for one in model_choices()
                ]
                now = state.pop('now')
                text = json.dumps(state, ensure_ascii=False)
                scores = self.hub.scores(since)
                if text != told or any(scores.values()):
                    news = {'scores': scores, 'now': now}
                    await socket.send_json({**news, 'state': state} if text != told else news)
                    told = text
                await asyncio.sleep(TICK)
                await self.hub.next_change(1.0)
        except (WebSocketDisconnect, RuntimeError):
            return
        finally:
            self._readers -= 1
            pings.cancel()

    async def _answer_pings(self, socket: WebSocket) -> None:
        import time

        try:
            while True:
                ping = await socket.receive_json()
                sent = ping.get('ping') if isinstance(ping, dict) else None
                await socket.send_json({'pong': sent, 'at': time.time()})
        except (WebSocketDisconnect, RuntimeError, ValueError, KeyError):
            return

    async def _shots(self, socket: WebSocket) -> None:
        if not await self._accept(socket):
            return
        try:
            await Pace(self.hub, socket).run()
        finally:
            self._readers -= 1

    async def _accept(self, socket: WebSocket) -> bool:
        if self._readers >= 2 * MOST_BROWSERS:
            await socket.close(1013)
            return False
        self._readers += 1
        await socket.accept()
        return True


def _cut_out(example: SupportImage, whole: bool) -> bytes:
    image, mask = example.image, example.mask
    if mask is not None and not whole:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        margin = max(4, (rows[-1] - rows[0] + columns[-1] - columns[0]) // 10)
        part = (
            slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
            slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
        )
        dark = (image[part] * 0.3).astype(np.uint8)
        image = np.where(mask[part][..., None], image[part], dark)
    longest = max(image.shape[:2])
    side = 1600 if whole else 240
    return encode_picture(np.ascontiguousarray(image), min(1.0, side / longest), 85)


async def _fail(_: Request, error: Exception) -> Response:
    # The traceback is in the terminal; its words may say more of this machine than they should.
    kind = type(error).__name__
    return JSONResponse({'error': f'the console failed ({kind}): see its terminal'}, 500)


__all__ = ['LAYERS', 'Server']
