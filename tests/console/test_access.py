"""Who may talk to the console, and what happens to those who may not."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import socket
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from console_server import Client, StandIn, served
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from clipseg_ros.console.app import Served, addresses, find_access
from clipseg_ros.console.guard import PatientProtocol, is_loopback
from clipseg_ros.console.hub import Hub


@pytest.fixture
def back_end() -> StandIn:
    return StandIn()


@pytest.fixture
def client(back_end: StandIn) -> Iterator[Client]:
    with served(back_end) as (made, _):
        yield made


def png(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(data, 'PNG')
    return data.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack('>I', len(data)) + checked + struct.pack('>I', zlib.crc32(checked))

    size = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')
    )


def test_the_page_and_what_it_may_load(client: Client) -> None:
    status, headers, body = client.ask('/')
    assert status == 200
    assert b'app.js' in body
    policy = headers['content-security-policy']
    assert "default-src 'self'" in policy
    assert 'unsafe' not in policy
    assert 'http' not in policy
    assert headers['x-content-type-options'] == 'nosniff'
    status, headers, _ = client.ask('/page/app.js')
    assert status == 200
    assert 'javascript' in headers['content-type']


def test_a_page_of_another_site_cannot_drive_the_robot(client: Client, back_end: StandIn) -> None:
    body = json.dumps({'text': 'the mug'}).encode()
    for headers in (
        {'Origin': 'http://evil.example'},
        {'Origin': f'http://evil.example:{client.port}'},
        {'Origin': 'null'},
        {'Sec_Fetch_Site': 'cross-site'},
    ):
        status, _, _ = client.ask('/do/add', 'POST', body, **headers)
        assert status == 403, headers
    assert back_end.cards == ()
    for path in ('state', 'shots'):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(
                f'ws://{client.host}/{path}',
                origin='http://evil.example',  # type: ignore[arg-type]
            ),
        ):
            pass
        assert refused.value.response.status_code == 403
    # Nor have its pictures, or tell what runs here; a link may open the page.
    for path in ('/freeze/9', '/page/app.js', '/copy/yaml', '/cutout?name=x'):
        for site in ('cross-site', 'same-site'):
            assert client.ask(path, Sec_Fetch_Site=site)[0] == 403, path
    assert client.ask('/', Sec_Fetch_Site='cross-site')[0] == 200
    assert client.ask('/page/app.js', Sec_Fetch_Site='same-origin')[0] == 200
    assert client.ask('/do/add', 'POST', body, Origin=f'http://{client.host}')[0] == 200
    assert [card.name for card in back_end.cards] == ['the mug']


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', '',
                                  '[', 'localhost.evil.example', 'a' * 300])  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(client: Client, host: str) -> None:
    assert client.ask('/', Host=host)[0] == 421
    with (
        pytest.raises(InvalidStatus),
        connect(f'ws://{client.host}/state', additional_headers={'Host': host}),
    ):
        pass


@pytest.mark.parametrize('host', ['localhost', '127.0.0.1', '[::1]:8088', '192.168.1.7'])
def test_our_own_names(client: Client, host: str) -> None:
    assert client.ask('/', Host=host)[0] == 200


def test_another_name_can_be_allowed() -> None:
    with served(StandIn(), allowed=('Robot.lan',)) as (client, _):
        assert client.ask('/', Host='robot.lan:8088')[0] == 200
        assert client.ask('/', Host='other.lan')[0] == 421


def test_beyond_this_machine_a_token_is_demanded() -> None:
    back_end = StandIn()
    with served(back_end, host='0.0.0.0') as (client, lines):
        token, view = (line.rpartition('=')[2] for line in lines)
        assert 'To look only' in lines[1]
        for path in ('/', '/page/app.js', '/copy/yaml', '/?token=wrong', '/?token='):
            status, _, body = client.ask(path)
            assert status == 401, path
            assert b'address that the console printed' in body
        with pytest.raises(InvalidStatus), connect(f'ws://{client.host}/shots'):
            pass
        status, headers, _ = client.ask(f'/?token={token}')
        assert status == 303
        assert headers['location'] == '/'
        cookie = headers['set-cookie'].lower()
        assert 'httponly' in cookie
        assert 'samesite=strict' in cookie
        remembered = headers['set-cookie'].partition(';')[0]
        assert client.ask('/', Cookie=remembered)[0] == 200
        body = b'{"text": "the mug"}'
        assert client.ask('/do/add', 'POST', body, Cookie=remembered)[0] == 200
        looks = remembered.partition('=')[0] + '=' + view
        assert client.ask('/', Cookie=looks)[0] == 200
        assert client.ask('/do/clear', 'POST', b'{}', Cookie=looks)[0] == 403
        assert len(back_end.cards) == 1


def test_who_needs_a_token() -> None:
    assert is_loopback('127.0.0.1')
    assert is_loopback('::1')
    assert not is_loopback('0.0.0.0')
    assert not is_loopback('robot')
    assert not find_access(Served()).token
    access = find_access(Served(host='192.168.1.7'))
    assert len(access.token) >= 24
    assert access.token != access.view_token
    [line, _] = addresses(access, '192.168.1.7', 80)
    assert access.token in line
    assert find_access(Served(token=True)).token


def test_who_may_only_look_changes_nothing() -> None:
    back_end = StandIn()
    with served(back_end, view=True) as (client, lines):
        assert '--view' in lines[0]
        for path in ('/do/add', '/do/clear', '/do/values', '/picture', '/example', '/mask'):
            status, _, _ = client.ask(path, 'POST', b'{"text": "the mug"}')
            assert status == 403, path
        with connect(f'ws://{client.host}/state') as state:
            assert json.loads(state.recv(timeout=10))['state']['may_change'] is False
            state.send(json.dumps({'do': 'add', 'text': 'the mug'}))
        assert back_end.cards == ()
        assert back_end.pictures == []
        assert client.ask('/')[0] == 200


def test_examples_are_limited(
    client: Client, back_end: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(name: str) -> tuple[int, str]:
        status, _, text = client.ask(f'/example?name={name}', 'POST', png(2000, 1000))
        return status, json.loads(text).get('error', '')

    monkeypatch.setattr('clipseg_ros.console.commands.MOST_EXAMPLE_BYTES', 6_000_000)
    assert add('one')[0] == add('two')[0] == 200
    image = back_end.cards[0].example.image  # type: ignore[union-attr]
    assert image.shape == (640, 1280, 3)
    status, error = add('three')
    assert status == 400
    assert '7 MB of memory, and 6 MB are possible: remove a prompt' in error
    with connect(f'ws://{client.host}/shots', compression=None) as shots:
        shots.send(json.dumps({'after': 0}))
        back_end.rgb = np.zeros((1200, 1300, 3), np.uint8)
        time.sleep(0.05)
        back_end.push()
        data = shots.recv(timeout=10)
        assert isinstance(data, bytes)
        number = json.loads(data[4 : 4 + int.from_bytes(data[:4], 'little')])['number']
        status, said = client.do('pick', number=number, x=1, y=1, width=5, height=5)
    assert status == 400
    assert 'are possible' in said['error']
    assert [card.name for card in back_end.cards] == ['one', 'two']
    # Another picture of the same prompt takes its place.
    assert add('two')[0] == 200


def test_uploads_reach_no_disk(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.ask('/example?name=one', 'POST', png(64, 48))[0] == 200
    opened: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if watches and event == 'open' and isinstance(arguments[2], int):
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                opened.append(str(arguments[0]))
        elif watches and event in ('os.mkdir', 'tempfile.mkdtemp', 'tempfile.mkstemp'):
            opened.append(str(arguments[0]))

    watches = True
    sys.addaudithook(note)
    try:
        status, headers, data = client.ask('/save/prompts')
        assert (status, headers['content-type']) == (200, 'application/zip')
        assert client.ask('/copy/yaml')[0] == 200
    finally:
        watches = False
    assert opened == []
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        names = packed.namelist()
        assert names[0] == 'prompts.yaml'
        assert Image.open(io.BytesIO(packed.read(names[1]))).size == (64, 48)


def test_uploads_are_limited(client: Client, back_end: StandIn) -> None:
    def refused(body: bytes, **headers: str) -> str:
        status, _, text = client.ask('/picture?name=a.png', 'POST', body, **headers)
        assert status == 400
        return str(json.loads(text)['error'])

    assert 'cannot be read as an image' in refused(b'no picture at all')
    assert 'convert it to a smaller one' in refused(bomb(25_000, 20_000))
    assert '10000 × 8000' in refused(bomb(10_000, 8_000))
    assert 'damaged' in refused(png(64, 64)[:-40])
    # What it says of its size counts before a byte of it has been read.
    with socket.create_connection(('127.0.0.1', client.port), timeout=10) as raw:
        raw.sendall(
            f'POST /picture HTTP/1.1\r\nHost: {client.host}\r\n'
            'Content-Length: 900000000\r\n\r\n'.encode()
        )
        assert b'400' in raw.recv(4096)
    assert back_end.pictures == []
    status, _, _ = client.ask('/picture?name=a.png', 'POST', png(64, 48))
    assert status == 200
    assert back_end.pictures[0].shape == (48, 64, 3)


def test_an_upload_without_end_is_cut_off(client: Client, back_end: StandIn) -> None:
    with socket.create_connection(('127.0.0.1', client.port), timeout=20) as raw:
        raw.sendall(
            f'POST /picture HTTP/1.1\r\nHost: {client.host}\r\n'
            'Transfer-Encoding: chunked\r\n\r\n'.encode()
        )
        block = b'100000\r\n' + bytes(0x100000) + b'\r\n'
        sent = 0
        try:
            while sent < 80:
                raw.sendall(block)
                sent += 1
            answered = raw.recv(4096)
        except OSError:
            answered = b''
        assert sent < 60 or b'400' in answered
    assert back_end.pictures == []
    assert client.ask('/')[0] == 200


def test_errors_say_no_path_of_this_machine(client: Client) -> None:
    status, said = client.do('choose', what='model', key='x')
    assert status == 400
    assert said['error'] == 'secret.pt is not there'
    status, said = client.do('step', by=1)
    assert status == 500
    assert '/srv' not in said['error']
    for path in ('/page/../server.py', '/page/%2e%2e/server.py', '/page/..%2fserver.py'):
        status, _, body = client.ask(path)
        assert status == 404, path
        assert b'import' not in body


def test_commands_that_make_no_sense_are_refused_in_words(client: Client) -> None:
    for path, body, word in (
        ('/do/nothing', b'{}', 'no command'),
        ('/do/add', b'[]', 'JSON object'),
        ('/do/add', b'{', 'JSON object'),
        ('/do/add', b'{}', 'text'),
        ('/do/edit', b'{"name": "x", "changes": {"threshold": 2}}', 'no prompt'),
        ('/do/values', b'{"threshold": 7}', 'between 0 and 1'),
        ('/do/pick', b'{"number": 99}', 'no longer kept'),
        ('/compare', b'{}', 'number'),
        ('/do/add', b'"' + b'x' * 300_000 + b'"', 'MB'),
    ):
        status, _, text = client.ask(path, 'POST', body)
        assert status == 400, path
        assert word in json.loads(text)['error'], text
    assert client.do('add', text='unreadable')[1]['error'].startswith('the model cannot read it')


def test_200_connections_and_slow_ones_harm_nobody(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, 'patience', 1.5)
    idle = []
    try:
        for number in range(200):
            one = socket.create_connection(('127.0.0.1', client.port), timeout=5)
            # Half of them begin a request that never ends.
            if number % 2:
                one.sendall(b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ')
            idle.append(one)
        begin = time.monotonic()
        assert client.ask('/')[0] == 200
        assert time.monotonic() - begin < 5
        with connect(f'ws://{client.host}/state') as state:
            assert 'state' in json.loads(state.recv(timeout=10))
        deadline = time.monotonic() + 15
        alive = list(idle)
        while alive and time.monotonic() < deadline:
            alive = [one for one in alive if not is_closed(one)]
            time.sleep(0.05)
        assert not alive, f'{len(alive)} connections were kept that ask for nothing'
        assert client.ask('/')[0] == 200
    finally:
        for one in idle:
            one.close()


def test_a_later_request_that_never_ends_is_cut_off(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, 'patience', 0.5)
    with socket.create_connection(('127.0.0.1', client.port), timeout=5) as raw:
        ask_for_icon(client, raw)
        begin = time.monotonic()
        endless = itertools.cycle(b'GET / HTTP/1.1\r\nX-Slow: ' + b'a' * 1000)
        while not is_closed(raw):
            assert time.monotonic() - begin < 5
            with contextlib.suppress(OSError):
                raw.sendall(bytes([next(endless)]))
            time.sleep(0.05)
    # Requests in time may be many.
    with socket.create_connection(('127.0.0.1', client.port), timeout=5) as raw:
        for _ in range(4):
            time.sleep(0.3)
            ask_for_icon(client, raw)


def ask_for_icon(client: Client, raw: socket.socket) -> None:
    raw.sendall(f'GET /page/icon.svg HTTP/1.1\r\nHost: {client.host}\r\n\r\n'.encode())
    got = b''
    while b'</svg>\n' not in got:
        more = raw.recv(100_000)
        assert more, 'the connection was closed'
        got += more
    assert got.startswith(b'HTTP/1.1 200')


def test_who_reads_slowly_gets_everything(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1280, 1280, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, 'PNG', compress_level=0)
    assert client.ask('/example?name=one', 'POST', data.getvalue())[0] == 200
    monkeypatch.setattr(PatientProtocol, 'patience', 0.3)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.settimeout(10)
        raw.connect(('127.0.0.1', client.port))
        raw.sendall(
            f'GET /save/prompts HTTP/1.1\r\nHost: {client.host}\r\nConnection: close\r\n\r\n'
            .encode()
        )  # fmt: skip
        got = bytearray()
        while more := raw.recv(65536):
            got += more
            time.sleep(0.012)
    head, _, body = bytes(got).partition(b'\r\n\r\n')
    stated = int(head.lower().partition(b'content-length: ')[2].partition(b'\r')[0])
    assert len(body) == stated > 4_500_000


def test_a_browser_that_looks_is_not_cut_off(
    client: Client, back_end: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, 'patience', 0.3)
    with connect(f'ws://{client.host}/shots', compression=None) as shots:
        for number in range(1, 4):
            time.sleep(0.4)
            back_end.push()
            shots.send(json.dumps({'after': number - 1}))
            data = shots.recv(timeout=10)
            assert isinstance(data, bytes)
            length = int.from_bytes(data[:4], 'little')
            assert json.loads(data[4 : 4 + length])['number'] == number
    deadline = time.monotonic() + 10
    while back_end.watched[-1] is not None:
        # Without a browser, nothing is watched.
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_closed(one: socket.socket) -> bool:
    one.settimeout(0.001)
    try:
        return one.recv(1) == b''
    except TimeoutError:
        return False
    except OSError:
        return True


def test_who_waits_for_a_first_picture_is_let_go_at_the_end(back_end: StandIn) -> None:
    async def wait() -> object:
        hub = Hub(back_end)
        await hub.start()
        waiting = asyncio.create_task(hub.next_shot(0, 10.0))
        await asyncio.sleep(0)
        hub.end()
        found = await asyncio.wait_for(waiting, 5.0)
        await hub.close()
        return found

    assert asyncio.run(wait()) is None


def test_browsers_are_limited(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('clipseg_ros.console.server.MOST_BROWSERS', 1)
    with (
        connect(f'ws://{client.host}/state'),
        connect(f'ws://{client.host}/shots'),
    ):
        with pytest.raises(InvalidStatus), connect(f'ws://{client.host}/shots'):
            pass
        status, _, text = client.ask('/')
        assert status == 503
        assert b'1 browsers look already' in text
