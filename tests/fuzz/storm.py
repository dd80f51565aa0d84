"""A storm of hostile messages at a node, and a check of what it answers to valid frames meanwhile.

    python -m tests.fuzz.storm --seed 1 --seconds 60 --report FILE

Messages come in bursts. After each the settings of before are restored, and a valid frame has to be
answered within two seconds: of its stamp and size, and with the mask of before the storm. At the
end every request has been answered, no cause has written three lines of the log within a second,
and a minute of normal work later the memory is what it was.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from clipseg_ros.process.child_process import ChildProcess
from tests.long_runs import prepare, report

BURST = 100
ANSWER = 2.0
"""Seconds from the last hostile message, and what restores the settings, to a valid answer."""

NAME = '/storm/clipseg'
PROMPTS = 'the mug; red bowl'
_REST = 60.0  # Seconds of normal work after which the memory is compared.
_PATIENCE = 300.0  # Seconds until a node has started, on a busy machine.
_LINES, _WINDOW = 2, 1.0  # Most lines of a cause in so many seconds.

# Lines that the middleware writes itself of bytes that are no message, and libpng of damaged
# pictures.
_LIBRARIES = re.compile(
    r"$|<<<|>>> \[rcutils\||This error state is being|with this new error message:|  '|"
    r'rcutils_reset_error\(\) should be|sequence size exceeds remaining buffer|libpng '
)

_STAMPED = re.compile(r'\[(\w+)\] \[([\d.]+)\] \[[\w./]+\]: (.*)')


class Storm:
    """A node in a process of its own, a camera, and a listener to its masks.

    Args:
        seed: Of the messages.
        compressed: Whether the node takes compressed images.
        folder: For the model.
    """

    def __init__(self, seed: int, compressed: bool, folder: Path) -> None:
        from ros_peers import NodeProcess, Peer, picture, write_tiny_model
        from sensor_msgs.msg import CompressedImage, Image, PointCloud2

        from clipseg_ros.images.compression import jpeg_of
        from clipseg_ros.ros.interfaces import load_interfaces
        from clipseg_ros.ros.qos import image_output
        from tests.fuzz.hostile import Hostile

        self.problems: list[str] = []
        self.slowest = 0.0
        self.frames = self.bursts = 0
        self.marks: list[tuple[int, float]] = []
        write_tiny_model(folder / 'tiny.safetensors', sees_pictures=True)
        parameters = {
            'model': folder / 'tiny.safetensors',
            'device': 'cpu',
            'threads': 1,
            'prompt': f"'{PROMPTS}'",
            'prompt_file': folder / 'prompts.yaml',
            'image_transport': 'compressed' if compressed else 'raw',
        }
        self.node = NodeProcess(
            'clipseg_ros.segment_node',
            parameters,
            ['-r', '__ns:=/storm'],
            {'PYTHONFAULTHANDLER': '1'},
        )
        self.node.may_fail = True  # rclpy fails at some of what is sent; the node lives on.
        self.node.wait_for('active: tiny', _PATIENCE)
        self.peer = Peer(int(os.environ['ROS_DOMAIN_ID']), 'storm')
        self.masks = self.peer.collect(Image, '/storm/clipseg/mask', image_output())
        for name, kind in (('labels/compressed', CompressedImage), ('points', PointCloud2)):
            self.peer.collect(kind, f'/storm/clipseg/{name}', image_output())
        rgb = picture(60, 80, seed=3)
        self.picture = rgb
        self._jpeg = jpeg_of(rgb, 90) if compressed else None
        topic = '/storm/image/compressed' if compressed else '/storm/image'
        kind = CompressedImage if compressed else Image
        self.camera = self.peer.publisher(kind, topic, image_output())
        self.hostile = Hostile(
            self.peer.node, '/storm', load_interfaces(), np.random.default_rng([seed, compressed])
        )
        self.expected = self.answer(_PATIENCE)
        if self.expected is None:
            raise RuntimeError(f'no answer before the storm:\n{self.node.tail(30)}')

    def answer(self, patience: float) -> Any:
        """Show a valid frame until it is answered; return the mask."""
        from sensor_msgs.msg import CompressedImage

        image = self.peer.stamped(self.picture)
        if self._jpeg is not None:
            image = CompressedImage(header=image.header, format='jpeg', data=self._jpeg)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.camera.publish(image)
            time.sleep(0.03)
            for mask in self.masks[-5:]:
                if mask.header == image.header:
                    self.masks.clear()
                    self.frames += 1
                    return self._checked(mask)
        return None

    def _checked(self, mask: Any) -> Any:
        size = mask.height, mask.width, mask.step, mask.encoding
        if size != (*self.picture.shape[:2], self.picture.shape[1], 'mono8'):
            self.problems.append(f'a mask of {size}')
            return None
        return np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)

    def burst(self) -> None:
        """Send hostile messages, then restore the settings, and look for a valid answer."""
        for _ in range(BURST):
            self.hostile.send()
            time.sleep(0.0005)
        last = time.monotonic()
        if not self.node.running:
            self.problems.append(f'the node has ended: {self.node.tail(30)}')
            return
        self._restore()
        late = bool(self.hostile.unanswered())
        found = self.answer(5.0)
        if found is None and (late or self.peer.get_parameter(NAME, 'prompt') != PROMPTS):
            # What came late, as behind a large picture, has changed the settings again.
            self.settle()
            last = time.monotonic()
        if found is None:
            found = self.answer(20.0)
        seconds = time.monotonic() - last
        self.bursts += 1
        self.marks.append((len(self.node.lines), time.monotonic()))
        self.slowest = max(self.slowest, seconds)
        if found is None:
            self.problems.append(f'burst {self.bursts}: no answer within 20 s')
        elif self._differs(found):
            # A request that waited, as for a frame to pick from, may have set other prompts since.
            self.settle()
            again = self.answer(20.0)
            if again is None or self._differs(again):
                self.problems.append(f'burst {self.bursts}: the mask is wrong')
        if found is not None and seconds > ANSWER:
            self.problems.append(f'burst {self.bursts}: an answer after {seconds:.1f} s')

    def settle(self) -> None:
        """Wait until no request is open that may change settings, and restore them."""
        deadline = time.monotonic() + 10.0
        while self.hostile.unanswered() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._restore()

    def _differs(self, mask: Any) -> bool:
        return bool(np.mean(mask != self.expected) > 1e-3)

    def _restore(self) -> None:
        from rcl_interfaces.srv import SetParametersAtomically
        from rclpy.parameter import Parameter
        from std_srvs.srv import SetBool

        from clipseg_ros.errors import NodeTimeoutError
        from clipseg_ros.segment.parameters import DECLARATIONS

        usual = {
            name: declared.default
            for name, declared in DECLARATIONS.items()
            if declared.when == 'any time' and name != 'prompt'
        }
        messages = [
            Parameter(parameter, value=value).to_parameter_msg()
            for parameter, value in usual.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        name = NAME
        try:
            # Commands that still wait take effect before it, or within a moment after it.
            time.sleep(0.3)
            self.peer.call(SetBool, f'{name}/enable', SetBool.Request(data=True), 20.0)
            result = self.peer.call(
                SetParametersAtomically, f'{name}/set_parameters_atomically', request, 20.0
            )
            # Pictures stay beside a text, unless it is empty.
            for prompts in ('', PROMPTS):
                self.peer.set_parameter(name, 'prompt', prompts, 20.0)
        except NodeTimeoutError as error:
            self.problems.append(f'burst {self.bursts}: {error}')
            return
        if not result.result.successful:
            self.problems.append(f'settings not restored: {result.result.reason}')

    def resident(self) -> float:
        """Return the memory of the node, MB."""
        pages = int(Path(f'/proc/{self.node.pid}/statm').read_text().split()[1])
        return pages * os.sysconf('SC_PAGE_SIZE') / 1e6

    def work(self, seconds: float) -> float:
        """Have the node segment 10 valid frames a second; return its memory then, MB."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.answer(5.0) is None:
                self.problems.append('no answer to a valid frame in normal work')
                break
            time.sleep(0.07)
        return self.resident()

    def close(self) -> int:
        """End the node; return its exit status."""
        self.peer.close()
        # Where it hangs, SIGABRT has it say in which lines.
        return ChildProcess.stop(self.node, (signal.SIGINT, signal.SIGABRT), 60.0)


def crowds(lines: list[str], marks: Sequence[tuple[int, float]] = ()) -> list[str]:
    """Return the causes that wrote more lines than two in a second, and lines that are too long.

    Args:
        lines: Of the log.
        marks: How many there were at which times, seconds: of lines without a time of their own it
            is known when they were written.
    """
    found = [f'a line of {len(line)} characters: {line[:80]}' for line in lines if len(line) > 1500]
    times: dict[str, list[float]] = {}
    for line in lines:
        if match := _STAMPED.match(line):
            times.setdefault(f'{match[1]} {_cause(match[3])}', []).append(float(match[2]))
    for cause, moments in times.items():
        for first, last in zip(moments, moments[_LINES:], strict=False):
            if last - first < _WINDOW:
                found.append(f'{_LINES + 1} lines in {last - first:.2f} s: {cause}')
                break
    for (before, begin), (after, end) in pairwise(marks):
        new = [line for line in lines[before:after] if not _STAMPED.match(line)]
        counts = Counter(_cause(line) for line in new if not _LIBRARIES.match(line))
        most = _LINES * (1 + (end - begin) / _WINDOW)
        found += [
            f'{count} lines in {end - begin:.2f} s: {cause}'
            for cause, count in counts.items()
            if count > most
        ]
    return found


def _cause(line: str) -> str:
    """Return what a line tells of: what a peer chose does not tell causes apart."""
    place = re.search(r'\([\w./-]+\.py:\d+\)$', line)
    return re.sub(r"'.*?'|\d+", '#', line)[:32] + (place[0] if place else '')


def storm(seed: int, seconds: float, rest: float, compressed: bool) -> dict[str, Any]:
    """Run a storm, then normal work for ``rest`` seconds; return the report."""
    with tempfile.TemporaryDirectory() as folder:
        one = Storm(seed, compressed, Path(folder))
        try:
            # What is made at the first use of a feature stays, and is no leak.
            if rest >= _REST:
                one.hostile.fill()
            one.burst()
            one.settle()
            before = one.work(min(rest, 20.0))
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and one.node.running:
                one.burst()
            if one.node.running:
                one.settle()
            peak = one.resident() if one.node.running else 0.0
            after = one.work(rest) if one.node.running else 0.0
            time.sleep(1.0)
            waiting = Counter(one.hostile.unanswered())
        finally:
            status = one.close()
        lines = one.node.lines
    problems = one.problems + crowds(lines, one.marks)
    if waiting:
        problems.append(f'not answered: {dict(waiting)}')
    if status != 0:
        problems.append(f'the node ended with status {status}: {one.node.tail(30)}')
    if rest >= _REST and after > 1.1 * before:
        problems.append(f'memory {before:.0f} MB before and {after:.0f} MB after')
    if any('Traceback' in line for line in lines):
        problems.append('a traceback in the log')
    return {
        'seed': seed,
        'transport': 'compressed' if compressed else 'raw',
        'messages': sum(one.hostile.sent.values()),
        'kinds': len(one.hostile.sent),
        'bursts': one.bursts,
        'valid_frames': one.frames,
        'slowest_answer_s': round(one.slowest, 2),
        'memory_mb': {'before': round(before), 'storm': round(peak), 'after': round(after)},
        'log_lines': len(lines),
        'lines_of_libraries': sum(bool(_LIBRARIES.match(line)) for line in lines),
        'problems': problems,
        'log_tail': lines[-200:] if problems else [],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--rest', type=float, default=60.0)
    parser.add_argument('--compressed', action='store_true')
    parser.add_argument('--report', type=Path)
    given = parser.parse_args()
    prepare()
    found = storm(given.seed, given.seconds, given.rest, given.compressed)
    return report(found, given.report)


if __name__ == '__main__':
    raise SystemExit(main())
