"""Bags, 3D and picking, by their own tests, in an environment without torch."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from bags import pixels, read, record
from ros_peers import ROOT, TINY_MODELS, write_tiny_model
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from clipseg_model.images import read_image
from clipseg_model.registry import create_model
from clipseg_ros.images.conversion import array_to_image
from tests.torch_free import make_environment, variables

# It starts tests of this folder there.
pytestmark = pytest.mark.skipif(find_spec('torch') is None, reason='torch is not installed')

DEMO = ROOT / 'docs' / 'images' / 'demo.png'


@pytest.fixture(scope='module')
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp('torch_free') / 'venv')


def run(python: Path, *words: object, **more: str) -> str:
    done = subprocess.run(
        [python, *map(str, words)],
        cwd=ROOT,
        env=variables(ROOT, **more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f'{done.stdout[-6000:]}\n{done.stderr[-3000:]}'
    return done.stdout


def run_tests(python: Path, *paths: str, **more: str) -> str:
    options = ['-q', '-p', 'no:xdist', '-p', 'no:cacheprovider', '-m', 'not slow']
    return run(python, '-m', 'pytest', *options, *paths, **more)


def test_there_is_no_torch(python: Path) -> None:
    code = 'from importlib.util import find_spec; print([*map(find_spec, ["torch", "onnx"])])'
    assert run(python, '-c', code).strip() == '[None, None]'


def test_a_bag_is_segmented_as_torch_does(python: Path, tmp_path: Path) -> None:
    scene = np.ascontiguousarray(read_image(DEMO)[6:215, 6:286])
    image: Image = array_to_image(scene, 'rgb8', Header(frame_id='lens'))
    bag = record(tmp_path / 'bag', [('/image', image)])
    code = 'from clipseg_ros.cli import app; app()'
    words = ['bag', bag, '-p', 'the mug; book', '-m', 'tabletop', '-o', tmp_path / 'out']
    run(python, '-c', code, *words, '--outputs', 'labels')
    ((_, message),) = read(tmp_path / 'out')['/clipseg/labels']
    found = pixels(message)
    eager = create_model('tabletop', 'cpu', runtime='eager')
    expected = eager.segment(scene, ['the mug', 'book']).labels()
    assert (expected > 0).sum() > 500, 'something is seen'
    assert ((found > 0) & (found == expected)).sum() >= 0.995 * ((found > 0) | (expected > 0)).sum()


def test_tests_of_3d_that_need_no_model(python: Path) -> None:
    files = ('pinhole', 'surface', 'clouds', 'boxes', 'depth_stage', 'stamp_matching')
    said = run_tests(python, *(f'tests/ros/depth/test_{name}.py' for name in files))
    assert 'failed' not in said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_tests_of_bags_3d_and_picking(python: Path, tmp_path: Path) -> None:
    exports = str(tmp_path / 'exports')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CLIPSEG_EXPORTS', exports)
        for name in ('tiny', 'seeing'):
            path = tmp_path / f'{name}.safetensors'
            write_tiny_model(path, sees_pictures=name == 'seeing')
            create_model(path, 'cpu', runtime='onnxruntime')
    folders = ['tests/ros/bag', 'tests/ros/depth', 'tests/ros/prompts/test_prompt_pick.py']
    more = {TINY_MODELS: str(tmp_path), 'CLIPSEG_EXPORTS': exports}
    print(run_tests(python, *folders, 'tests/ros/prompts/test_picks_live.py', **more))
