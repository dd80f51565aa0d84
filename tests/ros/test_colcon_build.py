"""A real ``colcon build`` of a copy of the package, and the built node started and spoken to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkout_copy import copy_checkout

from clipseg_ros.process.child_process import ChildProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ci,
    pytest.mark.skipif(find_spec('colcon_core') is None, reason='colcon is not installed'),
    pytest.mark.timeout(400),
]


def clean_environment(domain: int) -> dict[str, str]:
    """What a fresh terminal has, with the Python environment activated, and nothing sourced."""
    binaries = str(Path(sys.executable).parent)
    kept = {name: os.environ[name] for name in ('HOME', 'LANG', 'TMPDIR') if name in os.environ}
    return {
        **kept,
        'PATH': os.pathsep.join([binaries, '/usr/local/bin', '/usr/bin', '/bin']),
        'VIRTUAL_ENV': sys.prefix,
        'AMENT_PREFIX_PATH': ament_prefix_path(),
        'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'OMP_WAIT_POLICY': 'PASSIVE',
    }


def ament_prefix_path() -> str:
    """Where ROS 2 is: in the environment, from wheels, or where a sourced installation says."""
    if Path(sys.prefix, 'share', 'ament_cmake').is_dir():
        return sys.prefix
    return os.environ['AMENT_PREFIX_PATH']


@pytest.fixture(scope='module')
def workspace(tmp_path_factory: pytest.TempPathFactory, own_domain: int, repository: Path) -> Path:
    """A workspace with a built copy of the package."""
    folder = tmp_path_factory.mktemp('workspace')
    copy_checkout(repository, folder / 'src' / 'clipseg_ros')
    done = subprocess.run(
        ['colcon', 'build', '--event-handlers', 'console_direct+'],
        cwd=folder,
        env=clean_environment(own_domain),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope='module')
def built_environment(workspace: Path, own_domain: int) -> dict[str, str]:
    """The variables after sourcing what colcon wrote."""
    listing = subprocess.run(
        ['bash', '-c', 'source install/local_setup.bash && env -0'],
        cwd=workspace,
        env=clean_environment(own_domain),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    environment = dict(entry.split('=', 1) for entry in listing.split('\0') if '=' in entry)
    profile = workspace / 'install/clipseg_ros/share/clipseg_ros/config/fastdds.xml'
    return {**environment, 'FASTDDS_DEFAULT_PROFILES_FILE': str(profile)}


@pytest.fixture
def built_node(
    workspace: Path, built_environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> Iterator[ChildProcess]:
    """The built executable, running with a tiny model."""
    executable = workspace / 'install/clipseg_ros/lib/clipseg_ros/segment'
    words = ['--ros-args', '-p', f'model:={tiny_model}', '-p', 'device:=cpu', '-p', 'threads:=1']
    log = tmp_path / 'segment.log'
    with ChildProcess('segment', [str(executable), *words], log, built_environment) as child:
        yield child


def test_everything_is_installed(workspace: Path, repository: Path) -> None:
    prefix = workspace / 'install' / 'clipseg_ros'
    share = prefix / 'share' / 'clipseg_ros'
    for folder in ('launch', 'config'):
        sources = {path.name for path in (repository / folder).glob('*.*')}
        assert sources
        assert sources <= {path.name for path in (share / folder).iterdir()}
    for name in ('segment', 'camera', 'segment_cameras'):
        assert os.access(prefix / 'lib' / 'clipseg_ros' / name, os.X_OK)
    (packages,) = prefix.glob('l*/**/*-packages')
    for package in ('clipseg_model', 'clipseg_ros', 'tabletop_world'):
        sources = {
            path.relative_to(repository)
            for path in (repository / package).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        }
        missing = [path for path in sources if not (packages / path).is_file()]
        assert sources
        assert not missing
    assert (packages / 'clipseg_ros' / 'msg' / '__init__.py').is_file()
    assert not (packages / 'training').exists()


def test_the_built_node_answers_with_its_own_messages(
    workspace: Path, built_environment: dict[str, str], built_node: ChildProcess
) -> None:
    # Started elsewhere than in the repository: nothing may come from the source tree.
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / 'processes' / 'built_peer.py')],
        cwd=workspace,
        env=built_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, f'{done.stdout}{done.stderr}\n{built_node.tail(30)}'
    answer = json.loads(done.stdout)
    installed = str(workspace / 'install')
    assert answer['messages_from'].startswith(installed)
    assert answer['modules_from'].startswith(installed)
    assert answer['success'] is True
    assert answer['ids'] == [1, 2]
    assert answer['names'] == ['cup', 'red bowl']
    assert answer['thresholds'][0] == pytest.approx(0.25)
    assert answer['mask'] == [48, 64, 3]
    assert answer['frame'] == 'eye'
    assert answer['segments'] == ['cup', 'red bowl']
    assert answer['size'] == [64, 48]
    assert built_node.running
    assert built_node.stop() == 0, built_node.tail(30)


def test_the_built_camera_shows_the_simulated_world(
    workspace: Path, built_environment: dict[str, str], tmp_path: Path
) -> None:
    executable = workspace / 'install/clipseg_ros/lib/clipseg_ros/camera'
    code = (
        'import rclpy; from sensor_msgs.msg import Image; rclpy.init(); seen = []\n'
        'node = rclpy.create_node("eye")\n'
        'node.create_subscription(Image, "/image", seen.append, 1)\n'
        'while not seen: rclpy.spin_once(node)\n'
        'print(seen[0].width, seen[0].height, seen[0].encoding)'
    )
    words = ['--ros-args', '-p', 'width:=64', '-p', 'height:=48']
    log = tmp_path / 'camera.log'
    with ChildProcess('camera', [str(executable), *words], log, built_environment) as camera:
        done = subprocess.run(
            [sys.executable, '-c', code],
            cwd=workspace,
            env=built_environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout.split() == ['64', '48', 'rgb8'], done.stderr + camera.tail()
        assert camera.stop() == 0, camera.tail()
