"""What YAML takes away from a command line is noticed, and how to keep it is said."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.context import Context

from clipseg_ros.process.command_line import explain_unread, find_eaten
from clipseg_ros.process.runner import run_node
from tests.fuzz.mutations import guarded

ANY = ParameterDescriptor(dynamic_typing=True)


def words(*values: str) -> list[str]:
    return ['segment', '--ros-args', *(word for value in values for word in ('-p', value))]


def value_of(*values: str) -> object:
    """What a node gets as its parameter `prompt`."""
    context = Context()
    rclpy.init(context=context, args=words(*values))
    try:
        node = rclpy.create_node('clipseg', context=context)
        value = node.declare_parameter('prompt', '', ANY).value
        node.destroy_node()
    finally:
        context.try_shutdown()
    return value


TAGGED = [
    '!the vase; the mug',
    '!  the vase',
    '[the mug, !the vase]',
    '!the vase',
    '!x "a mug"',
    '!a: b',
]
ANCHORED = ['&a the mug', '[the mug, &b a bowl]', '&a "the mug"', '&a [the mug]']
CUT = {
    'the mug #2; a bowl': '#2; a bowl for a comment',
    'the mug #': '# for a comment',
    'the mug \t#2': '#2 for a comment',
    'the mug\n# 2': '# 2 for a comment',
    '[the mug #1\n, a bowl]': '#1 for a comment',
    '#2': 'all of it for a comment',
    ' # 2; the mug': 'all of it for a comment',
    'the mug\na bowl': "'the mug a bowl'",
    '--- the mug': "'the mug'",
}
"""Text that is cut, or joined → what is said of it."""

EATEN = [*TAGGED, *ANCHORED, *CUT]
UNREAD = ['grass: short green grass', '!vase', '*a', '&a; b', '@a', '%a', 'mug: ', 'a: b; c', '']
KEPT = [
    'the mug; !the vase',
    ';!the vase; the mug',
    '; !the vase',
    'grass:short green grass',
    '"!the vase"',
    "'!the vase'",
    '[the mug, "!the vase"]',
    '!!str 7',
    'the mug#2; a & b, &c',
    ';&a the mug',
    '"the mug #2; a bowl"',
    '"&a the mug"',
    '"the mug" # as a text',
    '[the mug, "a bowl"] # as a list',
    "'the mug\n\n a bowl'",
    '[the mug,\n a bowl]',
    '0.5 # low',
    ' the mug ',
    'null',
    'what a mug!',
    '-1',
]


@pytest.mark.parametrize('text', [*TAGGED, *ANCHORED])
def test_a_tag_or_an_anchor_is_told(text: str) -> None:
    said = find_eaten(words('threshold:=0.5', f'prompt:={text}'))
    mark, kind = ('!', 'a tag') if text in TAGGED else ('&', 'an anchor')
    assert said.startswith(f'prompt:={text}: YAML takes {mark}')
    assert f' for {kind} and drops it, which leaves' in said


@pytest.mark.parametrize(('text', 'told'), CUT.items())
def test_a_cut_is_told(text: str, told: str) -> None:
    assert value_of(f'prompt:={text}') != text
    said = find_eaten(words('threshold:=0.5', f'prompt:={text}'))
    assert said.startswith(f'prompt:={text}: YAML ')
    assert told in said


@pytest.mark.parametrize('text', UNREAD)
def test_what_rcl_cannot_read_is_told(text: str) -> None:
    given = words('threshold:=0.5', f'prompt:={text}', 'device:=cpu')
    with pytest.raises(RuntimeError):
        value_of(f'prompt:={text}')
    assert f'prompt:={text}' in (find_eaten(given) or explain_unread(given))


@pytest.mark.parametrize('text', KEPT)
def test_what_rcl_reads_is_left_alone(text: str) -> None:
    assert find_eaten(words(f'prompt:={text}')) == ''
    value_of(f'prompt:={text}')


@pytest.mark.parametrize('text', [*EATEN, *UNREAD[:-1]])
def test_the_remedy_helps(text: str) -> None:
    given = words(f'prompt:={text}')
    said = find_eaten(given) or explain_unread(given)
    remedy = said.split(' twice, -p ')[1].split('; prompts may')[0]
    [typed] = shlex.split(remedy)
    assert value_of(typed) == text


def test_only_ros_arguments_count(tmp_path: Path) -> None:
    assert find_eaten(['x', '-p', 'prompt:=!the vase']) == ''
    assert find_eaten(['x', '--ros-args', '--', '-p', 'prompt:=!the vase']) == ''
    assert find_eaten(['x', '--ros-args', '-p']) == ''
    assert find_eaten(['x', '--ros-args', '--param', 'prompt:=!the vase']) != ''
    assert find_eaten(['x', '--ros-args', '--params-file', str(tmp_path / 'none')]) == ''


@pytest.mark.parametrize('kind', ['pipe', 'zero', 'large', 'bytes'])
def test_a_file_that_is_none_is_left_to_rcl(tmp_path: Path, kind: str) -> None:
    file = tmp_path / 'a'
    if kind == 'pipe':
        os.mkfifo(file)
    elif kind == 'zero':
        file.symlink_to('/dev/zero')
    elif kind == 'large':
        with file.open('wb') as opened:
            opened.truncate(1 << 34)
    else:
        file.write_bytes(b'\xff\xfe!x y')
    with guarded(2, 300 << 20):
        assert find_eaten(['x', '--ros-args', '--params-file', str(file)]) == ''


@pytest.mark.parametrize('text', ['x: !!bool maybe', '!!timestamp x', '[' * 3000, '2020-13-45'])
def test_values_that_break_readers_of_yaml_are_explained(text: str) -> None:
    with guarded(2, 300 << 20):
        assert 'YAML cannot read this value' in explain_unread(words(f'prompt:={text}'))


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / 'mine.yaml'
    text = '/**:\n  ros__parameters:\n    threshold: 0.5\n    prompt: {}\n'
    given = ['x', '--ros-args', '--params-file', str(file)]
    file.write_text(text.format('!the vase; the mug'))
    said = find_eaten(given)
    assert said.startswith(f'{file}, line 4: YAML takes !the for a tag')
    assert '"!the vase; the mug"' in said
    file.write_text(text.format('&the vase; the mug'))
    said = find_eaten(given)
    assert said.startswith(f'{file}, line 4: YAML takes &the for an anchor')
    assert '"&the vase; the mug"' in said
    meant = ['"!the vase"', '"&the vase"', 'the mug  # the red one', 'the mug\n      with a lid']
    for value in [*meant, 'x\n    rate: &rate 5.0', 'x\n    rates: &all [5.0]']:
        file.write_text(text.format(value))
        assert find_eaten(given) == '', value


@pytest.mark.parametrize(
    'text', ['!the vase; the mug', '&the vase', 'the mug #2; a bowl', 'grass: short green grass']
)
def test_a_node_does_not_start_with_it(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    made: list[object] = []
    assert run_node(lambda: made.append(1), words(f'prompt:={text}')) == 1
    assert made == []
    said = capfd.readouterr().err
    assert f'cannot start: prompt:={text}: YAML' in said
    assert f"""-p prompt:='"{text}"'""" in said
