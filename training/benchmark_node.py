"""Measures the node from the camera's stamp to the mask in another process.

    python -m training.benchmark node
    python -m training.benchmark node --model tabletop --size 1280x720 --rates 10 30
    python -m training.benchmark node --memory 600 --rates 30
    python -m training.benchmark node --subjects own --model tabletop --cameras 3

A synthetic camera, the node and a consumer run as processes of their own and meet on topics alone,
as in ros2_benchmark: for each size and rate the camera publishes for some seconds, and what arrives
is set against what was sent. The same is done to a plain node as people write them
(:mod:`clipseg_ros.bench_plain_node`). The model is a stand-in of known duration, so that the rest
can be told apart from it, or a real one. Results are printed, and written as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

ROOT = Path(__file__).parents[1]
PROMPTS = 'a red mug; the book; something to drink from; a bottle'
SETTLE = 2.0
"""Seconds at the start of each case that do not count: discovery, first frames, caches."""
START_TIMEOUT = 90.0
SUBJECTS = ('own', 'plain', 'plain-bytes')
"""The node, and the plain one, which hands pixels to messages as numpy arrays or as bytes."""


@dataclass(frozen=True)
class Case:
    """What was measured of one node with one camera.

    Times are milliseconds; latency is from the camera's stamp to the mask's arrival in another
    process, of the last of ``outputs`` where there are several.

    Attributes:
        subject: One of :data:`SUBJECTS`.
        model: ``stand-in:MILLISECONDS``, or a name.
        cameras: How many have a node each, in one process on one model. All of them have the same
            frames at the same time; the figures of frames are means over the nodes, those of
            processor and memory are of the process.
        width: Pixels.
        height: Pixels.
        camera_hz: Rate asked of the camera.
        outputs: What was subscribed to.
        sent_hz: Frames a second that the camera sent.
        masks_hz: Masks a second that arrived.
        latency: Median over frames, of the mask.
        latency_p95: 95 % of frames are faster.
        latency_max: Of the slowest.
        complete: Median over frames until the last of all outputs arrived.
        beyond: ``complete`` less the duration of the model; None where that is not known. At
            rates beyond the model's own, frames wait for the model besides.
        age: Mean over time of the age of the newest mask that the consumer has.
        jitter: Standard deviation of the time between two masks.
        dropped: Share of the camera's frames that no mask ever came of, 0…1.
        cpu: Processor time of the node over time; 1 is one core.
        memory_mb: Resident memory of the node at the end.
        growth_mb: How much it grew after the first tenth of the time.
        memory_series_mb: Its course, in equal steps of at least a second.
    """

    subject: str
    model: str
    width: int
    height: int
    camera_hz: float
    outputs: tuple[str, ...]
    sent_hz: float
    masks_hz: float
    latency: float
    latency_p95: float
    latency_max: float
    complete: float
    beyond: float | None
    age: float
    jitter: float
    dropped: float
    cpu: float
    memory_mb: float
    growth_mb: float
    memory_series_mb: tuple[float, ...] = ()
    cameras: int = 1


class BenchmarkError(RuntimeError):
    """A process of the benchmark failed; the message has the end of its output."""


class Process:
    """A process whose output goes to a file.

    Args:
        name: What messages call it.
        module: Run with ``python -m``.
        arguments: Of the module.
        log: Where its output goes.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self.name, self._log = name, log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                [sys.executable, '-u', '-m', module, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.usage = psutil.Process(self._process.pid)

    def output(self) -> str:
        """Returns what it has written so far."""
        return self._log.read_text(encoding='utf-8', errors='replace')

    def wait_for(self, text: str, timeout: float) -> None:
        """Waits until it writes something.

        Raises:
            BenchmarkError: It does not, or ends.
        """
        deadline = time.monotonic() + timeout
        while text not in self.output():
            self._check(self._process.poll() is None and time.monotonic() < deadline, text)
            time.sleep(0.02)

    def check_running(self) -> None:
        """Makes sure that it has not ended.

        Raises:
            BenchmarkError: It has.
        """
        self._check(self._process.poll() is None, 'the end of the measurement')

    def join(self, timeout: float) -> str:
        """Waits for its end and returns its last line.

        Raises:
            BenchmarkError: It fails, or does not end.
        """
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        self._check(status == 0, 'a good end')
        return self.output().splitlines()[-1]

    def stop(self, timeout: float = 20.0) -> None:
        """Ends it as Ctrl-C does, so that it takes its shared memory with it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _check(self, good: bool, wanted: str) -> None:
        if not good:
            end = '\n'.join(self.output().splitlines()[-15:])
            raise BenchmarkError(f'{self.name}: waited for {wanted!r} in vain; it said:\n{end}')


def names_of(cameras: int) -> list[str]:
    """The namespaces of several cameras' nodes; none for one camera."""
    return [f'camera_{number}' for number in range(1, cameras + 1)] if cameras > 1 else []


def start_node(
    subject: str, model: str, folder: Path, cameras: int = 1, max_batch: int = 0
) -> Process:
    """Starts a node, or that of each camera, and waits until it is ready.

    Args:
        subject: One of :data:`SUBJECTS`.
        model: ``stand-in:MILLISECONDS``, or a name.
        folder: For its output.
        cameras: How many; several need a model that has a name.
        max_batch: The nodes' parameter of that name, where there are several.
    """
    ros = ['--ros-args', '-p', f"prompt:='{PROMPTS}'"]
    if subject != 'own':
        assign = 'bytes' if subject == 'plain-bytes' else 'numpy'
        module = 'clipseg_ros.bench_plain_node'
        arguments = ['--model', model, '--prompts', PROMPTS, '--assign', assign]
    elif model.startswith('stand-in:'):
        module = 'clipseg_ros.bench_stand_in'
        arguments = ['--milliseconds', model.partition(':')[2], *ros]
    elif cameras > 1:
        module = 'clipseg_ros.segment_cameras_node'
        shared = ['-p', f"model:='{model}'", '-p', f'max_batch:={max_batch}', '-r', 'image:=/image']
        arguments = [*names_of(cameras), *ros, *shared]
    else:
        module = 'clipseg_ros.segment_node'
        arguments = [*ros, '-p', f"model:='{model}'"]
    node = Process(f'the node ({subject})', module, arguments, folder / f'{subject}.log')
    try:
        for name in names_of(cameras) or ['']:
            node.wait_for(f'{name}.clipseg]: active:' if name else 'active:', START_TIMEOUT)
    except BenchmarkError:
        node.stop()
        raise
    return node


@contextmanager
def running_node(
    subject: str, model: str, folder: Path, cameras: int = 1, max_batch: int = 0
) -> Iterator[Process]:
    """:func:`start_node`, and stops it."""
    node = start_node(subject, model, folder, cameras, max_batch)
    try:
        yield node
    finally:
        node.stop()


def measure(
    node: Process,
    subject: str,
    model: str,
    size: tuple[int, int],
    rate: float,
    outputs: tuple[str, ...],
    seconds: float,
    folder: Path,
    cameras: int = 1,
) -> Case:
    """Runs a camera and a consumer beside a node.

    Args:
        node: Running.
        subject: What it is.
        model: What it runs.
        size: Width and height of the camera's frames, pixels.
        rate: Frames a second.
        outputs: What the consumer subscribes to; the first counts as the mask.
        seconds: That count.
        folder: For files.
        cameras: How many nodes there are in the process.

    Raises:
        BenchmarkError: A process failed, or no mask arrived.
    """
    arrivals_file = folder / 'arrivals.json'
    arrivals_file.unlink(missing_ok=True)
    names = names_of(cameras)
    topics = ['--output', str(arrivals_file), '--topics']
    topics += [f'/{name}/clipseg/{one}' for name in names for one in outputs] or outputs
    receiver = Process(
        'the consumer', 'clipseg_ros.bench_receiver', topics, folder / 'receiver.log'
    )
    with ExitStack() as stack:
        stack.callback(receiver.stop)
        receiver.wait_for('receiver ready', START_TIMEOUT)
        width, height = size
        arguments = ['--width', str(width), '--height', str(height), '--rate', str(rate)]
        camera = Process(
            'the camera',
            'clipseg_ros.bench_camera',
            [*arguments, '--seconds', str(seconds + SETTLE)],
            folder / 'camera.log',
        )
        stack.callback(camera.stop)
        camera.wait_for('publishing', START_TIMEOUT)
        time.sleep(SETTLE)
        began, busy = time.monotonic(), _busy(node)
        memory = list(_watch_memory(node, seconds))
        node.check_running()
        cpu = (_busy(node) - busy) / (time.monotonic() - began)
        stamps = json.loads(camera.join(seconds + START_TIMEOUT))['stamps']
        # A queue of frames before a slow node is still worked through.
        time.sleep(1.0)
        receiver.stop()
        receiver.join(0.0)
    report = json.loads(arrivals_file.read_text(encoding='utf-8'))
    times = summarise_cameras(stamps, report['arrivals'], outputs, names)
    beyond = None
    # With several cameras the model's time has their waiting for each other in it.
    duration = model_duration(model, report['diagnostics'])
    if duration is not None and cameras == 1:
        beyond = times['complete'] - duration
    return Case(
        subject=subject,
        model=model,
        width=width,
        height=height,
        camera_hz=rate,
        outputs=outputs,
        beyond=beyond,
        cpu=cpu,
        memory_mb=memory[-1],
        growth_mb=memory[-1] - memory[len(memory) // 10],
        memory_series_mb=tuple(memory),
        cameras=cameras,
        **times,
    )


def _watch_memory(node: Process, seconds: float) -> Iterator[float]:
    """The node's resident memory, megabytes: now, and in up to 60 equal steps until the end."""
    steps = max(1, min(60, int(seconds)))
    for step in range(steps + 1):
        yield round(node.usage.memory_info().rss / 1e6, 1)
        if step < steps:
            time.sleep(seconds / steps)


def _busy(node: Process) -> float:
    used = node.usage.cpu_times()
    return float(used.user + used.system)


def model_duration(model: str, diagnostics: Sequence[Mapping[str, str]]) -> float | None:
    """Returns what the model takes, milliseconds.

    Args:
        model: ``stand-in:MILLISECONDS`` says it itself.
        diagnostics: The node's, once a second; None comes back where they say nothing.
    """
    if model.startswith('stand-in:'):
        return float(model.partition(':')[2])
    reported = [float(values['model_ms']) for values in diagnostics if 'model_ms' in values]
    # Before the first frame it is zero.
    return statistics.median(filter(None, reported)) if any(reported) else None


def summarise(
    stamps: Sequence[int],
    arrivals: Mapping[str, Sequence[Sequence[int]]],
    outputs: Sequence[str],
) -> dict[str, float]:
    """Sets what arrived against what was sent.

    Args:
        stamps: Of the camera's frames, nanoseconds, ascending.
        arrivals: For each output (stamp, arrival) of its messages, nanoseconds.
        outputs: The first counts as the mask.

    Returns:
        The times of :class:`Case`, by name. Frames of the first :data:`SETTLE` seconds do not
        count.

    Raises:
        BenchmarkError: Fewer than three masks arrived.
    """
    start, end = stamps[0] + int(SETTLE * 1e9), stamps[-1]
    sent = [stamp for stamp in stamps if stamp >= start]
    seconds = (end - start) / 1e9
    masks = [(s, a) for s, a in arrivals[outputs[0]] if s >= start and a <= end]
    if len(masks) < 3:
        raise BenchmarkError(
            f'{len(masks)} masks of {len(sent)} frames arrived within {seconds:.1f} s: the node is '
            'too slow for this case (more --seconds), or messages are lost (Fast DDS profile)'
        )
    latencies = [(arrival - stamp) / 1e6 for stamp, arrival in masks]
    last: dict[int, list[int]] = {}
    for output in outputs:
        for stamp, arrival in arrivals[output]:
            last.setdefault(stamp, []).append(arrival)
    complete = [
        (max(times) - stamp) / 1e6
        for stamp, times in last.items()
        if start <= stamp and max(times) <= end and len(times) == len(outputs)
    ]
    gaps = [(b - a) / 1e6 for (_, a), (_, b) in pairwise(masks)]
    # Between two masks the newest ages from its latency to its latency and the gap.
    areas = [(late + gap / 2) * gap for late, gap in zip(latencies, gaps, strict=False)]
    return {
        'sent_hz': len(sent) / seconds,
        'masks_hz': (len(masks) - 1) / ((masks[-1][1] - masks[0][1]) / 1e9),
        'latency': statistics.median(latencies),
        'latency_p95': statistics.quantiles(latencies, n=20)[-1],
        'latency_max': max(latencies),
        'complete': statistics.median(complete) if complete else float('nan'),
        'age': sum(areas) / sum(gaps),
        'jitter': statistics.pstdev(gaps),
        'dropped': 1.0 - len({s for s, _ in arrivals[outputs[0]] if s >= start}) / len(sent),
    }


def summarise_cameras(
    stamps: Sequence[int],
    arrivals: Mapping[str, Sequence[Sequence[int]]],
    outputs: Sequence[str],
    names: Sequence[str],
) -> dict[str, float]:
    """:func:`summarise` of each camera's node, and the mean over them (of the slowest, the most).

    Args:
        stamps: As :func:`summarise` takes them; all cameras have the same.
        arrivals: For each topic, as :func:`summarise` takes them.
        outputs: As :func:`summarise` takes them.
        names: Of the cameras; none where there is one only, whose topics are the outputs.
    """
    if not names:
        return summarise(stamps, arrivals, outputs)
    each = [
        summarise(stamps, {one: arrivals[f'/{name}/clipseg/{one}'] for one in outputs}, outputs)
        for name in names
    ]
    return {
        key: (max if key == 'latency_max' else statistics.fmean)([one[key] for one in each])
        for key in each[0]
    }


def describe_machine() -> dict[str, Any]:
    """Returns what the figures depend on: processor, memory, Python and versions."""
    names = ('torch', 'numpy', 'opencv-python-headless', 'ros-kilted-rclpy', 'ros-kilted-fastdds')
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    processor = 'unknown'
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            processor = line.partition(':')[2].strip()
            break
    return {
        'processor': processor,
        'cores': os.cpu_count(),
        'memory_gb': round(psutil.virtual_memory().total / 1e9, 1),
        'python': sys.version.split()[0],
        'versions': versions,
    }


def markdown(cases: Sequence[Case]) -> str:
    """Returns the table of cases."""
    lines = [
        '| node | model | size | outputs | camera Hz | masks/s | latency ms (95 %) | beyond the '
        'model ms | age ms | jitter ms | dropped | CPU % | memory MB (growth) |',
        '|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|',
    ]
    for case in cases:
        beyond = '' if case.beyond is None else f'{case.beyond:.1f}'
        subject = case.subject if case.cameras == 1 else f'{case.subject}, {case.cameras} cameras'
        lines.append(
            f'| {subject} | {case.model} | {case.width} × {case.height} | '
            f'{", ".join(case.outputs)} | {case.camera_hz:g} | {case.masks_hz:.1f} | '
            f'{case.latency:.1f} ({case.latency_p95:.1f}) | {beyond} | {case.age:.1f} | '
            f'{case.jitter:.1f} | {case.dropped:.0%} | {case.cpu:.0%} | '
            f'{case.memory_mb:.0f} ({case.growth_mb:+.1f}) |'
        )
    return '\n'.join(lines) + '\n'


def prepare_environment(domain: int) -> None:
    """Gives the processes a ROS domain of their own and the package's Fast DDS profile."""
    os.environ['ROS_DOMAIN_ID'] = str(domain)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(ROOT / 'config' / 'fastdds.xml'))
    os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
    # Checks each element of a message, refuses what the plain node does, and is off by default.
    os.environ.pop('ROS_PYTHON_CHECK_FIELDS', None)
    os.environ['PYTHONPATH'] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get('PYTHONPATH', '')])
    )


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT') from None
    return width, height


def _outputs(text: str) -> tuple[str, ...]:
    return tuple(text.split(','))


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.benchmark node',
        description='Measures the node from the camera to the mask in another process.',
    )
    parser.add_argument('--model', default='stand-in:30', help='stand-in:MILLISECONDS, or a name')
    parser.add_argument(
        '--size', nargs='+', type=_size, default=[(1280, 720), (1920, 1080)], help='WIDTHxHEIGHT'
    )
    parser.add_argument('--rates', nargs='+', type=float, default=[10.0, 20.0, 30.0, 60.0])
    parser.add_argument('--subjects', nargs='+', choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument(
        '--outputs',
        nargs='+',
        type=_outputs,
        default=[('mask', 'labels')],
        help='what is subscribed to, such as mask,labels; the plain node has these two alone',
    )
    parser.add_argument(
        '--cameras', type=int, default=1, help='nodes in one process on one model, of subject own'
    )
    parser.add_argument(
        '--max-batch', type=int, default=0, help='their parameter: 1 takes turns, 0 is automatic'
    )
    parser.add_argument('--seconds', type=float, default=6.0, help='of each case')
    parser.add_argument(
        '--memory', type=float, metavar='SECONDS', help='one case a node, of this length, instead'
    )
    parser.add_argument('--domain', type=int, default=1 + os.getpid() % 100, help='ROS_DOMAIN_ID')
    parser.add_argument('--output', type=Path, default=Path('runs/benchmark_node'), help='folder')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark.

    Args:
        argv: Arguments; those of the command line where None.

    Returns:
        Exit status: 1 where a process failed.
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.cameras < 1:
        parser.error(f'--cameras is at least 1, not {options.cameras}')
    if options.cameras > 1 and options.subjects != ['own']:
        parser.error("--cameras is for the project's own node: add --subjects own")
    if options.cameras > 1 and options.model.startswith('stand-in:'):
        parser.error('several cameras share a real model: add --model tabletop')
    console = Console(stderr=True, highlight=False)
    prepare_environment(options.domain)
    seconds = options.memory or options.seconds
    cases: list[Case] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for subject in options.subjects:
                with running_node(
                    subject, options.model, Path(folder), options.cameras, options.max_batch
                ) as node:
                    for case in _cases(node, subject, options, seconds, Path(folder)):
                        cases.append(case)
                        console.print(markdown([case]).splitlines()[-1])
    except BenchmarkError as error:
        console.print(f'[red]failed:[/red] {error}', markup=True)
        return 1
    finally:
        subprocess.run([sys.executable, '-m', 'clipseg_ros.shared_memory'], cwd=ROOT, check=False,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    result = {'machine': describe_machine(), 'cases': [asdict(case) for case in cases]}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / 'node.json').write_text(json.dumps(result, indent=2) + '\n', 'utf-8')
    (options.output / 'node.md').write_text(markdown(cases), 'utf-8')
    print(markdown(cases))
    console.print(f'{options.output}/node.json and node.md')
    return 0


def _cases(
    node: Process, subject: str, options: argparse.Namespace, seconds: float, folder: Path
) -> Iterator[Case]:
    for outputs in options.outputs:
        if subject != 'own' and not set(outputs) <= {'mask', 'labels'}:
            continue
        for size in options.size:
            for rate in options.rates:
                yield measure(
                    node, subject, options.model, size, rate, outputs, seconds, folder,
                    options.cameras,
                )  # fmt: skip


if __name__ == '__main__':
    raise SystemExit(main())
