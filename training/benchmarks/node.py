"""Measures the node from the camera's stamp to the mask in another process.

    python -m training.benchmark node
    python -m training.benchmark node --model tabletop --size 1280x720 --rates 10 30
    python -m training.benchmark node --memory 600 --rates 30
    python -m training.benchmark node --subjects own --model tabletop --cameras 3

A synthetic camera, the node and a consumer run as processes of their own and meet on topics alone,
as in ros2_benchmark: for each size and rate the camera publishes for some seconds, and what arrives
is set against what was sent. The same is done to a plain node as people write them
(:mod:`training.benchmarks.node_peers.plain_node`). The model is a stand-in of known duration, so
that the rest can be told apart from it, or a real one. Results are printed, and written as JSON
and Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape

from training.benchmarks import machine as benchmark_machine
from training.benchmarks.node_cases import (
    SETTLE,
    BenchmarkError,
    Case,
    markdown,
    model_duration,
    summarise_cameras,
)
from training.benchmarks.node_peers.processes import (
    START_TIMEOUT,
    SUBJECTS,
    ChildError,
    ChildProcess,
    names_of,
    prepare_environment,
    running_node,
    start,
)

PACKAGES = ('torch', 'numpy', 'opencv-python-headless', 'ros-kilted-rclpy', 'ros-kilted-fastdds')


def measure(
    node: ChildProcess,
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
        BenchmarkError: A process failed, or too few masks arrived.
        ChildError: A process ended early, or did not start in time.
    """
    arrivals_file = folder / 'arrivals.json'
    arrivals_file.unlink(missing_ok=True)
    names = names_of(cameras)
    topics = ['--output', str(arrivals_file), '--topics']
    topics += [f'/{name}/clipseg/{one}' for name in names for one in outputs] or outputs
    receiver = start(
        'the consumer', 'training.benchmarks.node_peers.receiver', topics, folder / 'receiver.log'
    )
    with ExitStack() as stack:
        stack.callback(receiver.stop)
        receiver.wait_for('receiver ready', START_TIMEOUT)
        width, height = size
        arguments = ['--width', str(width), '--height', str(height), '--rate', str(rate)]
        camera = start(
            'the camera',
            'training.benchmarks.node_peers.camera',
            [*arguments, '--seconds', str(seconds + SETTLE)],
            folder / 'camera.log',
        )
        stack.callback(camera.stop)
        camera.wait_for('publishing', START_TIMEOUT)
        time.sleep(SETTLE)
        began, busy = time.monotonic(), _busy(node)
        memory = list(_watch_memory(node, seconds))
        node.check()
        cpu = (_busy(node) - busy) / (time.monotonic() - began)
        _end_of(camera, camera.join(seconds + START_TIMEOUT))
        stamps = json.loads(camera.lines[-1])['stamps']
        # A queue of frames before a slow node is still worked through.
        time.sleep(1.0)
        _end_of(receiver, receiver.stop())
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


def _end_of(child: ChildProcess, status: int) -> None:
    """Raise BenchmarkError unless a process ended well."""
    if status:
        raise BenchmarkError(f'{child.name} failed (exit status {status}):\n{child.tail()}')


def _watch_memory(node: ChildProcess, seconds: float) -> Iterator[float]:
    """The node's resident memory, megabytes: now, and in up to 60 equal steps until the end."""
    usage = psutil.Process(node.pid)
    steps = max(1, min(60, int(seconds)))
    for step in range(steps + 1):
        yield round(usage.memory_info().rss / 1e6, 1)
        if step < steps:
            time.sleep(seconds / steps)


def _busy(node: ChildProcess) -> float:
    used = psutil.Process(node.pid).cpu_times()
    return float(used.user + used.system)


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
    parser.add_argument('--domain', type=int, help='ROS_DOMAIN_ID; one that is free')
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
    except (BenchmarkError, ChildError) as error:
        console.print(f'[red]failed:[/red] {escape(str(error))}')
        return 1
    result = {
        'machine': benchmark_machine.describe(PACKAGES),
        'cases': [asdict(case) for case in cases],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / 'node.json').write_text(json.dumps(result, indent=2) + '\n', 'utf-8')
    (options.output / 'node.md').write_text(markdown(cases), 'utf-8')
    print(markdown(cases))
    console.print(f'{options.output}/node.json and node.md')
    return 0


def _cases(
    node: ChildProcess, subject: str, options: argparse.Namespace, seconds: float, folder: Path
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
