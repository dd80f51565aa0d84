"""What the pages of the docs show: Python that runs, and commands whose options exist."""

from __future__ import annotations

import re
import shlex

from typer.testing import CliRunner

from clipseg_model.cli.app import app


def run_python(page: str) -> int:
    """Run the Python blocks of a page one after another, with the same names; return how many."""
    blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    return len(blocks)


def check_options(page: str) -> int:
    """Look for the options of a page's `clipseg` commands in their help; return how many commands.

    Raises:
        AssertionError: An option is not there.
    """
    commands = re.findall(r'^\$ clipseg (.*)$', page, re.MULTILINE)
    for command in commands:
        name, *arguments = shlex.split(command)
        help_text = CliRunner().invoke(app, [name, '--help'], env={'COLUMNS': '200'}).output
        for argument in arguments:
            if argument.startswith('-'):
                assert argument in help_text, command
    return len(commands)
