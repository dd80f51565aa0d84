"""The parameters of a node for people: tables of the documentation, and files of ``config/``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from clipseg_ros.ros.parameters import Declaration

TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string', list: 'integers, as a list'}

HEADINGS = {
    'configure': 'Effective when the node is configured.',
    'any time': 'Changeable at any time.',
    'start': 'At start only.',
}

FILE = """\
# Parameters of the node `{executable}` with their defaults; docs/nodes.md has more on them.
# Written by scripts/make_reference.py from what the node declares. Copy it to change it:
#     ros2 run clipseg_ros {executable} --ros-args --params-file {executable}.yaml
/**/{node}:
  ros__parameters:
"""

QOS = """
    # Quality of service of any topic, by its resolved name:
    # qos_overrides:
    #   /image:
    #     subscription:
    #       reliability: reliable
"""


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ['| ' + ' | '.join(heading) + ' |']
    lines.append('|---' * lines[0].count(' | ') + '|---|')
    lines += ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows]
    return lines


def parameter_table(declarations: Mapping[str, Declaration], links: bool = False) -> list[str]:
    """Return the lines of a table of parameters.

    Args:
        declarations: The parameters.
        links: Whether names link to what says more, relative to docs/nodes.md.
    """
    heading = ('parameter', 'type', 'default', 'values', 'can be set', 'meaning')
    return table(heading, (_row(entry, links) for entry in declarations.values()))


def fill_tables(text: str, nodes: Mapping[str, Mapping[str, Declaration]]) -> str:
    """Return a page with its tables of parameters written anew.

    Args:
        text: The page; ``<!-- parameters of NAME -->`` stands on the line before the table.
        nodes: The parameters of each node, by NAME.

    Raises:
        ValueError: The page has no place for the table of a node.
    """
    for name, declarations in nodes.items():
        mark = f'<!-- parameters of {name} -->\n'
        if mark not in text:
            raise ValueError(f'the page has no line {mark.strip()!r} for the table of parameters')
        before, after = text.split(mark)
        rest = re.sub(r'\A\n*(\|.*\n)*\n*', '', after)
        lines = '\n'.join(parameter_table(declarations, links=True))
        text = f'{before}{mark}\n{lines}\n\n{rest}'
    return text


def parameter_file(executable: str, node: str, declarations: Mapping[str, Declaration]) -> str:
    """Return the parameter file of a node, with the defaults.

    Args:
        executable: What runs the node.
        node: Its name.
        declarations: Its parameters.
    """
    text = FILE.format(executable=executable, node=node)
    for when, heading in HEADINGS.items():
        entries = [entry for entry in declarations.values() if entry.when == when]
        text += f'\n    # --- {heading}\n\n' if entries else ''
        for entry in entries:
            text += f'{_comment(entry)}\n    {entry.name}: {_yaml(entry.default)}\n'
    return text + QOS


def _comment(entry: Declaration) -> str:
    values = _values(entry)
    said = f'{entry.description} Values: {values}' if values else entry.description
    return textwrap.fill(said, 100, initial_indent='    # ', subsequent_indent='    # ')


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True)).splitlines()[0]


def _values(entry: Declaration) -> str:
    limits = () if entry.low is None else (f'{entry.low:,.15g} … {entry.high:,.15g}',)
    return '; '.join((*limits, *filter(None, [entry.allowed])))


def _row(entry: Declaration, links: bool) -> list[str]:
    kind = TYPES[type(entry.default)]
    default = str(entry.default).lower() if kind == 'bool' else str(entry.default)
    name = f'`{entry.name}`'
    return [
        f'[{name}]({entry.link})' if links and entry.link else name,
        f'{kind}, or a list of it' if entry.any_type and kind == 'string' else kind,
        f'`{default}`' if default else "`''`",
        _values(entry),
        entry.when,
        entry.description,
    ]
