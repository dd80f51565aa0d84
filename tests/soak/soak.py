"""The soak: a camera at 30 Hz, prompts that change, faults, and a checker of every answer.

    make soak                                a quarter of an hour, report in soak/report.json
    make soak ARGS='--minutes 3 --seed 5'

The node and the camera are processes of their own, started again when they end, as a launch file
does. The faults come in turn: see :data:`FAULTS`. Every mask that arrives has to have stamp,
frame_id and size of an image that the camera sent, and the pixels that the model finds in that
image by the prompts of before or after the last change. Exits with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.long_runs import prepare, report

RATE = 30.0
FRAME = 'lens'
BACK, START = 5.0, 30.0
"""Seconds from a fault, or the end of it, to the next answer; and from the end of a process."""

PROMPTS = ('the mug', 'red bowl', 'a chair', 'blue mug; the mug', 'the mug; red bowl; a chair')


class Supervisor:
    """Keeps a process running, and counts its ends.

    Args:
        start: Starts it.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start, self.process = start, start()
        self.ended: Counter[str] = Counter()
        self.expected = False

    def look(self) -> None:
        """Start it again if it has ended; an end that nobody asked for is noted."""
        if self.process.running:
            return
        status = self.process.join(1.0)
        self.ended['killed' if self.expected else f'by itself, status {status}'] += 1
        if not self.expected:
            print(self.process.tail(30), file=sys.stderr)
        self.expected = False
        self.process = self._start()

    def kill(self) -> None:
        """Kill it, as the kernel does where memory is short."""
        self.expected = True
        self.process.send_signal(signal.SIGKILL)


class Checker:
    """Compares every mask with what the model finds in the image of its stamp.

    Args:
        model: Path of the model.
        pictures: What the camera shows: picture n at a stamp whose nanoseconds are n in the last
            three digits.
    """

    def __init__(self, model: Path, pictures: list[Any]) -> None:
        from clipseg_model.registry import create_model

        self._segmenter = create_model(model, 'cpu', 1)
        self._pictures = pictures
        self._known: dict[tuple[int, str], Any] = {}
        self.texts: list[tuple[float, str]] = []
        self.first = ''
        self.answers = 0
        self.last = time.monotonic()
        self.wrong: Counter[str] = Counter()
        self.examples: list[str] = []

    def take(self, mask: Any) -> None:
        """Check an answer."""
        from clipseg_model.prompts import parse_prompts

        self.answers += 1
        self.last = time.monotonic()
        stamp = mask.header.stamp
        number = stamp.nanosec % 1000
        if number >= len(self._pictures) or mask.header.frame_id != FRAME:
            self._fail('stamp or frame_id', f'{stamp.sec}.{stamp.nanosec} {mask.header.frame_id}')
            return
        height, width = self._pictures[number].shape[:2]
        if (mask.height, mask.width, mask.step, mask.encoding) != (height, width, width, 'mono8'):
            self._fail('size', f'{mask.width} × {mask.height}, step {mask.step}')
            return
        found = np.frombuffer(mask.data, np.uint8).reshape(height, width)
        # The prompts of now, and those of before, as the last change may be under way; and those of
        # the start, until the node and its peer have met.
        for text in [self.first, *(text for _, text in self.texts[-1:-4:-1])]:
            key = number, text
            if key not in self._known:
                results = self._segmenter.segment(self._pictures[number], parse_prompts(text))
                self._known[key] = np.where(results.labels() > 0, 255, 0).astype(np.uint8)
            if np.mean(found != self._known[key]) <= 2e-3:
                return
        self._fail('pixels', f'picture {number}, prompts {[text for _, text in self.texts[-3:]]}')

    def _fail(self, what: str, example: str) -> None:
        self.wrong[what] += 1
        if len(self.examples) < 20:
            self.examples.append(f'{what}: {example}')


class Soak:
    """The processes, a peer that changes prompts and listens, and the faults.

    Args:
        folder: For the model, the file of prompts, and a small file system that is filled.
        seed: Of the changes.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        from ros_peers import Peer, picture, write_tiny_model
        from sensor_msgs.msg import Image
        from std_msgs.msg import String

        from clipseg_ros.ros.qos import command_input, image_output

        self.rng = np.random.default_rng(seed)
        self.folder = folder
        self.model = folder / 'tiny.safetensors'
        write_tiny_model(self.model)
        self.pictures = [picture(120, 160, seed=number) for number in range(8)]
        self.checker = Checker(self.model, self.pictures)
        self.shift = folder / 'shift'
        self.shift.write_text('0')
        self.node = Supervisor(self._start_node)
        self.camera = Supervisor(self._start_camera)
        self.peer = Peer(int(os.environ['ROS_DOMAIN_ID']), 'soak')
        self.masks = self.peer.collect(Image, '/soak/clipseg/mask', image_output())
        self.texts = self.peer.node.create_publisher(
            String, '/soak/clipseg/prompt', command_input()
        )
        self.events: list[dict[str, Any]] = []
        self.memory: list[float] = []

    def _start_node(self) -> Any:
        from ros_peers import NodeProcess

        parameters = {
            'model': self.model,
            'device': 'cpu',
            'threads': 1,
            'prompt': f"'{PROMPTS[0]}'",
            'prompt_file': self.folder / 'disk' / 'prompts.yaml',
        }
        self.checker.first = PROMPTS[0]
        arguments = ['-r', '__ns:=/soak']
        process = NodeProcess('clipseg_ros.segment_node', parameters, arguments, afresh=True)
        process.may_fail = True
        return process

    def _start_camera(self) -> Any:
        from ros_peers import NodeProcess

        script = str(Path(__file__).with_name('camera.py'))
        return NodeProcess(script, script=[str(self.shift), f'{RATE:g}', FRAME], afresh=True)

    def work(self, seconds: float) -> None:
        """Listen, change the prompts now and then, and keep the processes running."""
        from std_msgs.msg import String

        end = time.monotonic() + seconds
        change = time.monotonic() + self.rng.uniform(0.5, 3.0)
        while time.monotonic() < end:
            self.node.look()
            self.camera.look()
            while self.masks:
                self.checker.take(self.masks.pop(0))
            if time.monotonic() >= change:
                text = str(self.rng.choice(PROMPTS))
                self.checker.texts.append((time.monotonic(), text))
                self.texts.publish(String(data=text))
                change = time.monotonic() + self.rng.uniform(0.5, 3.0)
            time.sleep(0.01)

    def until_answered(self, patience: float) -> float:
        """Work until the next answer; return the seconds, infinite where there is none in time."""
        started = time.monotonic()
        self.masks.clear()
        self.checker.last = 0.0
        while self.checker.last < started:
            if time.monotonic() - started > patience:
                return float('inf')
            self.work(0.05)
        return self.checker.last - started

    def fault(self, name: str, act: Callable[[Soak], None], patience: float) -> None:
        """Inject a fault, and measure how long the next answer takes."""
        act(self)
        seconds = self.until_answered(patience)
        self.events.append({'fault': name, 'seconds_to_answer': round(seconds, 2)})

    def resident(self) -> float:
        """Return the memory of the node, MB."""
        pages = int(Path(f'/proc/{self.node.process.pid}/statm').read_text().split()[1])
        return pages * os.sysconf('SC_PAGE_SIZE') / 1e6

    def close(self) -> tuple[int, int]:
        """End all; return the exit statuses of the node and the camera."""
        self.peer.close()
        return self.node.process.stop(), self.camera.process.stop()


def kill_camera(soak: Soak) -> None:
    soak.camera.kill()
    soak.work(0.5)


def kill_node(soak: Soak) -> None:
    soak.node.kill()
    soak.work(0.5)


def clock_back(soak: Soak) -> None:
    """Set the camera's clock an hour back, and a while later right again."""
    soak.shift.write_text('-3600')
    soak.work(3.0)
    soak.shift.write_text('0')


def full_disk(soak: Soak) -> None:
    """Have the node save its prompts where nothing can be written any more."""
    from std_srvs.srv import Trigger

    from clipseg_ros.errors import NodeTimeoutError

    disk = soak.folder / 'disk'
    disk.mkdir(exist_ok=True)
    filler = disk / 'filler'
    mounted = os.system(f'mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null') == 0
    try:
        if mounted:
            filler.write_bytes(bytes(60_000))
            try:
                with filler.open('ab') as file:
                    file.write(bytes(60_000))
            except OSError:
                pass
        try:
            answer = soak.peer.call(Trigger, '/soak/clipseg/save_prompts', Trigger.Request(), 10.0)
            if mounted and answer.success:
                soak.checker.wrong['prompts saved to a full disk'] += 1
        except NodeTimeoutError as error:
            soak.checker.wrong[f'full disk: {error}'] += 1
    finally:
        if mounted:
            os.system(f'umount {disk}')
    if not mounted:
        soak.events.append({'fault': 'full disk', 'skipped': 'mount needs privileges'})


def short_memory(soak: Soak) -> None:
    """Leave the node 30 MB of addresses beyond what it has, for three seconds."""
    import resource

    pid = soak.node.process.pid
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[0])
    size = pages * os.sysconf('SC_PAGE_SIZE')
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 30_000_000, resource.RLIM_INFINITY))
    soak.work(3.0)
    if soak.node.process.running:
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


FAULTS: dict[str, Callable[[Soak], None]] = {
    'camera killed': kill_camera,
    'node killed': kill_node,
    'clock back by an hour': clock_back,
    'full disk': full_disk,
    'memory limit': short_memory,
}


def run(minutes: float, seed: int, patience: float) -> dict[str, Any]:
    """Run the soak; return the report."""
    from clipseg_ros.process.shared_memory import SHARED_MEMORY, remove_orphans

    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), seed)
        try:
            first = soak.until_answered(300.0)
            started = time.monotonic()
            end = started + 60.0 * minutes
            pause = max(2.0, min(20.0, 60.0 * minutes / (3 * len(FAULTS))))
            soak.work(min(20.0, pause))
            before = soak.resident()
            turn = 0
            while time.monotonic() < end:
                name = list(FAULTS)[turn % len(FAULTS)]
                soak.fault(name, FAULTS[name], patience)
                turn += 1
                soak.work(pause)
                soak.memory.append(soak.resident())
            statuses = soak.close()
        except BaseException:
            soak.node.process.stop()
            soak.camera.process.stop()
            raise
        left = [str(path) for path in SHARED_MEMORY.glob('fastdds_*')]
        orphans = remove_orphans()
    slowest: dict[str, float] = {}
    for event in soak.events:
        seconds = event.get('seconds_to_answer', 0.0)
        slowest[event['fault']] = max(slowest.get(event['fault'], 0.0), seconds)
    late = {
        name: seconds
        for name, seconds in slowest.items()
        if seconds > (START if 'killed' in name else BACK)
    }
    problems = [f'{what}: {count}' for what, count in soak.checker.wrong.items()]
    problems += [f'{name}: an answer after {seconds} s' for name, seconds in late.items()]
    problems += [
        f'{who} ended {how}: {count}'
        for who, one in (('node', soak.node), ('camera', soak.camera))
        for how, count in one.ended.items()
        if how != 'killed'
    ]
    if any(statuses):
        problems.append(f'exit statuses {statuses}')
    if soak.memory and soak.memory[-1] > 1.1 * before:
        problems.append(f'memory {before:.0f} MB before and {soak.memory[-1]:.0f} MB after')
    return {
        'seed': seed,
        'minutes': round((time.monotonic() - started) / 60, 1),
        'first_answer_s': round(first, 1),
        'answers': soak.checker.answers,
        'wrong': dict(soak.checker.wrong),
        'examples': soak.checker.examples,
        'faults': dict(Counter(event['fault'] for event in soak.events)),
        'slowest_answer_after_s': slowest,
        'ended': {'node': dict(soak.node.ended), 'camera': dict(soak.camera.ended)},
        'memory_mb': {'before': round(before), 'after': [round(size) for size in soak.memory[-3:]]},
        'shared_memory': {'files_of_others_or_ours': len(left), 'orphans_removed': len(orphans)},
        'problems': problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=15.0)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--patience', type=float, default=60.0)
    parser.add_argument('--folder', type=Path, default=Path('soak'))
    given = parser.parse_args()
    prepare()
    found = run(given.minutes, given.seed, given.patience)
    return report(found, given.folder / 'report.json')


if __name__ == '__main__':
    raise SystemExit(main())
