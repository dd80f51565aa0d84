"""Reads damaged files in processes of their own, with ceilings of memory and time for each.

    python -m tests.fuzz.files --seed 1 --seconds 60 --kept FOLDER --report FILE
    python -m tests.fuzz.files --seed 1 --first 731 --count 1

A file is read, or refused by an error of ours that says why; anything else is a failure: another
exception, a signal, a lack of memory, an endless wait, a file that was left. Then the input is kept
in FOLDER, and the next one is read by a new process. Input n of a seed is always the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.long_runs import report

ROOT = Path(__file__).parents[2]
MEMORY = 2 << 30
"""Bytes that a reader may take beyond what the process has."""

CPU_SECONDS = 20
WAIT_SECONDS = 200
_IN_A_ROW = 20  # Inputs of a kind, before those of the next.
_PATHS = ('', 'tests/model/cli', 'tests/model/small_models', 'tests/model/weights',
          'tests/ros', 'tests/ros/bag')  # fmt: skip


def fuzz(
    seed: int,
    kept: Path,
    first: int = 0,
    count: int = 1 << 40,
    seconds: float = 1e9,
    kinds: str = '',
    corpus: Path | None = None,
) -> dict[str, Any]:
    """Read files until there were ``count`` or ``seconds`` have passed.

    Args:
        seed: Of the inputs.
        kept: Folder for inputs that fail; made where there are any.
        first: Number of the first input.
        count: Most inputs.
        seconds: Longest time.
        kinds: Names separated by commas; all where empty.
        corpus: Folder with a folder for each kind, whose entries are read as they are instead.

    Returns:
        The numbers of inputs by kind and outcome, the failures, and the most memory of a process.
    """
    outcomes: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    peak, number, stop = 0, first, first + count
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while number < stop and time.monotonic() < deadline:
            scratch = Path(folder) / 'scratch'
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            left = max(0.0, deadline - time.monotonic())
            samples = f'{folder}/samples' if corpus is None else str(corpus)
            words = [str(seed), str(number), str(stop), f'{left:.3f}', samples, kinds]
            words.append('' if corpus is None else 'as they are')
            done = _run_worker(words, scratch)
            told = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == '{']
            for line in told:
                if 'outcome' in line:
                    outcomes[f'{line["kind"]}: {line["outcome"]}'] += 1
                    number = line['input'] + 1
                peak = max(peak, line.get('peak_kb', 0))
            if done.returncode == 0:
                break
            if not told or 'outcome' in told[-1]:
                raise RuntimeError(f'the process of the readers failed:\n{done.stderr[-3000:]}')
            failed = told[-1]
            number = failed['input'] + 1
            outcomes[f'{failed["kind"]}: failed'] += 1
            failures.append({**failed, 'status': done.returncode, 'said': done.stderr[-3000:]})
            shutil.copytree(scratch, kept / f'{seed}-{failed["input"]}', dirs_exist_ok=True)
    return {
        'seed': seed,
        'files': sum(outcomes.values()),
        'first': first,
        'outcomes': dict(sorted(outcomes.items())),
        'failures': failures,
        'peak_mb': peak // 1000,
    }


def _run_worker(words: list[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / path) for path in _PATHS]
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([*paths, os.environ.get('PYTHONPATH', '')]),
        'OPENCV_LOG_LEVEL': 'OFF',
        'HF_HUB_OFFLINE': '1',
        'OMP_NUM_THREADS': '1',
    }
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'tests.fuzz.files', '--worker', *words],
        env=environment,
        cwd=scratch,
        capture_output=True,
        text=True,
        errors='replace',
        check=False,
    )


def work(
    seed: int, first: int, stop: int, seconds: float, samples: Path, names: str, whole: bool
) -> None:
    """Read inputs, with a line of JSON before and after each; end at the first that fails.

    Where they are to stay ``whole``, each entry of a kind's folder is read once, as it is.
    """
    from clipseg_model.errors import ClipsegError
    from tests.fuzz.bags import make_bags, read_bag
    from tests.fuzz.damage import damage
    from tests.fuzz.kinds import KINDS, Kind
    from tests.fuzz.mutations import guarded, lacked_memory

    deadline = time.monotonic() + seconds
    every = {**KINDS, 'bags': Kind(make_bags, read_bag)}
    kinds = {name: every[name] for name in (names.split(',') if names else every)}
    entries = [(name, path) for name in kinds for path in sorted((samples / name).glob('*'))]
    for name, kind in kinds.items():
        if not whole and not (samples / name).is_dir():
            (samples / name).mkdir(parents=True)
            kind.make(samples / name)
    others = {
        name: [path.read_bytes() for path in sorted((samples / name).rglob('*')) if path.is_file()]
        for name in kinds
    }
    # Where it is given to a reader that takes a name, and where it writes.
    place, out = Path('input'), Path('out')
    ordered = list(kinds)
    for number in range(first, min(stop, len(entries)) if whole else stop):
        if time.monotonic() > deadline:
            break
        name = ordered[number // _IN_A_ROW % len(ordered)]
        rng = np.random.default_rng([seed, number])
        if whole:
            name, chosen = entries[number]
        else:
            sound = sorted((samples / name).iterdir())
            chosen = sound[rng.integers(0, len(sound))]
        for path in (place, out):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        path = place.absolute() / chosen.name
        (shutil.copytree if chosen.is_dir() else shutil.copy)(chosen, path)
        damaged = 'nothing' if whole else damage(path, rng, others[name])
        told = {'kind': name, 'input': number, 'sample': chosen.name, 'damaged': damaged}
        print(json.dumps(told), flush=True)
        before = sorted(str(entry) for entry in Path().rglob('*') if out not in entry.parents)
        # No handler: a signal ends the process, whatever native code it is in.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        found: BaseException | None = None
        try:
            with guarded(WAIT_SECONDS, MEMORY):
                kinds[name].read(path, out.absolute())
        except BaseException as error:
            found = error
        signal.setitimer(signal.ITIMER_PROF, 0)
        if found is not None and not isinstance(found, ClipsegError):
            raise found
        reason = str(found)
        if found is not None and (
            lacked_memory(found)
            or not 20 < len(reason) < 50_000
            or 'weights_only' in reason
            or 'Traceback' in reason
        ):
            traceback.print_exception(found)
            raise AssertionError(f'refused for no reason of ours: {reason[:300]}')
        after = sorted(str(entry) for entry in Path().rglob('*') if out not in entry.parents)
        assert after == before, f'files came or went: {set(after) ^ set(before)}'
        outcome = 'read' if found is None else 'refused'
        print(json.dumps({'kind': name, 'input': number, 'outcome': outcome}), flush=True)
    # Not ru_maxrss, which begins with that of the process that started this one.
    status = Path('/proc/self/status').read_text()
    print(json.dumps({'peak_kb': int(status.partition('VmHWM:')[2].split()[0])}))


def main() -> int:
    if sys.argv[1:2] == ['--worker']:
        seed, first, stop, seconds, samples, names, whole = sys.argv[2:]
        # A core file of a reader that crashed is of no use, and large.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        spent = float(seconds)
        work(int(seed), int(first), int(stop), spent, Path(samples), names, bool(whole))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--first', type=int, default=0)
    parser.add_argument('--count', type=int, default=1 << 40)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--kinds', default='')
    parser.add_argument('--kept', type=Path, default=Path('fuzz'))
    parser.add_argument('--report', type=Path)
    given = parser.parse_args()
    found = fuzz(given.seed, given.kept, given.first, given.count, given.seconds, given.kinds)
    return report(found, given.report, 'failures')


if __name__ == '__main__':
    raise SystemExit(main())
