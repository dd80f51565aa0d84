"""A parameter is declared once: what the nodes, the files and the documentation make of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from clipseg_ros.camera import parameters as camera_parameters
from clipseg_ros.errors import ParameterError
from clipseg_ros.ros.given import declare
from clipseg_ros.ros.parameters import (
    Declaration,
    declarations_of,
    find_problem,
    group,
    parameter,
    read_settings,
)
from clipseg_ros.segment import parameters as segment_parameters

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / 'scripts'))

from make_reference import fill_tables, parameter_file, parameter_table  # noqa: E402

ALL = [*segment_parameters.DECLARATIONS.values(), *camera_parameters.DECLARATIONS.values()]


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context)
    made = rclpy.create_node(
        'example', context=context, parameter_overrides=[Parameter('patience', value=0.25)]
    )
    yield made
    made.destroy_node()
    context.try_shutdown()


@pytest.fixture(scope='module')
def example() -> Any:
    """The class of settings that CONTRIBUTING.md shows."""
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    [code] = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    # The module is known: dataclasses look up the names of annotations there.
    names = {'dataclass': dataclass, 'parameter': parameter, '__name__': __name__}
    exec(code, names)
    return names['Settings']


def test_the_example_of_contributing(node: Node, example: Any) -> None:
    declare(node, example)
    assert read_settings(example, node) == example(greeting='hello', patience=250)
    greeting, patience = node.describe_parameters(['greeting', 'patience'])
    assert greeting.description == 'Word that begins the log.'
    assert greeting.additional_constraints == (
        'hello or good day. Takes effect when the node is configured.'
    )
    [limits] = patience.floating_point_range
    assert (limits.from_value, limits.to_value) == (0.0, 60.0)

    declarations = declarations_of(example)
    assert find_problem(declarations, 'greeting', 'good day') == ''
    assert "'hi' is not one of hello, good day" in find_problem(declarations, 'greeting', 'hi')
    assert 'cleanup' in find_problem(declarations, 'greeting', 'hello', configured=True)
    assert not node.set_parameters([Parameter('patience', value=61.0)])[0].successful

    table = parameter_table(declarations)
    rows = table.splitlines()
    assert rows[2] == (
        '| `greeting` | string | `hello` | hello or good day. | configure | '
        'Word that begins the log. |'
    )
    assert '| `patience` | double | `2.0` | 0 … 60 | any time |' in rows[3]
    page = fill_tables(
        '<!-- parameters of example -->\n\n| old |\n\nMore.', {'example': declarations}
    )
    assert page == f'<!-- parameters of example -->\n\n{table}\nMore.'
    file = yaml.safe_load(parameter_file('example', 'example', declarations))
    assert file == {'/**/example': {'ros__parameters': {'greeting': 'hello', 'patience': 2.0}}}


def test_groups_and_readers(node: Node) -> None:
    def read_even(value: int) -> int:
        if value % 2:
            raise ParameterError(f'{value} is odd')
        return value

    @dataclass(frozen=True)
    class Inner:
        on: bool = parameter(True, 'Whether.', name='inner')

    @dataclass(frozen=True)
    class Outer:
        even: int = parameter(2, 'Even.', low=0, high=9, read=read_even)
        inner: Inner = group(Inner)

    assert list(declarations_of(Outer)) == ['even', 'inner']
    declare(node, Outer)
    assert read_settings(Outer, node) == Outer() == Outer(2, Inner(True))
    assert find_problem(declarations_of(Outer), 'even', 3) == 'even: 3 is odd'
    with pytest.raises(ValueError, match='no line'):
        fill_tables('', {'outer': declarations_of(Outer)})


def test_a_wrong_value_at_start(node: Node) -> None:
    @dataclass(frozen=True)
    class Settings:
        patience: float = parameter(2.0, 'Seconds.', low=1.0, high=9.0)

    with pytest.raises(InvalidParameterValueException, match='patience'):
        declare(node, Settings)


@pytest.mark.parametrize('declaration', ALL, ids=lambda declaration: declaration.name)
def test_every_parameter_is_described_and_its_default_is_good(declaration: Declaration) -> None:
    descriptor = declaration.descriptor()
    assert descriptor.description.endswith('.')
    assert declaration.find_problem(declaration.default) == ''
    limits = [*descriptor.floating_point_range, *descriptor.integer_range]
    assert len(limits) == (type(declaration.default) in (float, int))
    for limit in limits:
        assert limit.from_value <= declaration.default <= limit.to_value


@pytest.mark.parametrize('declaration', ALL, ids=lambda declaration: declaration.name)
def test_links_lead_somewhere(declaration: Declaration) -> None:
    page, _, anchor = declaration.link.partition('#')
    text = (ROOT / 'docs' / (page or 'nodes.md')).read_text()
    titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
    anchors = {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}
    assert not anchor or anchor in anchors


def problem_of(name: str, value: Any, configured: bool = False) -> str:
    return find_problem(segment_parameters.DECLARATIONS, name, value, configured)


def test_what_takes_effect_at_configuring_is_refused_after_it() -> None:
    assert problem_of('model', 'other') == ''
    assert 'cleanup' in problem_of('model', 'other', configured=True)
    assert problem_of('threshold', 0.3, configured=True) == ''
    assert problem_of('use_sim_time', True, configured=True) == ''


@pytest.mark.parametrize(
    ('name', 'good', 'bad'),
    [
        ('device', ['auto', 'cpu', 'cuda', 'cuda:3'], ['gpu', '', 'cuda:', 'cuda:x']),
        ('runtime', ['eager', 'openvino', 'auto'], ['onnx', '']),
        ('precision', ['fp32', 'bf16', 'int8'], ['float32', '']),
        ('threshold', [-1.0, 0.001, 0.5, 0.999], [0.0, 1.0, -0.2, float('nan')]),
        ('image_transport', ['raw', 'compressed'], ['theora', '']),
        ('image_backend', ['builtin', 'cv_bridge'], ['opencv', '']),
        ('model', ['tabletop', '/some/file.safetensors'], ['', '  ']),
        (
            'roi',
            [[0, 0, 0, 0], [], [0, 0, 1, 1], [5, 6, 640, 480]],
            [
                [0, 0, 0, 5],
                [-1, 0, 5, 5],
                [1, 2, 3],
                [0, 0, 1.5, 2],
                [1, 1, 0, 0],
                'all',
                3,
                None,
                [0, 0, 10**7, 5],
                [True, True, True, True],
            ],
        ),
        (
            'prompt',
            ['', 'mug', ['mug', 'bowl'], []],
            [
                None,
                3,
                [1, 2],
            ],
        ),
    ],
)
def test_checks(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert problem_of(name, value) == ''
    for value in bad:
        assert name in problem_of(name, value)
