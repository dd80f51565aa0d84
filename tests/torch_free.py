"""An environment that holds what this one does, but for torch and what makes exports with it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.without_torch import HIDDEN

_NEVER = ('__editable__', '__pycache__')  # A checkout is found by PYTHONPATH.


def make_environment(folder: Path) -> Path:
    """Make a virtual environment of links, which takes a second; return its Python."""
    command = [sys.executable, '-m', 'venv', '--without-pip', '--symlinks', folder]
    subprocess.run(command, check=True)
    (own,) = folder.glob('lib/python3*/site-packages')
    for path in _packages(Path(sysconfig.get_path('purelib'))):
        name = path.name.partition('-')[0].partition('.')[0]
        if name not in HIDDEN and not path.name.startswith(_NEVER):
            (own / path.name).symlink_to(path)
    # ROS's libraries lie beside, and what its packages share.
    for kind in ('lib', 'share'):
        (folder / kind).mkdir(exist_ok=True)
        for path in (Path(sys.prefix) / kind).glob('*'):
            if not (folder / kind / path.name).exists():
                (folder / kind / path.name).symlink_to(path)
    return folder / 'bin' / 'python'


def _packages(folder: Path) -> Iterator[Path]:
    """What can be imported of a folder, and of those that its .pth files name."""
    for path in folder.iterdir():
        lines = path.read_text().split() if path.suffix == '.pth' else []
        folders = [Path(line) for line in lines if Path(line).is_dir()]
        for each in folders:
            yield from _packages(each)
        if not folders:
            yield path


def variables(root: Path, **more: str) -> dict[str, str]:
    """Return the environment variables of a process of it that runs a checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith('_ROS_WHEELS')}
    for key in ('PYTEST_XDIST_WORKER', 'PYTEST_CURRENT_TEST', 'VIRTUAL_ENV'):
        kept.pop(key, None)
    # The libraries of the package's messages, and not those of this environment.
    libraries = kept.pop('LD_LIBRARY_PATH', '').split(':')
    kept['LD_LIBRARY_PATH'] = ':'.join(p for p in libraries if not p.startswith(sys.prefix))
    return {**kept, 'PYTHONPATH': f'{root}:{kept.get("PYTHONPATH", "")}', **more}
