"""Files beside the modules are found in a checkout and where the package is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipseg_ros.ros import share


def test_a_checkout(repository: Path) -> None:
    assert share.share_path('config', 'fastdds.xml') == repository / 'config' / 'fastdds.xml'


@pytest.mark.parametrize('packages', ['lib/python3.12/site-packages', 'local/lib/dist-packages'])
def test_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: str) -> None:
    module = tmp_path / packages / 'clipseg_ros' / 'ros' / 'share.py'
    file = tmp_path / 'share' / 'clipseg_ros' / 'msg' / 'Prompt.msg'
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(share, '__file__', str(module))
    assert share.share_path('msg', 'Prompt.msg') == file
    with pytest.raises(FileNotFoundError, match=r'msg/None.msg .* install it again'):
        share.share_path('msg', 'None.msg')


def test_the_variable_of_the_profile(tmp_path: Path) -> None:
    newer, older = share.PROFILE_VARIABLES
    assert share.profile_variable({}, str(tmp_path)) == newer
    for name in ('humble', 'jazzy'):
        assert share.profile_variable({'ROS_DISTRO': name}, str(tmp_path)) == older
    (tmp_path / 'share' / 'fastrtps').mkdir(parents=True)
    assert share.profile_variable({}, str(tmp_path)) == older, 'wheels'
    for name in ('kilted', 'rolling'):
        assert share.profile_variable({'ROS_DISTRO': name}, str(tmp_path)) == newer


def test_the_profile_of_the_user_stays() -> None:
    (name,) = share.profile_variables({})
    assert share.profile_variables({})[name].endswith('config/fastdds.xml')
    for given in share.PROFILE_VARIABLES:
        assert share.profile_variables({given: '/mine.xml'}) == {}
