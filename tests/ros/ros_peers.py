"""What the topic tests share: a tiny model, nodes in processes of their own, and plain peers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from warm_python import WarmPython

from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.process.child_process import ChildProcess
from clipseg_ros.prompts.text import survive_yaml
from clipseg_ros.ros.peer import Peer as PlainPeer
from clipseg_ros.ros.share import PROFILE_VARIABLES

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / 'config' / 'fastdds.xml'
WORDS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'the', 'red', 'blue', 'mug', 'bowl', 'chair')
NOTICE = 'Random weights: its masks mean nothing.'
TINY_MODELS = 'CLIPSEG_TINY_MODELS'
"""Variable that names a folder of models which were written, and exported, where there is torch.

They are ``tiny.safetensors``, and ``seeing.safetensors``, which pictures make a difference to.
"""


def write_tiny_model(path: Path, sees_pictures: bool = False) -> None:
    """Writes a checkpoint with random weights that knows :data:`WORDS` and answers at once.

    Args:
        path: The file.
        sees_pictures: Whether support images make a difference. Random towers embed all pictures
            nearly alike: what differs is stretched then.
    """
    if TINY_MODELS in os.environ:
        name = 'seeing' if sees_pictures else 'tiny'
        shutil.copy(Path(os.environ[TINY_MODELS], f'{name}.safetensors'), path)
        return
    import torch

    from clipseg_model.modeling.bundled.small_clip import SmallClip
    from clipseg_model.modeling.clipseg import CLIPSeg
    from clipseg_model.weights.checkpoints import save_checkpoint

    torch.manual_seed(0)
    packed = zlib.compress('\n'.join(WORDS).encode())
    towers = SmallClip(
        vocabulary_size=len(WORDS),
        vocabulary_bytes=len(packed),
        word_dim=8,
        width=32,
        num_blocks=3,
        grid=4,
        embed_dim=16,
        text_width=32,
        text_blocks=1,
        max_pieces=12,
    )
    towers.text.vocabulary.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    towers.text.table.copy_(torch.randint(-127, 128, towers.text.table.shape, dtype=torch.int8))
    towers.text.scale.fill_(1 / 64)
    model = CLIPSeg(towers, [0, 2], dim=16, num_heads=4, feedforward=32, head='refined')
    with torch.no_grad():
        # Random heads answer near 0 everywhere: stretch them, so that masks have both values.
        model.decoder.head.deconv2.weight *= 20
        if sees_pictures:
            _stretch_pictures(towers.eval())
    card = {'name': 'tiny', 'input_size': 64, 'description': 'For tests.', 'notice': NOTICE}
    save_checkpoint(path, model.eval(), card)


def _stretch_pictures(towers: Any) -> None:
    """Makes tokens and embeddings differ as pictures differ from a grey one."""
    import torch

    stem, grey = towers.stem_proj, torch.zeros(1, 3, 64, 64)
    seen: list[torch.Tensor] = []
    hook = stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    towers.image_tokens(grey, [2])
    hook.remove()
    middle = seen[0].flatten(0, -2).mean(0)
    stem.bias -= 299 * (stem.weight @ middle)
    stem.weight *= 300
    taps, _ = towers.image_tokens(grey, [2])
    towers.norm.bias -= towers.norm(taps[0][0, 0])
    towers.proj.weight *= 30


def wait_until(condition: Callable[[], Any], timeout: float = 10.0, what: str = '') -> Any:
    """Returns the first true value of a condition.

    Raises:
        AssertionError: There is none in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f'not within {timeout} s: {what or condition}'
        time.sleep(0.01)


def ros_arguments(parameters: dict[str, Any], arguments: Sequence[str] = ()) -> list[str]:
    """A command line with ROS parameters."""
    command = ['--ros-args', *arguments]
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    return command


CALLBACK_FAULT = 'a callback failed, and the node lives on'


#: Where Python looks for modules in processes with the package's own messages, if they are built.
BUILT_PATH = f'{os.environ.get("PYTHONPATH", "")}:{Path(__file__).parent}'


@cache
def warm_python(path: str) -> WarmPython:
    """What forks nodes off that look for modules there, as long as this process lives."""
    return WarmPython(ROOT, {**os.environ, 'PYTHONPATH': path})


#: Variables that are read when a node is made, or later; others are as good as none once Python and
#: the libraries have started.
READ_LATE = {
    'CLIPSEG_MODELS',
    *PROFILE_VARIABLES,
    'ROS_DOMAIN_ID',
    'ROS_PYTHON_CHECK_FIELDS',
}


class NodeProcess(ChildProcess):
    """A node in a process of its own.

    Attributes:
        may_fail: Whether callbacks of it may raise an exception.

    Args:
        module: Run with ``python -m``.
        parameters: ROS parameters.
        arguments: Further ROS arguments, such as remappings.
        script: Arguments of ``module``, which is a file then, in place of those.
        environment: Variables that it gets beside those of this process.
        folder: Its working folder.
        afresh: Whether Python starts anew, as for users. Else its imports are done already, unless
            a variable of ``environment`` would come too late.
    """

    def __init__(
        self,
        module: str,
        parameters: dict[str, Any] | None = None,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        script: Sequence[str] | None = None,
        folder: Path = ROOT,
        afresh: bool = False,
    ) -> None:
        words = ['-m', module, *ros_arguments(parameters or {}, arguments)]
        if script is not None:
            words = [module, *script]
        variables = {**os.environ, 'PYTHONPATH': str(ROOT), **(environment or {})}
        path = variables['PYTHONPATH']
        late = set(environment or ()) <= READ_LATE | {'PYTHONPATH'}
        afresh = afresh or find_spec('torch') is None
        if afresh or not late or path not in {str(ROOT), BUILT_PATH}:
            command = [sys.executable, '-u', *words]
            super().__init__(module, command, environment=variables, folder=folder)
            return
        self.name, self.log = module, None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - read while the process lives
        output = self._output.fileno()
        self._process: Any = warm_python(path).start(words, output, folder, variables)

    may_fail = False

    def count(self, text: str, since: int = 0) -> int:
        return sum(text in line for line in self.lines[since:])

    def stop(self, signals: Sequence[int] = (signal.SIGINT,), patience: float = 15.0) -> int:
        """Ends the process as a user would, who asks once; returns its exit status.

        Raises:
            AssertionError: It does not end, and is killed.
        """
        status = super().stop(signals, patience)
        assert status != -signal.SIGKILL, f'{self.name} had to be killed:\n{self.tail()}'
        faults = [line for line in self.lines if CALLBACK_FAULT in line and not self.may_fail]
        assert not faults, faults
        return status


def told_of_prompts(
    node: NodeProcess, peer: PlainPeer, name: str, text: str, expected: str, since: int
) -> str:
    """Waits until a node has taken a text of prompts that was sent to it.

    Args:
        node: Its process.
        peer: Any.
        name: Of the node.
        text: What was sent. The node says nothing where it changes nothing: then its parameter is
            looked at, after a while.
        expected: What is in the line of its log.
        since: Number of lines of the log before.

    Returns:
        That line; empty where nothing has changed.
    """
    earliest = time.monotonic() + 2.0  # A line may wait for its turn.

    def taken() -> tuple[str, ...]:
        lines = [line for line in node.lines[since:] if expected in line]
        if lines:
            return (lines[0],)
        late = time.monotonic() > earliest
        return ('',) if late and peer.get_parameter(name, 'prompt') == survive_yaml(text) else ()

    line: str = wait_until(taken, 40.0, f'{expected!r}\n{node.tail()}')[0]
    return line


@contextmanager
def running_node(*words: Any, ready: str = 'active: tiny', **options: Any) -> Iterator[NodeProcess]:
    """A node in a process of its own, which ends well, without a traceback.

    Args:
        words: As :class:`NodeProcess` takes them.
        ready: What it says before the tests begin; nothing to wait for where empty.
        options: As :class:`NodeProcess` takes them.
    """
    node = NodeProcess(*words, **options)
    try:
        if ready:
            node.wait_for(ready)
        yield node
    finally:
        status = node.stop()
    assert status == 0, node.output
    assert 'Traceback' not in node.output, node.output


def answer_of(script: str, environment: dict[str, str]) -> Any:
    """What a peer that runs as a process of its own answers, as JSON.

    Args:
        script: Its file in the folder processes; it gets the number of the ROS domain.
        environment: Variables that it gets beside those of this process, the domain among them.
    """
    file = Path(__file__).parent / 'processes' / script
    answer = subprocess.run(
        [sys.executable, file, environment['ROS_DOMAIN_ID']],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


class Peer(PlainPeer):
    """A node of this process that sends and receives what tests need."""

    def __init__(self, domain: int, name: str = 'peer') -> None:
        super().__init__(name, domain)

    def collect(self, message_type: Any, topic: str, qos: Any) -> list[Any]:
        """Subscribes; returns the list that messages are appended to."""
        received: list[Any] = []
        self.node.create_subscription(message_type, topic, received.append, qos)
        return received

    def publisher(self, message_type: Any, topic: str, qos: Any, matched: int = 1) -> Any:
        """A publisher, once it has found its subscribers."""
        publisher = self.node.create_publisher(message_type, topic, qos)
        wait_until(
            lambda: publisher.get_subscription_count() >= matched, what=f'subscriber of {topic}'
        )
        return publisher

    def stamped(self, pixels: NDArray[Any], encoding: str = 'rgb8', frame: str = 'camera') -> Image:
        """An image of now."""
        header = Header(stamp=self.node.get_clock().now().to_msg(), frame_id=frame)
        return array_to_image(pixels, encoding, header)


def picture(height: int = 120, width: int = 160, seed: int = 0) -> NDArray[np.uint8]:
    """Some RGB picture with structure."""
    generator = np.random.default_rng(seed)
    rgb = generator.integers(0, 60, (height, width, 3), dtype=np.uint8)
    rgb[height // 4 : height // 2, width // 4 : width // 2] = (220, 40, 40)
    return rgb


def shared_memory_files(process: int | str = 'self') -> set[str]:
    """Names of Fast DDS's shared-memory files that a process has mapped."""
    lines = Path(f'/proc/{process}/maps').read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if '/dev/shm/' in line}
    return {Path(path).name for path in paths if re.search(r'/fast(dds|rtps)_', path)}


def stamp_of(message: Any) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def until_answered(publisher: Any, image: Any, *received: list[Any]) -> list[Any]:
    """Publishes an image until it is answered, by a message with its stamp, in each list.

    A publisher that knows a best-effort subscriber may be unknown to it yet, and a new subscriber
    of an output to the node: what is sent once may go unheard until they have met.

    Returns:
        The newest answer of each list.
    """

    def answers() -> list[Any]:
        publisher.publish(image)
        time.sleep(0.05)
        found = [[m for m in list(one) if stamp_of(m) == stamp_of(image)] for one in received]
        return [messages[-1] for messages in found] if all(found) else []

    return wait_until(answers, what='an answer')
