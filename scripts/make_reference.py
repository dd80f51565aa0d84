#!/usr/bin/env python3
"""Write what the nodes declare: pages of docs/ and the parameter files of config/.

    python scripts/make_reference.py [--check]

The tables of parameters in docs/nodes.md and docs/reference.md, config/segment.yaml and
config/camera.yaml come from the declarations of the parameters. docs/reference.md has the tables
of topics and services of docs/nodes.md too, which tests hold against a running node, and the
package's messages.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clipseg_model.outputs.palette import PALETTE  # noqa: E402
from clipseg_model.prompts import MAX_PROMPTS  # noqa: E402
from clipseg_ros.camera import parameters as camera_parameters  # noqa: E402
from clipseg_ros.ros.parameters import Declaration  # noqa: E402
from clipseg_ros.segment import parameters as segment_parameters  # noqa: E402

Declarations = Mapping[str, Declaration]

NODES: dict[str, Declarations] = {
    'segment': segment_parameters.DECLARATIONS,
    'camera': camera_parameters.DECLARATIONS,
}

TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string', list: 'integers, as a list'}

TIMES = {
    'configure': 'Effective when the node is configured.',
    'any time': 'Changeable at any time.',
    'start': 'At start only.',
}

REFERENCE = """\
# Reference

<!-- Written by scripts/make_reference.py from what the nodes declare. Do not edit. -->

Every topic, service, parameter and message of the nodes; [nodes.md](nodes.md) explains them. Names
that begin with `~/` are private: `~/mask` of the node `clipseg` is `/clipseg/mask`. The QoS of
every topic can be changed (`qos_overrides`). What has a type of clipseg_ros or of vision_msgs is
there if these messages are. The services of every node (parameters) and of every managed node
(`~/change_state` and so on) are left out.
"""

COLOURS = """\
Of `~/overlay`, `~/labels/color`, `~/markers` and the [console](console.md), by id; how far apart
they are stands in [nodes.md](nodes.md#colours). Id 12 is in the row "10 +", column 2.
"""

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


def parameter_table(declarations: Declarations, links: bool = False) -> str:
    """Return a Markdown table of parameters.

    Args:
        declarations: The parameters.
        links: Whether names link to what says more, relative to docs/nodes.md.
    """
    rows = [
        ['parameter', 'type', 'default', 'values', 'can be set', 'meaning'],
        ['---'] * 6,
        *(_cells(declaration, links) for declaration in declarations.values()),
    ]
    lines = ('| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |\n' for row in rows)
    return ''.join(lines)


def fill_tables(text: str, nodes: Mapping[str, Declarations]) -> str:
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
        text = f'{before}{mark}\n{parameter_table(declarations, links=True)}\n{rest}'
    return text


def parameter_file(executable: str, node: str, declarations: Declarations) -> str:
    """Return the parameter file of a node, with the defaults.

    Args:
        executable: What runs the node.
        node: Its name.
        declarations: Its parameters.
    """
    text = FILE.format(executable=executable, node=node)
    for when, heading in TIMES.items():
        entries = [entry for entry in declarations.values() if entry.when == when]
        text += f'\n    # --- {heading}\n\n' if entries else ''
        for entry in entries:
            default = str(yaml.safe_dump(entry.default, default_flow_style=True)).splitlines()[0]
            text += f'{_comment(entry)}\n    {entry.name}: {default}\n'
    return text + QOS


def reference_page(nodes_page: str) -> str:
    """Return docs/reference.md.

    Args:
        nodes_page: docs/nodes.md, which has the tables of topics and services.
    """
    parts = [REFERENCE]
    for node, declarations in NODES.items():
        parts.append(f'## {node}\n')
        section = nodes_page.split(f'\n## {node}\n')[1].split('\n## ')[0]
        for heading in ('topic', 'service'):
            found = re.search(rf'^\| {heading} \|.*\n(\|.*\n)+', section, re.MULTILINE)
            if found is not None:
                table = found.group().replace('](#', '](nodes.md#')
                parts.append(f'### {heading.title()}s\n\n{table}')
        parts.append(f'### Parameters\n\n{parameter_table(declarations)}')
    parts.append('## Messages and services\n')
    for path in sorted([*ROOT.glob('msg/*.msg'), *ROOT.glob('srv/*.srv')]):
        name = f'clipseg_ros/{path.suffix[1:]}/{path.stem}'
        parts.append(f'### {name}\n\n```\n{path.read_text(encoding="utf-8").strip()}\n```\n')
    parts.append(f'## Label colours\n\n{COLOURS}\n{colour_table()}')
    return '\n'.join(parts)


def colour_table() -> str:
    """Return a Markdown table of the colours of ids, ten to a row."""
    rows = [['ids', *map(str, range(10))], ['---'] * 11]
    for tens in range(26):
        ids = [10 * tens + unit for unit in range(10)]
        hexes = [PALETTE[i].tobytes().hex() if 1 <= i <= MAX_PROMPTS else '' for i in ids]
        rows.append([f'{10 * tens} +', *(f'`#{value}`' if value else '' for value in hexes)])
    return ''.join('| ' + ' | '.join(row) + ' |\n' for row in rows)


def make_files() -> dict[str, str]:
    """Return the text of every file that is written, by its path in the repository."""
    nodes = fill_tables((ROOT / 'docs' / 'nodes.md').read_text(encoding='utf-8'), NODES)
    return {
        'docs/nodes.md': nodes,
        'docs/reference.md': reference_page(nodes),
        'config/segment.yaml': parameter_file('segment', 'clipseg', NODES['segment']),
        'config/camera.yaml': parameter_file('camera', 'camera', NODES['camera']),
    }


def main() -> int:
    """Write the files, or only say which of them are stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail if one is stale')
    check = parser.parse_args().check
    texts = {ROOT / path: text for path, text in make_files().items()}
    stale = [path for path, text in texts.items() if path.read_text(encoding='utf-8') != text]
    for path in stale:
        if check:
            print(f'{path.relative_to(ROOT)} is stale: make reference', file=sys.stderr)
        else:
            path.write_text(texts[path], encoding='utf-8')
    return 1 if check and stale else 0


def _comment(entry: Declaration) -> str:
    values = _values(entry)
    said = f'{entry.description} Values: {values}' if values else entry.description
    return textwrap.fill(said, 100, initial_indent='    # ', subsequent_indent='    # ')


def _values(entry: Declaration) -> str:
    limits = () if entry.low is None else (f'{entry.low:,.15g} … {entry.high:,.15g}',)
    return '; '.join((*limits, *filter(None, [entry.allowed])))


def _cells(entry: Declaration, links: bool) -> list[str]:
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


if __name__ == '__main__':
    raise SystemExit(main())
