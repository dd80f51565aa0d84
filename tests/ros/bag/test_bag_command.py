"""What `clipseg bag` says of bags and options that are wrong, and that it needs no ROS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bags import clipseg, read, record, stamped
from ros_peers import ROOT
from std_msgs.msg import String

from clipseg_ros.bag import messages
from clipseg_ros.ros import share


def test_bad_images_are_left_out_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    bad = stamped(1)
    bad.step = 7
    images = [('/image', image) for image in (stamped(0), bad, stamped(2))]
    out = tmp_path / 'out'
    result = clipseg('bag', record(tmp_path / 'in', images), '-p', 'mug', '-o', out,
                     '-m', tiny_model)  # fmt: skip
    assert result.exit_code == 1
    assert 'step 7 is too small' in result.stderr
    assert '1 of 3 images left out' in result.stderr
    assert [message.header.stamp.sec for _, message in read(out)['/clipseg/mask']] == [100, 102]


def test_images_of_too_many_pixels_are_left_out(
    bag: Path, tmp_path: Path, tiny_model: Path
) -> None:
    words = ['bag', bag, '-p', 'mug', '-m', tiny_model, '-o', tmp_path / 'out']
    result = clipseg(*words, '--max-pixels', 100)
    assert result.exit_code == 1
    assert 'and at most 100 are read' in result.stderr
    assert '--max-pixels' in result.stderr


@pytest.fixture
def two_cameras(tmp_path: Path) -> Path:
    return record(tmp_path / 'two', [('/left', stamped(0)), ('/right', stamped(1))])


def test_one_of_several_cameras_is_chosen(
    two_cameras: Path, tmp_path: Path, tiny_model: Path
) -> None:
    words = ['bag', two_cameras, '-p', 'mug', '-m', tiny_model, '-o']
    result = clipseg(*words, tmp_path / 'a')
    assert result.exit_code == 1
    assert '/left, /right' in result.stderr
    assert '--topic' in result.stderr
    assert '/left, /right' in clipseg(*words, tmp_path / 'a', '--topic', '/up').stderr
    assert not (tmp_path / 'a').exists()
    assert clipseg(*words, tmp_path / 'a', '--topic', '/right').exit_code == 0
    ((_, mask),) = read(tmp_path / 'a')['/clipseg/mask']
    assert mask.header.stamp.sec == 101


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'bag': 'nowhere'}, ['there is no such bag']),
        ({'bag': 'old.bag'}, ['ROS 1', 'rosbags-convert']),
        ({'bag': 'note.txt'}, ['cannot be read as a ROS 2 bag', '.mcap']),
        ({'bag': 'empty'}, ['metadata.yaml cannot be read', 'ros2 bag reindex']),
        ({'bag': 'silent'}, ['image topics of the bag are: none']),
        ({'-o': 'there'}, ['exists already']),
        ({'-p': ' ; '}, ['nothing to look for']),
        ({'-p': 'one: mug; One: red bowl'}, ['One']),
        ({'--outputs': 'mask,masks'}, ['masks', 'probability']),
        ({'--outputs': ','}, ['none']),
        ({'--storage': 'zip'}, ['mcap, sqlite3', 'zip']),
        ({'-m': 'nothing'}, ['nothing']),
    ],
)
def test_what_is_wrong_is_said(
    bag: Path, tmp_path: Path, tiny_model: Path, change: dict[str, str], words: list[str]
) -> None:
    for name in ('old.bag', 'note.txt'):
        (tmp_path / name).write_text('text')
    for name in ('empty', 'there'):
        (tmp_path / name).mkdir()
    record(tmp_path / 'silent', [('/note', String(data='hello'))])
    options = {'-p': 'mug', '-m': str(tiny_model), '-o': 'out'} | change
    source = tmp_path / options.pop('bag', bag.name)
    options['-o'] = str(tmp_path / options['-o'])
    result = clipseg('bag', source, *(word for pair in options.items() for word in pair))
    assert result.exit_code == 1
    for word in words:
        assert word in ' '.join(result.stderr.split())
    assert not list(tmp_path.glob('out*')), 'nothing half-made stays'


def test_an_incomplete_installation_is_said(
    bag: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, '__file__', str(tmp_path / 'clipseg_ros' / 'ros' / 'share.py'))
    messages._own_types.cache_clear()
    result = clipseg('bag', bag, '-p', 'mug', '-o', tmp_path / 'out', '-m', tiny_model)
    assert result.exit_code == 1
    said = ' '.join(result.stderr.split())
    assert 'bags need the messages of clipseg_ros: msg/Prompt.msg' in said
    assert 'install it again' in said
    assert 'cannot be read' not in said, 'the bag is good'


def test_no_ros_is_needed(bag: Path, tmp_path: Path, tiny_model: Path) -> None:
    code = (
        'import sys\n'
        'class Block:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        '        if name.split(".")[0] in {"rclpy", "sensor_msgs", "std_msgs", "rpyutils"}:\n'
        '            raise ImportError(f"{name} is blocked")\n'
        'sys.meta_path.insert(0, Block())\n'
        'from clipseg_ros.cli import app\n'
        'app(sys.argv[1:])\n'
    )
    words = ['bag', bag, '-p', 'mug', '-o', tmp_path / 'out', '-m', tiny_model]
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / 'out')['/clipseg/mask']) == 4
