"""Loading holds one copy of the weights, and a small part of the file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clipseg_model.errors import CheckpointError
from clipseg_model.modeling.base import build_model
from clipseg_model.registry import get_card
from clipseg_model.weights import filling
from clipseg_model.weights.checkpoints import save_checkpoint
from clipseg_model.weights.files import stream_tensors

MIB = 1 << 20


def resident(name: str) -> int:
    """Bytes of a file that this process has in memory."""
    text = Path('/proc/self/smaps').read_text()
    found = re.findall(
        rf'^\w+-\w+ .*{re.escape(name)}\n(?:.*\n)*?Rss: +(\d+) kB', text, re.MULTILINE
    )
    return sum(map(int, found)) * 1024


def resident_in_all() -> int:
    found = re.search(r'VmRSS:\s+(\d+) kB', Path('/proc/self/status').read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_what_was_read_of_a_file_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / 'large.safetensors'
    save_file({f'part{number}': torch.full((4 * MIB,), float(number)) for number in range(8)}, path)
    most, seen = 0, {}
    for key, value in stream_tensors(path, [f'part{number}' for number in range(8)]):
        seen[key] = float(value.sum()) / value.numel()
        most = max(most, resident(path.name))
        del value
    assert seen == {f'part{number}': float(number) for number in range(8)}
    assert 16 * MIB <= most <= 40 * MIB, f'{most / MIB} of 128 MiB at once'
    assert resident(path.name) == 0


def test_parameters_that_are_to_be_filled_take_no_memory() -> None:
    with filling._NoValues(), torch.no_grad():
        nn.init.trunc_normal_(nn.Linear(8, 8).weight)
        before = resident_in_all()
        layer = nn.Linear(4096, 4096)
        nn.init.xavier_normal_(layer.weight)
        nn.init.ones_(layer.bias)
    assert resident_in_all() - before < 16 * MIB, 'of 64'
    whole = nn.Linear(4096, 16)
    assert float(whole.weight.detach().abs().sum()) > 0, 'others get values as ever'


def test_each_tensor_is_filled_once_and_none_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / 'x.safetensors'
    targets = {'a': torch.zeros(2), 'b': torch.zeros(2, 3)}
    half = torch.ones(2, dtype=torch.float16)
    filling.fill(targets, [('a', half), ('b', torch.ones(3, 2).T)], path)
    assert float(targets['a'].sum()) == 2.0
    assert float(targets['b'].sum()) == 6.0
    for wrong, words in [
        ([('a', half)], 'b is missing'),
        ([('c', half)], 'c is unknown'),
        ([('a', torch.ones(3))], r'a is \(3,\), not \(2,\)'),
        ([('a', half * float('nan')), ('b', torch.ones(2, 3))], 'a is not finite'),
    ]:
        with pytest.raises(CheckpointError, match=words):
            filling.fill(targets, wrong, path)


MEASURE = """
import gc, sys
from clipseg_model.weights.checkpoints import load_checkpoint
def vm(key):
    lines = open('/proc/self/status').read().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])
load_checkpoint(sys.argv[2])
gc.collect()
before = vm('VmRSS')
open('/proc/self/clear_refs', 'w').write('5')
model, _ = load_checkpoint(sys.argv[1])
peak = vm('VmHWM') - before
gc.collect()
print(peak / (vm('VmRSS') - before))
"""


@pytest.mark.slow
def test_the_peak_of_600_mb(tmp_path: Path, repository: Path) -> None:
    path, small = tmp_path / 'large.safetensors', 'clipseg_model/weights/tabletop.safetensors'
    model = build_model(get_card('clipseg-rd64-refined').config)
    save_checkpoint(path, model.eval(), {'name': 'large', 'input_size': 352, 'description': ''})
    assert path.stat().st_size > 550 * MIB
    command = [sys.executable, '-c', MEASURE, str(path), str(repository / small)]
    ratio = float(subprocess.check_output(command, cwd=repository, text=True))
    print(f'peak {ratio:.2f} times of what stays')
    assert ratio <= 1.25
