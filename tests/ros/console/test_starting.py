"""The console as it is started: options, launch file, executable, and what goes wrong at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_launch
import pytest
import rclpy
from rclpy.context import Context
from typer.testing import CliRunner

from clipseg_ros.cli import app
from clipseg_ros.console import app as starting
from clipseg_ros.console.app import Looked, Served, make_back_end, split_nodes
from clipseg_ros.console.back_ends.base import ConsoleError
from clipseg_ros.demo import app as demo_app
from clipseg_ros.demo import console_app as demo
from clipseg_ros.ros.share import PROFILE_VARIABLES, profile_variable


def test_the_launch_file(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_launch.install(monkeypatch)
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    file = repository / 'launch' / 'console.launch.py'
    launched = fake_launch.run(file, {'nodes': '/front/clipseg /back/clipseg', 'view': 'true'})
    [node] = launched.nodes
    assert node.package == 'clipseg_ros'
    assert (repository / 'scripts' / node.executable).is_file()
    assert node.arguments == [
        '--host=127.0.0.1', '--port=8088', '--namespace=',
        '--node', '/front/clipseg', '--node', '/back/clipseg', '--view',
    ]  # fmt: skip
    assert Path(launched.environment[profile_variable(os.environ)]).is_file()
    with pytest.raises(ValueError, match='true or false'):
        fake_launch.run(file, {'view': 'maybe'})


def test_what_the_launch_file_passes_is_understood(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_launch.install(monkeypatch)
    [node] = fake_launch.run(repository / 'launch' / 'console.launch.py', {}).nodes
    seen: list[tuple[Looked, Served]] = []
    monkeypatch.setattr(starting, 'make_back_end', lambda looked: looked)
    monkeypatch.setattr(starting, 'serve', lambda looked, served, _: seen.append((looked, served)))
    from clipseg_ros.console_node import main

    with pytest.raises(SystemExit) as ended:
        main([*map(str, node.arguments), '--ros-args', '-r', '__ns:=/robot'])
    assert ended.value.code == 0
    [(looked, served)] = seen
    assert looked.nodes == ('/robot/clipseg',)
    assert served == Served()


@pytest.mark.parametrize('text', ["the child's mug", '!a mug', 'grass: green grass', '7', 'a "b"'])
def test_the_first_prompt_of_the_demo_arrives_as_it_is(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    @contextmanager
    def child(_: str, command: list[str], *__: Any) -> Iterator[None]:
        commands.append(command)
        yield

    monkeypatch.setattr(demo_app, 'ChildProcess', child)
    monkeypatch.setattr(demo, 'prepare_environment', lambda _: None)
    monkeypatch.setattr(demo, 'take_signals_as_usual', lambda: None)
    monkeypatch.setattr(demo.signal, 'signal', lambda *_: None)
    monkeypatch.setattr(demo, 'make_back_end', lambda looked: looked)
    monkeypatch.setattr(demo, 'serve', lambda *_: None)
    words = ['--prompt', text, '--model', "it's.pt", '--output', str(tmp_path)]
    done = CliRunner().invoke(demo.app, words, env={'ROS_DOMAIN_ID': '7'})
    assert done.exit_code == 0, done.output
    context = Context()
    rclpy.init(context=context, args=commands[-1])
    try:
        node = rclpy.create_node('clipseg', context=context)
        given = [node.declare_parameter(name, '').value for name in ('prompt', 'model')]
        node.destroy_node()
    finally:
        context.try_shutdown()
    assert given == [text, "it's.pt"]


def test_the_device_is_also_that_of_a_model_to_compare_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Served] = []
    monkeypatch.setattr(starting, 'make_back_end', lambda looked: looked)
    monkeypatch.setattr(starting, 'serve', lambda _, served, __: seen.append(served))
    done = CliRunner().invoke(app, ['console', '--device', 'cuda:1', '--threads', '3'])
    assert done.exit_code == 0, done.output
    assert seen == [Served(device='cuda:1', threads=3)]


def test_names_of_nodes() -> None:
    assert split_nodes(['clipseg', '/a/b'], '') == ('/clipseg', '/a/b')
    assert split_nodes(['clipseg', '/a/b'], '/robot/') == ('/robot/clipseg', '/a/b')


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for looked, word in (
        (Looked(pictures=tmp_path / 'none'), 'no such picture or folder'),
        (Looked(pictures=tmp_path), 'holds no picture'),
        (Looked(video=tmp_path / 'none.mp4'), 'no such file'),
        (Looked(bag=tmp_path / 'none'), 'no such file'),
    ):
        with pytest.raises(ConsoleError, match=word):
            make_back_end(looked)


def test_a_port_in_use_ends_the_command_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ['console', '--port', str(port)])
    assert done.exit_code == 1
    assert f'port {port} of 127.0.0.1 is in use' in ' '.join(done.output.split())
    assert '--port' in done.output
    with pytest.raises(ConsoleError, match='cannot be listened on'):
        starting.listen('192.0.2.1', 0)


def test_it_starts_without_ros(repository: Path) -> None:
    program = (
        'import sys\n'
        'class Without:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        '        if name.partition(".")[0] in ("rclpy", "sensor_msgs", "std_msgs"):\n'
        '            raise ImportError(name)\n'
        'sys.meta_path.insert(0, Without())\n'
        'from clipseg_ros.console.app import Looked, make_back_end\n'
        'from clipseg_ros.console.back_ends.base import ConsoleError\n'
        'print(make_back_end(Looked()).kind)\n'
        'try:\n'
        '    make_back_end(Looked(nodes=("/clipseg",)))\n'
        'except ConsoleError as error:\n'
        '    print(error)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=repository, capture_output=True, text=True, check=True
    )
    kind, refusal = done.stdout.splitlines()
    assert kind == 'alone'
    assert 'source its setup file' in refusal
