"""Commands of the docs, word for word.

The command `ros2` comes with a ROS 2 installation, and not with wheels. What it does is done here
with the words that it gets: parameters, services and messages reach a real node.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import fake_launch
import numpy as np
import pytest
import yaml
from docs_commands import REASONS, ROOT, Command, commands, reason_against
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from ros_peers import NodeProcess, Peer, picture, running_node, wait_until
from sensor_msgs.msg import Image
from typer.testing import CliRunner

from clipseg_model.cli.app import app
from clipseg_ros.ros import viewers
from clipseg_ros.ros.qos import command_input, image_output

ALL = commands()
EXECUTED = [command for command in ALL if not reason_against(command)]

_NODES = r'(ros2 run clipseg_ros|clipseg-node|clipseg-cameras|python -m clipseg_ros\.)'
KINDS = {
    'param': r'ros2 param set',
    'lifecycle': r'ros2 lifecycle set',
    'service': r'ros2 service call',
    'publish': r'ros2 topic pub',
    'echo': r'ros2 topic echo',
    'launch': r'ros2 launch clipseg_ros',
    'node': _NODES,
    'shell': r'(export FAST|make )',
    'cli': r'clipseg (models|segment)',
    'layout': r'python3 -m clipseg_ros\.ros\.viewers',
}
TAKEN = {
    '/clipseg/prompt': "'the vase' (negative)",
    '/clipseg/pick_point': "'example' is",
}
"""What the log of the node says of a message."""

STARTED = {
    r'run clipseg_ros console': 'The console: http://',
    r'run clipseg_ros camera': 'tabletop at',
    'pc_plus': 'active: tiny',
    '': 'active: everyday',
}
"""What is said by what a command starts."""

PRINTED = {
    r'clipseg models --json': '"name": "everyday"',
    r'clipseg models': 'clipseg download NAME fetches',
    r'clipseg segment': 'Written to out',
}
"""What a command prints."""


def of_kind(kind: str, quick: bool = True) -> Any:
    """The commands of a kind; those that are not quick are ``ci`` where they are the first.

    That is, of those that start the same program, which says the same.
    """
    chosen = [command for command in EXECUTED if re.match(KINDS[kind], command.line)]
    assert chosen, kind
    seen, values = set(), []
    for command in chosen:
        first = () if quick else (script_of(command)[0], said_of(command, STARTED))
        marks = () if quick or first in seen else (pytest.mark.ci,)
        seen.add(first)
        values.append(pytest.param(command, id=f'{command.page}: {command.line}', marks=marks))
    return pytest.mark.parametrize('command', values)


def said_of(command: Command, table: dict[str, str]) -> str:
    return next(said for how, said in table.items() if re.search(how, command.line))


def script_of(command: Command) -> list[str]:
    """What Python runs for a command that starts a node."""
    words = words_of(command)
    if words[0] == 'python':
        return words[1:]
    if words[0] == 'ros2':
        return [str(ROOT / 'scripts' / words[3]), *words[4:]]
    executable = {'clipseg-node': 'segment', 'clipseg-cameras': 'segment_cameras'}[words[0]]
    return [str(ROOT / 'scripts' / executable), *words[1:]]


def words_of(command: Command) -> list[str]:
    return shlex.split(command.line, comments=True)


def fill(message: Any, values: dict[str, Any]) -> Any:
    """Sets fields as `ros2` does; an unknown one is an error."""
    for name, value in values.items():
        kind = message.get_fields_and_field_types()[name]
        if isinstance(value, dict):
            fill(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            package, entry = kind.removeprefix('sequence<').removesuffix('>').split('/')
            made = [fill(getattr(import_module(f'{package}.msg'), entry)(), v) for v in value]
            setattr(message, name, made)
        else:
            setattr(message, name, float(value) if kind in ('float', 'double') else value)
    return message


def type_of(name: str) -> Any:
    package, kind, entry = name.split('/')
    return getattr(import_module(f'{package}.{kind}'), entry)


@pytest.fixture(scope='module')
def asker(own_domain: int) -> Iterator[Peer]:
    made = Peer(own_domain, 'asker')
    yield made
    made.close()


@pytest.fixture(scope='module')
def node(built: dict[str, str], own_domain: int) -> Iterator[NodeProcess]:
    """With the model that the docs speak of, which knows their words."""
    with running_node(
        'clipseg_ros.segment_node',
        {'device': 'cpu', 'threads': 1, 'prompt': "'the mug'"},
        environment={**built, 'ROS_DOMAIN_ID': str(own_domain)},
        ready='active: everyday',
    ) as made:
        yield made


@pytest.fixture
def shown(node: NodeProcess, asker: Peer) -> Iterator[None]:
    """A camera, and somebody who looks at what the node makes of it, so that it has a frame."""
    publisher = asker.publisher(Image, '/image', image_output(), matched=0)
    masks = asker.collect(Image, '/clipseg/mask', image_output())
    rgb = picture(480, 640)
    timer = asker.node.create_timer(0.5, lambda: publisher.publish(asker.stamped(rgb)))
    wait_until(lambda: masks, 30.0, 'a mask')
    yield
    asker.node.destroy_timer(timer)
    asker.node.destroy_publisher(publisher)
    for subscription in list(asker.node.subscriptions):
        if subscription.topic_name == '/clipseg/mask':
            asker.node.destroy_subscription(subscription)


def test_each_command_is_executed_or_has_a_reason() -> None:
    left = [c for c in EXECUTED if not any(re.match(how, c.line) for how in KINDS.values())]
    assert not left, 'execute them below, or say in docs_commands.py why not'
    assert len(EXECUTED) > 50
    stale = [how for how in REASONS if not any(re.match(how, command.line) for command in ALL)]
    assert not stale, 'no command begins like this any more'


@of_kind('param')
def test_parameters_are_taken(node: NodeProcess, asker: Peer, command: Command) -> None:
    _, _, _, name, parameter, text = words_of(command)
    value = yaml.safe_load(text)
    result = asker.set_parameter(name, parameter, text if value is None else value)
    assert result.successful, result.reason


@of_kind('publish')
def test_messages_find_their_topic(
    node: NodeProcess, asker: Peer, shown: None, command: Command
) -> None:
    assert asker.set_parameter('/clipseg', 'prompt', '').successful
    *options, topic, kind, text = words_of(command)[3:]
    assert options == ['--once', '-w', '1', '--keep-alive', '2'], 'others lose messages'
    message = fill(type_of(kind)(), yaml.safe_load(text))
    lines = len(node.lines)
    asker.publisher(type_of(kind), topic, command_input()).publish(message)
    node.wait_for(TAKEN[topic], 20.0, since=lines)


@of_kind('service')
def test_services_answer(node: NodeProcess, asker: Peer, shown: None, command: Command) -> None:
    name, kind, text = words_of(command)[3:]
    request = fill(type_of(kind).Request(), yaml.safe_load(text))
    # Its name is in them.
    assert asker.set_parameter('/clipseg', 'prompt', 'mug:the mug').successful
    answer = asker.call(type_of(kind), name, request)
    assert answer.success, answer.message


def test_the_life_of_a_node(node: NodeProcess, asker: Peer) -> None:
    def change(identifier: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=identifier))
        return bool(asker.call(ChangeState, '/clipseg/change_state', request).success)

    steps = [words_of(command)[3:] for command in EXECUTED if 'lifecycle set' in command.line]
    assert steps == [['/clipseg', 'configure'], ['/clipseg', 'activate']]
    assert change(Transition.TRANSITION_DEACTIVATE)
    assert change(Transition.TRANSITION_CLEANUP)
    for _, step in steps:
        assert change(getattr(Transition, f'TRANSITION_{step.upper()}')), step


@of_kind('echo')
def test_topics_that_are_looked_at_exist(node: NodeProcess, asker: Peer, command: Command) -> None:
    topic, *options = words_of(command)[3:]
    kinds = dict(asker.node.get_topic_names_and_types())
    assert topic in kinds
    fields = type_of(kinds[topic][0]).get_fields_and_field_types()
    assert options[:1] != ['--field'] or options[1] in fields


@of_kind('launch')
def test_launch_arguments_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Command
) -> None:
    fake_launch.install(monkeypatch)
    monkeypatch.setattr('ament_index_python.packages.get_package_prefix', lambda name: '/opt')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    file, *words = words_of(command)[3:]
    given = dict(word.split(':=', 1) for word in words)
    launched = fake_launch.run(ROOT / 'launch' / file, given)
    assert set(given) <= set(launched.arguments)
    assert launched.lines == []
    assert launched.nodes or launched.includes


@pytest.mark.slow
@of_kind('node', quick=False)
def test_nodes_start(
    built: dict[str, str], own_domain: int, tiny_model: Path, tmp_path: Path, command: Command
) -> None:
    # What the page has trained just before.
    (tmp_path / 'pc_plus.safetensors').symlink_to(tiny_model)
    program, *arguments = script_of(command)
    with running_node(
        program,
        script=arguments,
        environment={**built, 'ROS_DOMAIN_ID': str(own_domain)},
        folder=tmp_path,
        ready=said_of(command, STARTED),
    ):
        pass


@of_kind('shell')
def test_lines_of_the_shell(tmp_path: Path, command: Command) -> None:
    line = command.line
    if line.startswith('make'):
        # What it would do: the target and its variables are there.
        line = f'make -n {line.removeprefix("make ").partition("#")[0]} >/dev/null'
    else:
        line += '\ntest -f "$FASTDDS_DEFAULT_PROFILES_FILE"'
    # `--share` is the folder of config; the prefix has it as share/clipseg_ros.
    (tmp_path / 'share').mkdir()
    (tmp_path / 'share' / 'clipseg_ros').symlink_to(ROOT)
    script = f'set -e\nros2() {{ [ "$3" = --share ] && echo {ROOT} || echo {tmp_path}; }}\n{line}'
    done = subprocess.run(
        ['bash', '-c', script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name."""
    folder = tmp_path_factory.mktemp('files')
    rgb = picture(480, 640)
    (folder / 'photos').mkdir()
    for name in ('photo.jpg', 'example.jpg', 'photos/one.jpg'):
        cv2.imwrite(str(folder / name), rgb)
    mask = np.zeros((480, 640), np.uint8)
    mask[120:240, 160:320] = 255
    cv2.imwrite(str(folder / 'example_mask.png'), mask)
    film = cv2.VideoWriter(str(folder / 'walk.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 5, (64, 48))
    for _ in range(3):
        film.write(cv2.resize(rgb, (64, 48)))
    film.release()
    return folder


@pytest.mark.slow
@pytest.mark.ci
@of_kind('cli')
def test_the_command_line(
    files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Command
) -> None:
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words_of(command)[1:])
    assert done.exit_code == 0, done.output
    assert said_of(command, PRINTED) in done.output
    assert 'segment' not in command.line or any((tmp_path / 'out').iterdir())


@of_kind('layout')
def test_layouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Command) -> None:
    monkeypatch.chdir(tmp_path)
    assert viewers.main(words_of(command)[3:]) == 0
    assert (tmp_path / words_of(command)[3]).is_file()
