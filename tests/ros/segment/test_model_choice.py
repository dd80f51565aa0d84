"""Which models a peer may choose while the node runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter

from clipseg_ros.segment.lifecycle import SegmentNode
from clipseg_ros.segment.model_choice import CHOICES, find_choice_problem


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
        assert find_choice_problem('model', wish, [start]) == '', wish
        assert find_choice_problem('zoom_detector', wish, ['tabletop', start]) == '', wish
    assert find_choice_problem('zoom_detector', None, [start]) == ''


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
    problem = find_choice_problem('model', wish, [start])
    assert problem.startswith('model is neither')
    assert 'start the node with the path' in problem
    assert wish not in problem


def test_a_name_leaves_no_folder_open(files: Path) -> None:
    assert find_choice_problem('model', str(files / 'a.safetensors'), ['tabletop'])


def test_a_node_asks_for_every_parameter_that_names_a_model(files: Path, domain: int) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    try:
        start = {'autostart': False, 'model': str(files / 'a.safetensors'), 'zoom_detector': 'any'}
        overrides = [Parameter(name, value=value) for name, value in start.items()]
        node = SegmentNode(context=context, parameter_overrides=overrides)
        for name in CHOICES:
            for wish in ('/any/x.safetensors', str(files.parent / 'secret'), ' /etc/x '):
                [result] = node.set_parameters([Parameter(name, value=wish)])
                assert not result.successful
                assert result.reason.startswith(f'{name} is neither a name')
            for wish in ('tabletop', str(files / 'b.safetensors')):
                assert node.set_parameters([Parameter(name, value=wish)])[0].successful
        assert node.set_parameters([Parameter('zoom_detector', value='')])[0].successful
        node.destroy_node()
    finally:
        context.try_shutdown()
