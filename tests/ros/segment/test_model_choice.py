"""Which models a peer may choose while the node runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipseg_ros.segment.model_choice import find_choice_problem


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('CLIPSEG_MODELS', str(tmp_path / 'downloads'))
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / 'mine'
    mine.mkdir()
    for path in (mine / 'a.safetensors', mine / 'b.safetensors', tmp_path / 'secret'):
        path.touch()
    (mine / 'link.safetensors').symlink_to(tmp_path / 'secret')
    return mine


def test_names_and_the_folder_of_the_start_are_open(files: Path) -> None:
    start = str(files / 'a.safetensors')
    for wish in (
        start,
        str(files / 'b.safetensors'),
        str(files / 'deeper' / 'c.pth'),
        'tabletop',
        'clipseg-rd64-refined',
        str(files.parent / 'downloads' / 'x.safetensors'),
        'tabeltop',  # Configuring says which name is meant.
    ):
        assert find_choice_problem(wish, start) == '', wish


@pytest.mark.parametrize('start', ['tabletop', 'mine/a.safetensors'])
@pytest.mark.parametrize(
    'wish',
    [
        '/etc/shadow',
        '/dev/zero',
        '~/.ssh/id_rsa',
        'mine/../secret',
        'mine/link.safetensors',
        'secret',
        'other/model',
        'no.safetensors',
    ],
)
def test_other_files_are_not_whether_they_are_there_or_not(
    files: Path, start: str, wish: str
) -> None:
    problem = find_choice_problem(wish, start)
    assert 'start the node with the path' in problem
    assert wish not in problem


def test_a_name_leaves_no_folder_open(files: Path) -> None:
    assert find_choice_problem(str(files / 'a.safetensors'), 'tabletop')
