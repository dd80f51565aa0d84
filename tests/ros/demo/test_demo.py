"""The demo: what it asks, how it judges, and the whole of it over real topics."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from clipseg_model.cli.result_folder import ResultFolder
from clipseg_model.prompts import parse_prompts
from clipseg_ros.demo import app as demo
from clipseg_ros.demo import scenes as demo_scenes
from clipseg_ros.demo.picture import Tile, contact_sheet, draw_mask
from clipseg_ros.demo.report import (
    Answer,
    find_faults,
    intersection_over_union,
    make_table,
    mean_iou,
)
from clipseg_ros.process.child_process import ChildError, ChildProcess

SIZE = (320, 240)
SEEDS = [1, 2]


def make_answer(iou: float | None, share: float = 0.1, prompt: str = 'the mug') -> Answer:
    return Answer(1, prompt, 'name', iou, share, 0.9, 20.0, 10.0)


def as_text(console: Console) -> str:
    return console.export_text()


class TestJudgement:
    def test_iou_is_the_share_in_common(self) -> None:
        mask, truth = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
        mask[:, :2], truth[:, 1:3] = True, True
        assert intersection_over_union(mask, truth) == pytest.approx(4 / 12)
        assert intersection_over_union(truth, truth) == 1.0
        with pytest.raises(ValueError, match='two empty masks'):
            intersection_over_union(~mask & mask, ~truth & truth)

    def test_absent_prompts_are_left_out_of_the_mean(self) -> None:
        assert mean_iou([make_answer(0.5), make_answer(1.0), make_answer(None)]) == 0.75

    def test_good_masks_have_no_fault(self) -> None:
        assert find_faults([make_answer(0.9), make_answer(0.31), make_answer(None, 0.009)]) == []

    def test_a_low_mean_is_a_fault(self) -> None:
        assert find_faults([make_answer(0.7), make_answer(0.4)]) == [
            'the mean IoU is 0.55 (at least 0.6)'
        ]

    def test_the_mask_of_something_absent_is_a_fault(self) -> None:
        (fault,) = find_faults([make_answer(0.9), make_answer(None, 0.02, 'a kettle')])
        assert 'a kettle' in fault
        assert '2.0%' in fault

    def test_the_table_shows_every_prompt_and_marks_the_wrong_one(self) -> None:
        console = Console(record=True, width=110, file=io.StringIO())
        answers = [make_answer(0.875), make_answer(None, 0.25, '[a] kettle')]
        console.print(make_table(answers, 10.0))
        text = as_text(console)
        assert 'the mug' in text
        assert '0.88' in text
        assert '[a] kettle' in text
        assert '25.0% on' in text
        assert answers[1].wrong


class TestQuestions:
    @pytest.mark.parametrize('seed', demo.SEEDS)
    def test_each_scene_of_the_demo_offers_enough(self, seed: int) -> None:
        scene = demo_scenes.make_scene(seed, *SIZE)
        *present, missing = scene.questions
        assert len(present) == len(demo_scenes.PRESENT_KINDS)
        assert missing.absent
        assert not missing.truth.any()
        for question in present:
            share = question.truth.mean()
            assert demo_scenes.MIN_SHARE <= share <= demo_scenes.MAX_SHARE, question.text
        texts = [question.text for question in scene.questions]
        assert len(set(texts)) == len(texts)
        # Sent together they are told apart again: no phrase has a separator in it.
        assert [prompt.text for prompt in parse_prompts('; '.join(texts))] == texts

    def test_the_same_seed_asks_the_same(self) -> None:
        first, second = (demo_scenes.make_scene(3, *SIZE) for _ in range(2))
        assert np.array_equal(first.rgb, second.rgb)
        assert [q.text for q in first.questions] == [q.text for q in second.questions]

    def test_twelve_prompts_at_least(self) -> None:
        assert len(demo.SEEDS) >= 4
        assert len(demo.SEEDS) * len(demo_scenes.PRESENT_KINDS) >= 12


class TestPictures:
    def test_the_mask_is_tinted_and_the_truth_outlined(self) -> None:
        grey = np.full((240, 320, 3), 128, np.uint8)
        mask, truth = np.zeros((240, 320), bool), np.zeros((240, 320), bool)
        mask[20:60, 20:60], truth[120:200, 120:200] = True, True
        picture = draw_mask(grey, mask, truth)
        red, green, _ = picture[40, 40].astype(int)
        assert red > green + 40
        assert np.array_equal(picture[160, 160], picture[10, 300])
        assert picture[118:122, 160].max() > 200

    def test_the_sheet_holds_all_tiles(self) -> None:
        tile = Tile(np.full((120, 160, 3), 7, np.uint8), 'a prompt ' * 20, 'IoU 0.9')
        sheet = contact_sheet([[tile, tile, tile], [tile]], width=100)
        assert sheet.shape[1] > 3 * 100
        assert sheet.shape[0] > 2 * 75
        assert (sheet == 7).all(axis=2).sum() == 4 * 100 * 75


def test_a_folder_whose_name_is_not_text_is_refused_at_once(tmp_path: Path) -> None:
    """OpenCV and the terminal would fail at it later."""
    words = ['--output', f'{tmp_path}/a\udcff']
    result = CliRunner().invoke(demo.app, words, env={'COLUMNS': '200'})
    assert result.exit_code == 2
    assert 'is not UTF-8' in result.output
    assert not list(tmp_path.iterdir())


@pytest.fixture
def oracle(
    monkeypatch: pytest.MonkeyPatch, repository: Path, own_domain: int
) -> pytest.MonkeyPatch:
    """Puts the oracle in the place of the node; the parameter `model` says how it answers."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(own_domain))
    monkeypatch.setattr(demo, 'WIDTH', SIZE[0])
    monkeypatch.setattr(demo, 'HEIGHT', SIZE[1])
    monkeypatch.setattr(demo, 'FRAMES', 3)
    monkeypatch.chdir(repository)
    monkeypatch.setenv('PYTHONPATH', str(repository))
    start = demo.start_nodes

    def start_oracle(
        stack: ExitStack, output: ResultFolder, model: str, device: str
    ) -> list[ChildProcess]:
        children = start(stack, output, model, device)
        children.pop().stop()
        script = Path(__file__).parents[1] / 'processes' / 'oracle_node.py'
        command = [sys.executable, str(script), model]
        arguments = [str(number) for number in (*SIZE, *SEEDS)]
        log = output.path / 'segment.log'
        child = ChildProcess('segment', [*command, *arguments], log, os.environ)
        return [*children, stack.enter_context(child)]

    monkeypatch.setattr(demo, 'start_nodes', start_oracle)
    return monkeypatch


@pytest.mark.usefixtures('oracle')
class TestOverTopics:
    def test_the_truth_passes(self, tmp_path: Path) -> None:
        answers = demo.run_demo(Console(quiet=True), SEEDS, 'right', 'cpu', ResultFolder(tmp_path))
        assert len(answers) == len(SEEDS) * 5
        assert {answer.iou for answer in answers} == {1.0, None}
        assert all(answer.share == 0 for answer in answers if answer.iou is None)
        assert all(0 < answer.latency_ms < 5000 and answer.fps > 0 for answer in answers)
        assert find_faults(answers) == []
        results = json.loads((tmp_path / 'results.json').read_text())
        assert results['mean_iou'] == 1.0
        assert len(results['answers']) == len(answers)
        for name in ('contact_sheet', 'scene_1', 'scene_2'):
            assert cv2.imread(str(tmp_path / f'{name}.png')) is not None

    def test_wrong_masks_are_found(self, tmp_path: Path) -> None:
        answers = demo.run_demo(
            Console(quiet=True), SEEDS[:1], 'everything', 'cpu', ResultFolder(tmp_path)
        )
        for answer, question in zip(
            answers, demo_scenes.make_scene(1, *SIZE).questions, strict=True
        ):
            if answer.iou is not None:
                assert answer.iou == pytest.approx(question.truth.mean())
        assert answers[-1].wrong
        assert len(find_faults(answers)) == 2

    @pytest.mark.parametrize('answer', ['end', 'end of overlays'])
    def test_a_node_that_ends_is_told_with_its_log(self, tmp_path: Path, answer: str) -> None:
        console = Console(record=True, width=200, file=io.StringIO())
        with pytest.raises(ChildError, match='exit status 1'):
            demo.run_demo(console, SEEDS[:1], answer, 'cpu', ResultFolder(tmp_path))
        text = as_text(console)
        assert 'failed: segment has ended (exit status 1)' in text
        assert 'the oracle has had enough' in text


def run_command(output: Path, repository: Path, domain: int, *arguments: str) -> list[str]:
    words = ['--output', str(output), '--domain', str(domain), *arguments]
    return [sys.executable, '-m', 'clipseg_ros.demo', *words]


@pytest.mark.parametrize('module', ['demo', 'demo.console'])
@pytest.mark.parametrize('link', [False, True])
def test_files_that_are_there_stay(
    tmp_path: Path, repository: Path, own_domain: int, module: str, link: bool
) -> None:
    mine, other = tmp_path / 'segment.log', tmp_path / 'other'
    if link:
        mine.symlink_to(other)
    else:
        mine.write_text('mine')
    command = run_command(tmp_path, repository, own_domain)
    command[2] = f'clipseg_ros.{module}'
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'is there already, and not of this run' in ' '.join(done.stdout.split())
    assert os.listdir(tmp_path) == ['segment.log']
    assert link or mine.read_text() == 'mine'


def test_an_unknown_model_is_told_at_once(
    tmp_path: Path, repository: Path, own_domain: int
) -> None:
    begin = time.monotonic()
    (tmp_path / 'segment.log').write_text('of an earlier run')
    done = subprocess.run(
        run_command(tmp_path, repository, own_domain, '--model', 'tabeltop', '--overwrite'),
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'tabeltop' in done.stdout
    assert 'Traceback' not in done.stdout + done.stderr
    assert time.monotonic() - begin < demo.START_TIMEOUT


def test_ctrl_c_ends_it_and_its_nodes(tmp_path: Path, repository: Path, own_domain: int) -> None:
    process = subprocess.Popen(
        run_command(tmp_path, repository, own_domain, '--model', 'tabletop'),
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    log = tmp_path / 'camera.log'
    while not (log.is_file() and 'tabletop at' in log.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2
    mapped = {Path(one.path) for child in children for one in child.memory_maps()}
    segments = [path for path in mapped if re.fullmatch(r'fast(dds|rtps)_[0-9a-f]+', path.name)]
    assert len(segments) >= 2
    assert all(path.exists() for path in segments)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert 'stopped' in text
    assert not any(child.is_running() for child in children)
    assert not [path for path in segments if path.exists()]


@pytest.mark.slow
@pytest.mark.ci
def test_the_bundled_model_passes(tmp_path: Path, repository: Path, own_domain: int) -> None:
    done = subprocess.run(
        run_command(tmp_path, repository, own_domain),
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'all masks are good enough' in done.stdout
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['mean_iou'] >= 0.6
