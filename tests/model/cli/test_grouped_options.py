"""Dataclasses of options as parameters of a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from clipseg_command import squeezed
from typer.testing import CliRunner

from clipseg_model.cli.options import grouped


@dataclass(frozen=True)
class Options:
    size: Annotated[int, typer.Option('--size', '-s', min=1, help='How large.')]
    names: Annotated[list[str] | None, typer.Option('--name', help='Repeatable.')] = None
    loud: bool = False


seen: list[tuple[Any, ...]] = []
app = typer.Typer()


@app.command()
@grouped
def greet(first: Annotated[str, typer.Argument()], options: Options, last: str = 'x') -> None:
    """Greet somebody."""
    seen.append((first, options, last))


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['a', '-s', '2'], ('a', Options(2), 'x')),
        (
            ['a', '--size', '3', '--name', 'b', '--name', 'c', '--loud', '--last', 'd'],
            ('a', Options(3, ['b', 'c'], True), 'd'),
        ),
    ],
)
def test_the_command_gets_the_dataclass(words: list[str], expected: tuple[Any, ...]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 0
    assert seen.pop() == expected


@pytest.mark.parametrize(
    ('words', 'message'),
    [(['a'], "Missing option '--size'"), (['a', '-s', '0'], 'Invalid value')],
)
def test_fields_are_options_like_others(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert message in result.output


def test_help_tells_of_them() -> None:
    text = squeezed(CliRunner().invoke(app, ['--help']).output)
    for part in ('Greet somebody.', '--size', 'How large.', '--name', '--loud', '--last'):
        assert part in text
