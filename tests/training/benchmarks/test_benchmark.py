from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training import benchmark
from training.benchmarks import machine, peers, speed
from training.benchmarks.machine import peak_gflops, resident_mib, summary

PROMPTS = ['a red mug', 'the chair']


def test_speed_of_the_bundled_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `make bench` runs, with one frame and, for the peak, one small matrix."""
    monkeypatch.setattr(machine, 'SHAPES', machine.SHAPES[:1])
    threads = torch.get_num_threads()
    words = ['--frames', '1', '--warm', '0', '--prompts', '1', '4', '--threads', str(threads)]
    words += ['--device', 'cpu', '--batch', '1', '3']
    benchmark.main([*words, '--output', str(tmp_path)])
    assert 'tabletop' in capsys.readouterr().out
    report = json.loads((tmp_path / 'speed.json').read_text())
    assert [row['prompts'] for row in report['times']] == [1, 4]
    assert all(row['ms']['eager-fp32']['median'] > 0 for row in report['times'])
    assert report['machine']['versions']['torch'] == torch.__version__.split('+')[0]
    assert report['gflop']['image'] > report['gflop']['prompt'] > 0
    encoder = report['encoder']['eager-fp32']
    assert encoder['share_of_peak'] == pytest.approx(encoder['gflops'] / report['peak']['fp32'])
    several = report['encoder']['eager-fp32, 3 images']
    work = [one['gflops'] * one['ms'] for one in (encoder, several)]
    assert work[1] == pytest.approx(3 * work[0])
    text = (tmp_path / 'speed.md').read_text()
    assert '| 640 × 480 | 4 |' in text
    assert f'{threads} threads of ' in text
    assert 'random weights' not in text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_speed_on_a_gpu(tmp_path: Path) -> None:
    words = ['speed', '--model', speed.RANDOM, '--device', 'cuda', '--frames', '2']
    words += ['--subjects', 'documented', 'clever', 'eager-fp32', 'eager-fp16', '--memory']
    benchmark.main([*words, '--batch', '1', '4', '--output', str(tmp_path)])
    report = json.loads((tmp_path / 'speed.json').read_text())
    assert report['machine']['gpu'] == torch.cuda.get_device_name()
    assert list(report['peak']) == ['fp32', 'bf16', 'fp16']
    assert 0 < report['encoder']['eager-fp16, 4 images']['share_of_peak'] < 1.5
    assert all(value > 0 for value in report['memory'].values())
    assert 'peak memory of the GPU' in (tmp_path / 'speed.md').read_text()


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put onto one takes no time; what is timed is when it is done."""
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda device: order.append(str(device)))
    machine.timed(lambda: order.append('work'), torch.device('cuda:1'))
    assert order == ['cuda:1', 'work', 'cuda:1']
    machine.timed(lambda: order.append('work'))
    assert order[3:] == ['work']


def test_subjects_take_turns() -> None:
    order: list[tuple[str, int]] = []
    pictures = [np.full((1, 1, 3), number, np.uint8) for number in range(2)]
    subjects = {
        name: lambda picture, name=name: order.append((name, int(picture[0, 0, 0])))
        for name in 'AB'
    }
    seconds = speed.interleaved(subjects, pictures, turns=2, warm=1)
    assert order == [('A', 1), ('B', 1), ('A', 0), ('B', 0), ('A', 1), ('B', 1)]
    assert {name: len(values) for name, values in seconds.items()} == {'A': 2, 'B': 2}


def test_summary() -> None:
    assert summary([0.003, 0.001, 0.002])['median'] == pytest.approx(2)


def test_flops_of_vit_b16() -> None:
    found = speed.gflops(speed.RANDOM, (352, 352))
    assert found['image'] == pytest.approx(76.6, abs=0.5)
    assert found['prompt'] == pytest.approx(1.05, abs=0.1)


def test_the_machine() -> None:
    assert machine.describe()['cores'] >= 1
    assert 0 < resident_mib(peak=False) <= resident_mib(peak=True)


def test_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, 'SHAPES', ((8, 8, 8),))
    assert peak_gflops(torch.float32, turns=2) > 0


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--sizes', '640'], 'WIDTHxHEIGHT'),
        (['--sizes', '0x480'], 'WIDTHxHEIGHT'),
        (['--prompts', '65'], '1 to 64'),
        (['--prompts', '0'], '1 to 64'),
        (['--batch', '0'], 'cameras are 1 to 64'),
        (['--device', 'gpu'], "A device is 'auto', 'cpu', 'cuda' or 'cuda:N', not 'gpu'"),
    ],
)
def test_arguments_that_are_wrong(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(['speed', *words])
    assert message in capsys.readouterr().err


def test_prompts_differ() -> None:
    assert len(set(speed.PROMPTS)) == 64


def test_the_peers_tokenizer_is_clips() -> None:
    import open_clip

    ids = peers._tokenizer()(PROMPTS, padding=True)['input_ids']
    for ours, theirs in zip(open_clip.SimpleTokenizer()(PROMPTS).tolist(), ids, strict=True):
        end = ours.index(49407) + 1
        assert theirs[:end] == ours[:end]
