"""What the launch files declare, name, pass and start, tested without launch itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_launch
import pytest
import yaml
from fake_launch import Launched, Node

from clipseg_ros.camera import parameters as camera_parameters
from clipseg_ros.ros.share import PROFILE_VARIABLES, profile_variable
from clipseg_ros.ros.viewers import layout
from clipseg_ros.segment import parameters as segment_parameters

NAV2_ARGUMENTS = {'namespace', 'params_file', 'use_sim_time', 'autostart', 'log_level'}
OWN_ARGUMENTS = {'image', 'depth', 'camera_info', 'prompt', 'model', 'device', 'target_frame'}
DECLARED = {
    'segment': {*segment_parameters.DECLARATIONS, 'use_sim_time'},
    'camera': {*camera_parameters.DECLARATIONS, 'use_sim_time'},
    'segment_cameras': {*segment_parameters.DECLARATIONS, 'use_sim_time'},
}
FILES = ('segment.launch.py', 'demo.launch.py', 'cameras.launch.py', 'depth.launch.py')


@pytest.fixture
def launch_folder(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_launch.install(monkeypatch)
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return repository / 'launch'


@pytest.fixture
def with_rviz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('ament_index_python.packages.get_package_prefix', lambda name: '/opt')


def overrides_of(node: Node) -> dict[str, Any]:
    """The parameters that a node is given beside its file."""
    (overrides,) = [entry for entry in node.parameters if isinstance(entry, dict)]
    return dict(overrides)


def files_of(node: Node) -> list[Path]:
    """The parameter files of a node."""
    return [Path(entry) for entry in node.parameters if isinstance(entry, str)]


def environment_of(file: Path) -> dict[str, str]:
    """The variables that a launch file sets, by itself or by what it includes."""
    launched = fake_launch.run(file, {})
    environment = dict(launched.environment)
    for location, passed in launched.includes.items():
        environment |= fake_launch.run(Path(location), passed).environment
    return environment


def the_node(launched: Launched, executable: str) -> Node:
    (node,) = [node for node in launched.nodes if node.executable == executable]
    return node


@pytest.mark.parametrize('file', FILES)
def test_the_arguments_are_navs_and_our_own(launch_folder: Path, file: str) -> None:
    launched = fake_launch.run(launch_folder / file, {})
    assert set(launched.arguments) >= NAV2_ARGUMENTS | OWN_ARGUMENTS
    assert all(argument.description.endswith('.') for argument in launched.arguments.values())


@pytest.mark.usefixtures('with_rviz')
@pytest.mark.parametrize('file', FILES)
def test_files_that_are_named_exist(launch_folder: Path, file: str) -> None:
    launched = fake_launch.run(launch_folder / file, {'rviz': 'true'})
    files = [Path(value) for name, value in launched.values.items() if name.endswith('params_file')]
    files += [Path(value) for value in launched.environment.values()]
    files += [Path(location) for location in launched.includes]
    words = [str(word) for node in launched.nodes for word in node.arguments]
    files += [Path(word) for word in words if word.endswith('.rviz')]
    assert len(files) >= 2
    assert all(path.is_file() for path in files), files


@pytest.mark.parametrize(
    ('file', 'executable'),
    [(FILES[0], 'segment'), (FILES[1], 'camera'), (FILES[2], 'segment_cameras')],
)
def test_executables_and_parameters_exist(
    launch_folder: Path, repository: Path, file: str, executable: str
) -> None:
    launched = fake_launch.run(launch_folder / file, {'prompt': 'the mug', 'model': 'a'})
    node = the_node(launched, executable)
    assert node.package == 'clipseg_ros'
    assert (repository / 'scripts' / executable).is_file()
    assert set(overrides_of(node)) <= DECLARED[executable]
    for path in files_of(node):
        (parameters,) = [
            entry['ros__parameters'] for entry in yaml.safe_load(path.read_text()).values()
        ]
        assert set(parameters) <= DECLARED[executable], path
        expected = 'clipseg' if executable == 'segment_cameras' else node.name
        assert expected in next(iter(yaml.safe_load(path.read_text()))).split('/')


def test_the_node_gets_what_was_asked_for(launch_folder: Path) -> None:
    given = {
        'namespace': 'robot1',
        'use_sim_time': 'true',
        'autostart': 'false',
        'log_level': 'debug',
        'image': '/camera/image_raw',
        'depth': '/camera/depth',
        'camera_info': '/camera/info',
        'target_frame': 'base_link',
        # YAML would read these as a truth value, a number, and a mapping.
        'prompt': 'no',
        'model': '7',
        'device': 'cuda:1',
    }
    node = the_node(fake_launch.run(launch_folder / 'segment.launch.py', given), 'segment')
    assert node.name == 'clipseg'
    assert node.namespace == 'robot1'
    assert node.remappings == [
        ('image', '/camera/image_raw'),
        ('depth', '/camera/depth'),
        ('camera_info', '/camera/info'),
    ]
    assert node.arguments == ['--ros-args', '--log-level', 'debug']
    assert overrides_of(node) == {
        'use_sim_time': True,
        'autostart': False,
        'prompt': 'no',
        'model': '7',
        'device': 'cuda:1',
        'target_frame': 'base_link',
        'exit_on_failure': True,
    }


def test_what_was_not_given_stays_as_in_the_file(launch_folder: Path) -> None:
    node = the_node(fake_launch.run(launch_folder / 'segment.launch.py', {}), 'segment')
    assert set(overrides_of(node)) == {'use_sim_time', 'autostart', 'exit_on_failure'}
    assert files_of(node) == [launch_folder.parent / 'config' / 'segment.yaml']
    # A later entry wins in ROS 2: the arguments come after the file.
    assert isinstance(node.parameters[-1], dict)


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('variable', PROFILE_VARIABLES)
def test_the_fast_dds_profile_is_set_unless_the_user_has(
    launch_folder: Path, file: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = str(launch_folder.parent / 'config' / 'fastdds.xml')
    assert environment_of(launch_folder / file) == {profile_variable(os.environ): profile}
    monkeypatch.setenv(variable, '/mine.xml')
    assert environment_of(launch_folder / file) == {}


def test_the_demo_hands_everything_on(launch_folder: Path) -> None:
    given = {'namespace': 'robot1', 'image': 'front', 'prompt': 'a chair', 'log_level': 'warn'}
    launched = fake_launch.run(launch_folder / 'demo.launch.py', given)
    camera = the_node(launched, 'camera')
    assert camera.namespace == 'robot1'
    assert ('image', 'front') in camera.remappings
    ((location, passed),) = launched.includes.items()
    assert Path(location) == launch_folder / 'segment.launch.py'
    segment = fake_launch.run(Path(location), passed)
    assert set(passed) == set(segment.arguments)
    assert {name: segment.values[name] for name in given} == given
    assert segment.values['params_file'].endswith('segment.yaml')


def test_a_depth_camera_s_topics(launch_folder: Path) -> None:
    def remappings(**given: str) -> dict[str, str]:
        launched = fake_launch.run(launch_folder / 'depth.launch.py', given)
        ((location, passed),) = launched.includes.items()
        segment = fake_launch.run(Path(location), passed)
        assert set(passed) == set(segment.arguments)
        return dict(the_node(segment, 'segment').remappings)

    assert remappings() == {
        'image': '/camera/camera/color/image_raw',
        'depth': '/camera/camera/aligned_depth_to_color/image_raw',
        'camera_info': '/camera/camera/color/camera_info',
    }
    assert remappings(camera='/head/', depth='/registered') == {
        'image': '/head/color/image_raw',
        'depth': '/registered',
        'camera_info': '/head/color/camera_info',
    }


def test_the_demo_s_camera_and_node_meet(launch_folder: Path) -> None:
    given = {'image': 'front', 'depth': 'front/depth', 'camera_info': 'front/info'}
    launched = fake_launch.run(launch_folder / 'demo.launch.py', given)
    camera = dict(the_node(launched, 'camera').remappings)
    ((location, passed),) = launched.includes.items()
    segment = the_node(fake_launch.run(Path(location), passed), 'segment')
    assert camera == dict(segment.remappings) == given


@pytest.mark.usefixtures('with_rviz')
def test_rviz_starts_only_when_asked_for(launch_folder: Path) -> None:
    path = launch_folder / 'demo.launch.py'
    assert [node.executable for node in fake_launch.run(path, {}).nodes] == ['camera']
    executables = [node.executable for node in fake_launch.run(path, {'rviz': 'true'}).nodes]
    assert executables == ['rviz2', 'camera']


@pytest.mark.usefixtures('with_rviz')
def test_rviz_shows_the_topics_and_frame_of_this_robot(launch_folder: Path) -> None:
    """Of the arguments of the demo, and of its own for a node that runs already."""
    given = {'namespace': 'robot1', 'image': '/front/image'}
    for file, more in (
        ('demo.launch.py', {'rviz': 'true', 'target_frame': 'map'}),
        ('rviz.launch.py', {'frame': 'map'}),
    ):
        rviz = the_node(fake_launch.run(launch_folder / file, {**given, **more}), 'rviz2')
        text = Path(rviz.arguments[-1]).read_text()
        assert text == layout('clipseg.rviz', 'robot1', '/front/image', 'map')
        assert 'Value: /robot1/clipseg/overlay' in text
        assert 'Fixed Frame: map' in text
        Path(rviz.arguments[-1]).unlink()


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'rviz': 'true'}, 'RViz is not installed'),
        ({'params_file': '/no/such.yaml'}, 'params_file:=/no/such.yaml'),
        ({'camera_params_file': '/no/such.yaml'}, 'camera_params_file:=/no/such.yaml'),
    ],
)
def test_nothing_is_started_where_something_is_missing(
    launch_folder: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: str
) -> None:
    """What runs already would be left behind."""
    started: list[Any] = []
    monkeypatch.setattr(Node, '__post_init__', lambda node: started.append(node), raising=False)
    with pytest.raises(FileNotFoundError, match=words):
        fake_launch.run(launch_folder / 'demo.launch.py', given)
    assert [node.executable for node in started] in ([], ['rviz2']), 'described, not started'


@pytest.mark.parametrize('file', FILES)
def test_every_parameter_is_an_argument(launch_folder: Path, file: str) -> None:
    values = {
        'threshold': ('1', 1),
        'max_rate': ('5', 5),
        'depth_slop': ('0.02', 0.02),
        'distortion': ('rectified', 'rectified'),
        'image_transport': ('compressed', 'compressed'),
        'roi': ('[0, 0, 8, 8]', [0, 0, 8, 8]),
        'overlay_legend': ('false', False),
        'overlay_colors': ('mug=#ff8800', 'mug=#ff8800'),
        'exit_on_failure': ('true', True),
        'exports': ('7', '7'),
        'use_depth': ('false', False),
    }
    launched = fake_launch.run(launch_folder / file, {n: text for n, (text, _) in values.items()})
    assert launched.lines == []
    assert set(launched.arguments) >= set(segment_parameters.DECLARATIONS) | {'use_depth'}
    for location, passed in launched.includes.items():
        launched = fake_launch.run(Path(location), {**launched.values, **passed})
        assert launched.lines == [], 'the arguments of a file around it are not misspelt'
    [node] = [node for node in launched.nodes if node.executable.startswith('segment')]
    found = overrides_of(node)
    for name, (_, value) in values.items():
        assert found[{'use_depth': 'depth'}.get(name, name)] == value, name
    assert set(found) <= DECLARED['segment']
    for entry in segment_parameters.DECLARATIONS.values():
        if entry.name in found and not entry.any_type:
            assert entry.find_problem(entry.typed(found[entry.name])) in ('', *PROBLEMS)


# What the values above may be refused for; they are taken as what they are.
PROBLEMS = ("threshold: 1 is neither between 0 and 1 (both exclusive) nor -1 (the model's own)",)


def test_the_demo_has_the_camera_s_parameters_too(launch_folder: Path) -> None:
    given = {'rate': '5', 'motion': 'orbit', 'source': '0', 'loop': 'false'}
    launched = fake_launch.run(launch_folder / 'demo.launch.py', given)
    assert set(launched.arguments) >= set(camera_parameters.DECLARATIONS)
    expected = {'rate': 5, 'motion': 'orbit', 'source': '0', 'loop': False}
    found = overrides_of(the_node(launched, 'camera'))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize('file', FILES)
def test_a_misspelt_argument_is_named(launch_folder: Path, file: str) -> None:
    given = {'treshold': '0.5', 'imag': '/image', 'something_else': '1'}
    lines = fake_launch.run(launch_folder / file, given).lines
    assert len(lines) == 2
    assert 'treshold, it is ignored: did you mean threshold?' in lines[1]
    assert 'did you mean image?' in lines[0]


@pytest.mark.parametrize(
    ('given', 'respawn', 'ends'),
    [
        ({}, True, True),
        ({'respawn': 'True', 'exit_on_failure': 'false'}, True, False),
        ({'respawn': 'false'}, False, None),
        ({'respawn': 'false', 'exit_on_failure': 'true'}, False, True),
    ],
    ids=str,
)
@pytest.mark.parametrize('file', FILES)
def test_respawn(
    launch_folder: Path, file: str, given: dict[str, str], respawn: bool, ends: bool | None
) -> None:
    """By default nodes are started again, and end where that is what they need."""
    launched = fake_launch.run(launch_folder / file, given)
    nodes = launched.nodes
    for location, passed in launched.includes.items():
        nodes += fake_launch.run(Path(location), {**launched.values, **passed}).nodes
    nodes = [node for node in nodes if node.package == 'clipseg_ros']
    assert nodes
    for node in nodes:
        assert (node.respawn, node.respawn_delay) == (respawn, 2.0)
        found = overrides_of(node).get('exit_on_failure')
        assert found is (ends if node.executable.startswith('segment') else None)


def test_what_is_no_answer_to_respawn(launch_folder: Path) -> None:
    with pytest.raises(ValueError, match='respawn:=maybe'):
        fake_launch.run(launch_folder / 'segment.launch.py', {'respawn': 'maybe'})


def test_several_cameras_share_one_process(launch_folder: Path) -> None:
    path = launch_folder / 'cameras.launch.py'
    given = {
        'cameras': 'front rear',
        'image': 'color/image_raw',
        'namespace': '/robot1/',
        'autostart': 'false',
    }
    (node,) = fake_launch.run(path, given).nodes
    assert node.executable == 'segment_cameras'
    # One name would be given to all of them.
    assert node.name is None
    assert node.namespace is None
    assert node.arguments == [
        '/robot1/front', '/robot1/rear', '--ros-args', '--log-level', 'info'
    ]  # fmt: skip
    assert ('image', 'color/image_raw') in node.remappings
    assert overrides_of(node)['autostart'] is False
    (alone,) = fake_launch.run(path, {}).nodes
    assert alone.arguments[:2] == ['front', 'rear']


def test_cameras_have_to_be_named(launch_folder: Path) -> None:
    for cameras in ('', 'front front', 'front 2nd'):
        with pytest.raises(ValueError, match='cameras: '):
            fake_launch.run(launch_folder / 'cameras.launch.py', {'cameras': cameras})


def test_launch_files_need_no_model(repository: Path) -> None:
    """`ros2 launch` runs in the system's Python, which has ROS and may have nothing else."""
    code = (
        'import sys\n'
        'class Block:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        '        if name.split(".")[0] in {"torch", "cv2", "safetensors", "PIL", "typer"}:\n'
        '            raise ImportError(f"{name} is blocked")\n'
        'sys.meta_path.insert(0, Block())\n'
        'sys.path.insert(0, "tests/ros")\n'
        'import fake_launch, pathlib, pytest\n'
        'fake_launch.install(pytest.MonkeyPatch())\n'
        'import ament_index_python.packages as packages\n'
        'packages.get_package_prefix = lambda name: "/opt"\n'
        'for path in sorted(pathlib.Path("launch").glob("*.launch.py")):\n'
        '    launched = fake_launch.run(path, {})\n'
        '    print(path.name, len(launched.arguments))\n'
        '    for node in launched.nodes:\n'
        '        if node.executable == "rviz2":\n'
        '            pathlib.Path(node.arguments[-1]).unlink()\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(
        [*FILES, 'console.launch.py', 'rviz.launch.py']
    )
