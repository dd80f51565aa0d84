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
