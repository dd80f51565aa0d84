"""The page of results: its command runs, and its table is that of the rows and their budget."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.papers import ablation as tabletop_ablation
from training.papers.ablation import COLUMNS, ROWS, row_settings


@pytest.fixture(scope='module')
def page(repository: Path) -> str:
    return (repository / 'docs/results.md').read_text()


def test_the_table_has_all_rows_and_columns(page):
    lines = [line for line in page.splitlines() if line.startswith('|')]
    rows = {line.split('|')[1].strip(): line for line in lines}
    header = [cell.strip() for cell in rows[''].strip('|').split('|')]
    assert header[-len(COLUMNS) :] == [column[0] for column in COLUMNS]
    for name in ROWS.values():
        cells = [cell.strip() for cell in rows[name].strip('|').split('|')]
        assert len(cells) == len(header), name
        finished = all(re.match(r'[\d.]+', cell) for cell in cells[1:])
        assert finished or set(cells[1:]) == {'not run', ''}, name


def test_the_budget_that_is_named_is_that_of_the_files(page):
    settings = row_settings('pc_plus', Path('runs/tabletop'), 0)
    figures = re.findall(r'([\d,]+) steps of ([\d,]+) samples', page)
    wanted = (f'{settings.iterations:,}', f'{settings.batch_size}')
    assert figures
    assert set(figures) == {wanted}
    assert f'{settings.prompts.size} px' in page


def test_its_command_and_options_exist(page, monkeypatch, tmp_path, capsys):
    (command,) = re.findall(r'^python -m training\.papers\.ablation (.*)$', page, re.MULTILINE)
    words = ['tabletop_ablation', *command.split(), '--report']
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', words)
    tabletop_ablation.main()
    assert capsys.readouterr().out.count('not run') == len(ROWS)
    monkeypatch.setattr('sys.argv', ['tabletop_ablation', '--help'])
    with pytest.raises(SystemExit):
        tabletop_ablation.main()
    shown = capsys.readouterr().out
    for option in re.findall(r'`(--[a-z-]+)`', page):
        assert option in shown, option
