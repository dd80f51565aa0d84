"""The long fuzz run: damaged files, structures and storms, from one seed, with one report.

    make fuzz                                an hour, report in fuzz/report.json
    make fuzz ARGS='--seconds 600 --seed 5'

Exits with 1 where anything was found. Inputs that fail are kept beside the report; reduce one, put
it into tests/fuzz/corpus, and it is read by every run of the tests from then on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.files import ROOT, fuzz

STORM = 240.0
"""Seconds of a storm, before a minute of normal work; then comes another node."""

_STRUCTURES = 0.1  # Share of the time.
_EXAMPLES_A_SECOND = 20


def storms(seed: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Run one storm after the other, at raw and at compressed images, a new node each."""
    found = []
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline - 60.0 or not number:
        left = max(10.0, deadline - time.monotonic() - 60.0)
        report = folder / f'storm-{number}.json'
        words = ['--seed', str(seed + number), '--seconds', f'{min(left, STORM):.0f}']
        words += ['--compressed'] if number % 2 else []
        done = subprocess.run(
            [sys.executable, '-m', 'tests.fuzz.storm', *words, '--report', report],
            env={**os.environ, 'PYTHONPATH': _path('tests/ros')},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if report.is_file():
            found.append(json.loads(report.read_text()))
        else:
            found.append({'seed': seed + number, 'messages': 0, 'problems': [done.stderr[-3000:]]})
        number += 1
    return found


def structures(seed: int, seconds: float) -> dict[str, Any]:
    """Run the tests of structures with more examples than continuous integration has."""
    examples = max(200, int(seconds * _EXAMPLES_A_SECOND / 8))
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--timeout', '3600',
         f'--hypothesis-seed={seed}', 'tests/fuzz/test_fuzz_structures.py'],
        env={**os.environ, 'FUZZ_EXAMPLES': str(examples)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    problems = [] if done.returncode == 0 else [done.stdout[-5000:]]
    return {'examples_each': examples, 'seed': seed, 'problems': problems}


def _path(*folders: str) -> str:
    paths = [str(ROOT), *(str(ROOT / folder) for folder in folders)]
    return os.pathsep.join([*paths, os.environ.get('PYTHONPATH', '')])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--seconds', type=float, default=3600.0)
    parser.add_argument('--folder', type=Path, default=Path('fuzz'))
    given = parser.parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(storms, given.seed, given.seconds, folder)
        shapes = structures(given.seed, given.seconds * _STRUCTURES)
        left = given.seconds - (time.monotonic() - started)
        files = fuzz(given.seed, folder, seconds=max(10.0, left))
        weather = beside.result()
    problems = [
        *shapes['problems'],
        *(json.dumps(failure) for failure in files['failures']),
        *(problem for storm in weather for problem in storm['problems']),
    ]
    report = {
        'seed': given.seed,
        'seconds': round(time.monotonic() - started),
        'files': files['files'],
        'messages': sum(storm['messages'] for storm in weather),
        'problems': len(problems),
        'details': {'structures': shapes, 'files': files, 'storms': weather},
    }
    (folder / 'report.json').write_text(json.dumps(report, indent=2, ensure_ascii=False) + '\n')
    print(json.dumps({name: report[name] for name in list(report)[:5]}))
    for problem in problems[:20]:
        print(problem[:500])
    return 1 if problems else 0


if __name__ == '__main__':
    raise SystemExit(main())
