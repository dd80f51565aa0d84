"""The shell commands of README.md and docs/*.md, and why some are not executed by tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r'^ *```(\w*)\n(.*?)^ *```', re.MULTILINE | re.DOTALL)
_SHELL = re.compile(r'(ros2|clipseg|python3?|make|pip|export|source|sudo|docker) ')


class Command(NamedTuple):
    """A line of a shell block, continued lines joined."""

    page: str
    line: str


def commands() -> list[Command]:
    """All of them, once for each page."""
    found: dict[Command, None] = {}
    for page in [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]:
        if page.name == 'reference.md':  # Messages alone, as the files have them.
            continue
        for language, body in _FENCE.findall(page.read_text(encoding='utf-8')):
            lines = re.sub(r'\\\n\s*', ' ', body).splitlines()
            if language == 'console':
                lines = [line[2:] for line in lines if line.startswith('$ ')]
            elif language not in ('bash', 'sh') and not (
                language == '' and any(map(_SHELL.match, lines))
            ):
                continue
            for line in lines:
                if line.strip() and not line.startswith('#'):
                    found[Command(page.name, line.strip())] = None
    return list(found)


REASONS = {
    r'(git clone|cd |mkdir|ln -s|wget|tar|for file in|touch|unset|sudo|rosdep|pip install)':
        'prepares a machine: tests/test_pip_install.py installs, setup_env.sh is tested by itself',
    r'(python3 -m venv|colcon build|AMENT_PREFIX_PATH|source |make env && source|make interfaces)':
        'builds: tests/ros/test_colcon_build.py does so, in a workspace of its own',
    r'docker ': 'needs docker: tests/test_docker.py reads the files',
    r'(python -m training|torchrun|tensorboard|python data/|\$[RTEC] |[RTECPA]=)':
        'takes hours, or data that is not here: tests/training run the same commands, reduced',
    r'export OMP_': 'for training',
    r'python -m pytest': 'the tests',
    r'clipseg (download|convert)': 'needs a network: tests/model/weights run them on a fake hub',
    r'clipseg (export|segment .*--runtime)': 'tests/model/runtime run them; they take minutes',
    r'clipseg segment .*(--camera|--zoom detector)': 'needs a webcam, or weights that are not here',
    r'clipseg segment my_data': 'tests/training/test_training_doc.py runs it',
    r'clipseg console': 'serves until Ctrl-C: tests/console and tests/ros/console start it',
    r'clipseg bag': 'tests/ros/bag run it on bags that they write',
    r'ros2 run rqt_image_view|ros2 launch foxglove_bridge': 'of other packages',
    r'ros2 run clipseg_ros camera .*/dev/video0': 'needs a webcam',
    r'(export )?ROS_SECURITY_|ros2 security |POLICY=|ros2 run .*--enclave':
        'needs SROS 2: tests/ros/test_security_policy.py compares the policy with the node',
    r'ros2 run clipseg_ros .*runtime:=openvino': 'exports a model first, which takes minutes',
}  # fmt: skip
"""Beginning of commands → why tests/ros/test_docs_commands.py does not execute them."""


def reason_against(command: Command) -> str:
    """Why a command is not executed; empty where it is."""
    return next((why for how, why in REASONS.items() if re.match(how, command.line)), '')
