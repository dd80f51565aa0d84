"""Parameters as people type them, at start and later, and a dump that loads again."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from copy import copy
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import rclpy
import yaml
from pipeline_fakes import CountingModel
from rcl_interfaces.msg import ParameterType
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file
from ros_peers import Peer

from clipseg_ros.camera import parameters as camera_parameters
from clipseg_ros.camera.node import CameraNode
from clipseg_ros.errors import ParameterError
from clipseg_ros.ros.given import explain_unknown
from clipseg_ros.ros.parameters import Declaration
from clipseg_ros.ros.peer import _plain
from clipseg_ros.segment import parameters as segment_parameters
from clipseg_ros.segment.lifecycle import SegmentNode

pytestmark = pytest.mark.every_ros

ROOT = Path(__file__).parents[3]
NODES = {'clipseg': segment_parameters.DECLARATIONS, 'camera': camera_parameters.DECLARATIONS}
ALL = [(node, entry) for node, entries in NODES.items() for entry in entries.values()]
FLOATS = [one for one in ALL if isinstance(one[1].default, float)]
EMPTY = [one for one in ALL if isinstance(one[1].default, (str, list))]

Start = Callable[..., Any]


@pytest.fixture
def start(domain: int) -> Iterator[Start]:
    """Starts a node of a name, with ROS arguments."""
    with ExitStack() as ended:

        def make(name: str, *arguments: str) -> Any:
            context = Context()
            rclpy.init(context=context, domain_id=domain, args=['x', '--ros-args', *arguments])
            ended.callback(context.try_shutdown)
            if name == 'camera':
                picture = ROOT / 'docs' / 'images' / 'demo.png'
                source = [Parameter('source', value=str(picture))]
                made: Any = CameraNode(context=context, parameter_overrides=source)
            else:
                model: Any = CountingModel()
                model.check_settings = lambda settings: None
                off = [Parameter('autostart', value=False)]
                made = SegmentNode(load=lambda *_: model, context=context, parameter_overrides=off)
            ended.callback(made.destroy_node)
            ended.callback(made.close)
            return made

        yield make


def names_of(entries: list[tuple[str, Declaration]]) -> list[str]:
    return [f'{node}-{entry.name}' for node, entry in entries]


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, array.array) else value


def whole(entry: Declaration) -> int:
    """A whole number that the parameter may be."""
    return -1 if entry.low == -1.0 else 1


@pytest.mark.parametrize(('_', 'entry'), FLOATS, ids=names_of(FLOATS))
def test_a_whole_number_is_a_number(_: str, entry: Declaration) -> None:
    value = entry.typed(whole(entry))
    assert type(value) is float
    assert entry.find_problem(value) == ''


@pytest.mark.parametrize(('_', 'entry'), ALL, ids=names_of(ALL))
def test_null_is_empty_or_refused_by_name(_: str, entry: Declaration) -> None:
    for empty in (None, [], 'null', '~', ()):
        if isinstance(entry.default, (str, list)):
            assert entry.typed(empty) == type(entry.default)() or entry.typed(empty) == [0] * 4
        else:
            with pytest.raises(ParameterError, match=f'{entry.name} is empty: give'):
                entry.typed(empty)


@pytest.mark.parametrize(('_', 'entry'), ALL, ids=names_of(ALL))
def test_another_type_is_refused_by_name(_: str, entry: Declaration) -> None:
    wrong = {bool: 1, int: 1.5, float: 'much', str: False, list: 3}[type(entry.default)]
    with pytest.raises(ParameterError, match=f'^{entry.name} is '):
        entry.typed(wrong)


def test_a_text_that_yaml_takes_for_something_else_has_to_be_quoted(start: Start) -> None:
    for given in ('prompt:=no', 'prompt:=7', 'model:=7', 'target_frame:=1.0'):
        with pytest.raises(
            ParameterError, match=f'quote it twice, such as -p {given.split(":")[0]}'
        ):
            start('clipseg', '-p', given)


@pytest.mark.parametrize('text', ['2020-13-45', '!!bool maybe', '[' * 3000, 'a, ' * 900_000])
def test_what_a_text_of_before_is_to_yaml_does_not_matter(start: Start, text: str) -> None:
    node = start('clipseg')
    assert node.set_parameters([Parameter('target_frame', value=text)])[0].successful
    [result] = node.set_parameters([Parameter('target_frame', value=5)])
    assert not result.successful
    assert 'quote it twice' in result.reason
    [result] = node.set_parameters([Parameter('target_frame', value=None)])
    assert result.successful
    assert node.get_parameter('target_frame').value == ''


def test_whole_floats_are_integers(start: Start) -> None:
    node = start('clipseg', '-p', 'min_area:=1e3', '-p', 'roi:=[0.0, 0.0, 8.0, 9.0]')
    assert node.get_parameter('min_area').value == 1000
    assert plain(node.get_parameter('roi').value) == [0, 0, 8, 9]


@pytest.mark.parametrize(
    ('how', 'empty'),
    [('command line', []), ('file', []), ('file', None), ('live', []), ('client', None)],
)
@pytest.mark.parametrize('name', NODES)
def test_every_number_and_every_empty_value(
    start: Start, domain: int, tmp_path: Path, name: str, how: str, empty: Any
) -> None:
    values: dict[str, Any] = {e.name: whole(e) for n, e in FLOATS if n == name}
    # Those that can be set at any time, and may be empty.
    can_be_empty = [
        e
        for n, e in EMPTY
        if n == name and e.when == 'any time' and not e.find_problem(e.typed([]))
    ]
    # Not one list for all, which YAML would write as an alias.
    values |= {e.name: copy(empty) for e in can_be_empty}
    if how == 'command line':
        given = [
            word
            for key, value in values.items()
            for word in ('-p', f'{key}:={"null" if value is None else value}')
        ]
        node = start(name, *given)
    elif how == 'file':
        file = tmp_path / 'given.yaml'
        file.write_text(yaml.safe_dump({f'/**/{name}': {'ros__parameters': values}}))
        node = start(name, '--params-file', str(file))
    elif how == 'live':
        node = start(name)
        for key, value in values.items():
            [result] = node.set_parameters([Parameter(key, value=value)])
            assert result.successful, result.reason
        nothing = [Parameter(key) for key, value in values.items() if value == empty]
        assert not nothing or node.set_parameters_atomically(nothing).successful
    else:
        node = start(name)
        with spinning(node), closing(Peer(domain)) as peer:
            for key, value in values.items():
                answer = peer.set_parameter(f'/{name}', key, value)
                assert answer.successful, answer.reason
    for key, value in values.items():
        found = plain(node.get_parameter(key).value)
        wanted = NODES[name][key].typed([]) if value == empty else float(value)
        assert (type(found), found) == (type(wanted), wanted), key


@contextmanager
def spinning(node: Any) -> Iterator[None]:
    """Has a node answer its services."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    thread = Thread(target=executor.spin)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()


def values_of(node: Any) -> dict[str, Any]:
    parameters = node.get_parameters_by_prefix('').items()
    return {name: plain(parameter.value) for name, parameter in parameters}


def load_again(node: Any, file: Path) -> list[str]:
    """Dumps all parameters and loads them as `ros2 param` does; returns what is refused."""
    values = {
        name: plain(parameter.value)
        for name, parameter in node.get_parameters_by_prefix('').items()
    }
    assert len(values) > 8
    file.write_text(yaml.dump({f'/{node.get_name()}': {'ros__parameters': values}}))
    messages = parameter_dict_from_yaml_file(str(file), target_nodes=[f'/{node.get_name()}'])
    results = node.set_parameters([Parameter.from_parameter_msg(m) for m in messages.values()])
    assert values_of(node) == values
    return [result.reason for result in results if not result.successful]


def test_a_dump_loads_again(start: Start, tmp_path: Path) -> None:
    assert load_again(start('camera', '-p', 'rate:=5'), tmp_path / 'camera.yaml') == []
    node = start('clipseg', '-p', 'max_rate:=5', '-p', 'target_frame:="1.0"', '-p', 'model:="7"')
    assert load_again(node, tmp_path / 'waiting.yaml') == []
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert load_again(node, tmp_path / 'configured.yaml') == []
    assert not node.set_parameters([Parameter('model', value='other')])[0].successful
    assert not node.set_parameters([Parameter('autostart', value=True)])[0].successful


def test_types_that_clients_see_stay(start: Start) -> None:
    node = start('clipseg', '-p', 'max_rate:=5')
    descriptor = node.describe_parameter('max_rate')
    assert descriptor.type == ParameterType.PARAMETER_DOUBLE
    assert not descriptor.dynamic_typing
    for name in ('roi', 'prompt', 'overlay_colors'):
        assert node.set_parameters([Parameter(name)])[0].successful
        assert node.has_parameter(name)


def test_a_name_that_is_not_there(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    given = [
        'treshold:=0.5',
        'Max_Rate:=5.0',
        'zzz:=1',
        'qos_overrides./image.subscription.dept:=1',
    ]
    good = ['qos_overrides./image.subscription.depth:=1', 'use_sim_time:=false']
    node = start('clipseg', *(word for one in [*given, *good] for word in ('-p', one)))
    [line] = [line for line in capfd.readouterr().err.splitlines() if 'no parameter' in line]
    assert 'WARN' in line
    assert 'treshold (did you mean threshold?)' in line
    assert 'Max_Rate (did you mean max_rate?)' in line
    assert 'zzz' in line
    assert 'subscription.dept (did you mean qos_overrides.TOPIC' in line
    assert 'subscription.depth' not in line
    assert 'use_sim_time' not in line
    [result] = node.set_parameters([Parameter('treshold', value=0.5)])
    assert not result.successful
    assert 'did you mean threshold?' in result.reason


def test_nothing_is_near() -> None:
    assert explain_unknown(['b', 'a'], ['threshold']) == 'this node has no parameter a, b'


def test_what_a_client_may_hand_over() -> None:
    np = pytest.importorskip('numpy')
    for given, wanted in (
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([1, 2]), [1, 2]),
        ([0, np.int32(1), 2.5], [0.0, 1.0, 2.5]),
        (('a', 'b'), ['a', 'b']),
        ([True, False], [True, False]),
        ([], []),
        (None, None),
    ):
        assert _plain(given) == wanted
        assert type(_plain(given)) is type(wanted)
        Parameter('x', value=_plain(given))
