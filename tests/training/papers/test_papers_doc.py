"""The page on the papers' tables: its commands run, and what it says of the numbers is so."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from training import benchmark
from training.evaluation import data_command
from training.papers import table as benchmark_table
from training.papers.published import load_published


@pytest.fixture(scope='module')
def page(repository):
    return (repository / 'docs/papers.md').read_text()


def test_commands_run_without_data_or_checkpoints(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r'```bash\n(.*?)```', page, re.DOTALL)
    lines = block.strip().splitlines()
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line)
        assert words[:3] == ['python', '-m', 'training.benchmark']
        more = ['--workers', '0', '--device', 'cpu'] if words[-1] != 'list' else []
        benchmark.main([*words[3:], *more])
    text = capsys.readouterr().out
    (shown,) = re.findall(r'```text\n(Not run:.*?)```', page, re.DOTALL)
    # Lines are broken on the page.
    assert ' '.join(shown.split()[2:]) in ' '.join(text.split())


def test_options_that_are_named_exist(page):
    parsers = [argparse.ArgumentParser(), data_command.make_parser()]
    benchmark_table.add_arguments(parsers[0])
    known = {option for parser in parsers for option in parser._option_string_actions}
    # Of torchrun, and of PhraseCut's evaluator.
    theirs = {'--split', '--pred_path'}
    named = set(re.findall(r'(?<![\w-])--[a-z][a-z_-]*', page)) - {'--nproc_per_node', *theirs}
    assert named <= known
    assert len(named) >= 8


def test_tables_that_are_named_exist(page):
    published = load_published()
    for name in re.findall(r'--table (\w+/[\w-]+)', page):
        published.table(name)
    # "All of Tables 2 to 9": no cell of ours is left out but the one that the paper leaves empty.
    for number in range(2, 10):
        for row in published.table(f'clipseg/{number}').rows:
            empty = sum(value is None for value in row.values)
            assert not row.config or empty == (row.name == 'no CLIP pre-training')
