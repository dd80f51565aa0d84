"""What docs/reference.md says of the nodes' topics."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'reference.md'


def topics(node: str) -> list[tuple[str, str, str, str]]:
    """Topics of a node with the default names: full name, ``in`` or ``out``, type, QoS.

    The QoS is what the page says; of the camera it says none.
    """
    section = PAGE.read_text().split(f'\n## {node}\n')[1].split('\n### Topics\n')[1]
    found = []
    for line in section.split('\n### ')[0].splitlines():
        row = re.match(r'\| `([^`]+)`( \(in\))? \| (\w+)/(\w+) \| ([^|]+) \|', line)
        if row is None:
            continue
        name = row[1].replace('~', '/clipseg') if row[1][0] == '~' else '/' + row[1].lstrip('/')
        qos = row[5] if node == 'segment' else ''
        found.append((name, 'in' if row[2] else 'out', f'{row[3]}/msg/{row[4]}', qos))
    assert found, f'{PAGE.name} has no table of the topics of {node}'
    return found
