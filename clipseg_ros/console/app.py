"""Starting the console: the back end, who may come in, the address, and the server."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from clipseg_ros.console.back_ends.base import BackEnd, ConsoleError
from clipseg_ros.console.back_ends.feeds import (
    Feed,
    machine_cameras,
    open_bag,
    open_camera,
    open_pictures,
    open_video,
)
from clipseg_ros.console.back_ends.models import SpareModel
from clipseg_ros.console.cards import added
from clipseg_ros.console.guard import (
    Access,
    PatientProtocol,
    find_uses,
    is_loopback,
    machine_names,
    new_token,
)
from clipseg_ros.console.server import Server

_BACK_ENDS = 'clipseg_ros.console.back_ends'

SMALLEST_MESSAGE = 65_536
"""Largest message that a browser may send, bytes: it only asks."""


@dataclass(frozen=True)
class Looked:
    """What is looked at.

    Attributes:
        nodes: Names of running nodes ``segment``; where there are any, the rest is not used.
        image: Image topic of the first of them; what it says itself where None.
        pictures: A folder of pictures, or one.
        video: A file.
        camera: A camera of this machine, ``N`` or ``/dev/videoN``.
        bag: A ROS 2 bag.
        topic: Image topic of the bag, where it has more than one.
        model: Name or path of the model.
        device: What the model runs on.
        threads: Of the model on a CPU.
        prompts: What is looked for at first.
    """

    nodes: tuple[str, ...] = ()
    image: str | None = None
    pictures: Path | None = None
    video: Path | None = None
    camera: str | None = None
    bag: Path | None = None
    topic: str | None = None
    model: str = 'everyday'
    device: str = 'auto'
    threads: int | None = None
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """How the page is served.

    Attributes:
        host: Address to listen on.
        port: Its port; 0 for any that is free.
        view: Whether nobody may change anything.
        token: Whether a token is needed on this machine, too.
        allowed: Names of this machine beside those that it knows.
        device: What a model that is compared with runs on.
        threads: Of that model on a CPU.
    """

    host: str = '127.0.0.1'
    port: int = 8088
    view: bool = False
    token: bool = False
    allowed: tuple[str, ...] = ()
    device: str = 'auto'
    threads: int | None = None


def import_back_end(looked: Looked) -> None:
    """Import what :func:`make_back_end` needs, as far as it is there."""
    with suppress(ImportError):
        importlib.import_module(f'{_BACK_ENDS}.{"ros" if looked.nodes else "alone"}')


def make_back_end(looked: Looked) -> BackEnd:
    """Return the back end, not started.

    Raises:
        ConsoleError: What is to be looked at is not there, or ROS is not.
    """
    if looked.nodes:
        try:
            from clipseg_ros.console.back_ends.ros import RosBackEnd
        except ImportError as error:
            raise ConsoleError(
                f'--node needs ROS 2, which cannot be imported ({error}): source its setup file, '
                'or leave --node out (clipseg console --images FOLDER)'
            ) from error
        return RosBackEnd(looked.nodes, looked.image)
    from clipseg_ros.console.back_ends.alone import AloneBackEnd

    back_end = AloneBackEnd(_sources(looked), looked.model, looked.device, looked.threads)
    if looked.prompts:
        back_end.change(added((), '\n'.join(looked.prompts)))
    return back_end


def _sources(looked: Looked) -> list[tuple[str, str, Callable[[], Feed]]]:
    sources: list[tuple[str, str, Callable[[], Feed]]] = []

    def add(path: Path, open_: Callable[[], Feed]) -> None:
        if not path.exists():
            raise ConsoleError(f'{path}: there is no such file or folder')
        sources.append((f'given{len(sources)}', path.name or 'pictures', open_))

    if looked.pictures is not None:
        pictures = looked.pictures
        open_pictures(pictures)
        add(pictures, lambda: open_pictures(pictures))
    if looked.video is not None:
        video = looked.video
        add(video, lambda: open_video(video))
    if looked.bag is not None:
        bag, topic = looked.bag, looked.topic
        add(bag, lambda: open_bag(bag, topic))
    cameras = dict(machine_cameras())
    if looked.camera is not None:
        device = looked.camera if looked.camera.startswith('/') else f'/dev/video{looked.camera}'
        cameras = {device: cameras.get(device, f'camera {looked.camera}'), **cameras}
    for number, (device, name) in enumerate(cameras.items()):
        sources.append((f'camera{number}', name, lambda device=device: open_camera(device)))  # type: ignore[misc]
    if looked.camera is None:
        # Nobody's camera is switched on unasked.
        sources.sort(key=lambda source: source[0].startswith('camera'))
    return sources


def find_access(served: Served) -> Access:
    """Return who may do what: beyond this machine, who has a token."""
    if is_loopback(served.host) and not served.token:
        return Access(view=served.view, hosts=find_uses(served.allowed))
    hosts = machine_names() | find_uses((served.host, *served.allowed))
    token, view_token = new_token(), new_token()
    return Access(token, '' if served.view else view_token, served.view, hosts)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound; raises a ConsoleError where it cannot be."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == 98:
            raise ConsoleError(
                f'port {port} of {host} is in use, maybe by another console: end that, or give '
                'another with --port (0 takes any that is free)'
            ) from error
        raise ConsoleError(
            f'{host} port {port} cannot be listened on ({error.strerror}): give an address of '
            'this machine with --host, and a port above 1023 with --port'
        ) from error
    return bound


class _Telling(uvicorn.Server):
    """A server that says when browsers may come, and when they have to go."""

    def __init__(
        self, config: uvicorn.Config, tell: Callable[[], None], end: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._tell, self._end = tell, end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end()
        await super().shutdown(sockets)


def addresses(access: Access, host: str, port: int) -> list[str]:
    """Return lines that say where the page is, with tokens."""
    shown = host
    if host in ('0.0.0.0', '::'):
        shown = socket.gethostname()
    elif ':' in host:
        shown = f'[{host}]'
    base = f'http://{shown}:{port}/'
    if not access.token:
        look = ' (nobody may change anything: --view)' if access.view else ''
        return [f'The console: {base}{look}']
    lines = [f'The console: {base}?token={access.token}']
    if access.view:
        lines[0] += ' (nobody may change anything: --view)'
    else:
        lines.append(f'To look only: {base}?token={access.view_token}')
    return lines


def make_server(
    back_end: BackEnd, served: Served, say: Callable[[str], Any]
) -> tuple[uvicorn.Server, socket.socket]:
    """Return the server, and the socket that it is to run on; ``say`` gets lines for people.

    Raises:
        ConsoleError: The port cannot be listened on.
    """
    access = find_access(served)
    bound = listen(served.host, served.port)
    port = bound.getsockname()[1]
    spare = SpareModel(served.device, served.threads)
    server = Server(back_end, access, spare, f'clipseg_{port}', say)

    def tell() -> None:
        for line in addresses(access, served.host, port):
            say(line)

    config = uvicorn.Config(
        server.app,
        http=PatientProtocol,
        ws_max_size=SMALLEST_MESSAGE,
        ws_per_message_deflate=False,
        log_level=os.environ.get('CLIPSEG_CONSOLE_LOG', 'warning'),
        lifespan='on',
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=3,
    )
    return _Telling(config, tell, server.hub.end), bound


def serve(back_end: BackEnd, served: Served, say: Callable[[str], Any]) -> None:
    """Serve the page until a signal comes; raises as :func:`make_server`."""
    server, bound = make_server(back_end, served, say)
    try:
        server.run(sockets=[bound])
    except KeyboardInterrupt:
        return
    finally:
        bound.close()


def split_nodes(names: Sequence[str], namespace: str) -> tuple[str, ...]:
    """Return full names of nodes: relative ones are below a namespace."""
    outer = namespace.strip('/')
    return tuple(
        name if name.startswith('/') else f'/{outer}/{name}' if outer else f'/{name}'
        for name in names
    )
