"""Measure the node from the camera's stamp to the mask in another process.

    python -m training.benchmark node
    python -m training.benchmark node --model tabletop --size 1280x720 --rates 10 30
    python -m training.benchmark node --memory 600 --rates 30
    python -m training.benchmark node --subjects own --model tabletop --cameras 3

A synthetic camera, the node and a consumer run as processes of their own, as in ros2_benchmark. For
each size and rate the camera publishes for some seconds, and what arrives is compared with what was
sent. The baseline is a plain node as people write them
(:mod:`training.benchmarks.node_peers.plain_node`). The model is a stand-in of known duration, or a
real one. Results are printed, and written as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.markup import escape

from clipseg_model.files.atomic_files import write_atomically
from training.benchmarks.arguments import frame_size
from training.benchmarks.machine import describe
from training.benchmarks.node_cases import (
    SETTLE,
    BenchmarkError,
    Case,
    Plan,
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
from training.console import write_figures

PEERS = 'training.benchmarks.node_peers'
PACKAGES = ('torch', 'numpy', 'opencv-python-headless', 'ros-kilted-rclpy', 'ros-kilted-fastdds')


def run_case(node: ChildProcess, plan: Plan, seconds: float, folder: Path) -> Case:
    """Run a camera and a consumer beside a node.

    Args:
        node: The process of the subject.
        plan: What it runs, and what the camera and the consumer do.
        seconds: Length of the measurement.
        folder: For files.

    Raises:
        BenchmarkError: If a process failed, or too few masks arrived.
        ChildError: If a process ended early, or did not start in time.
    """
    arrivals_file = folder / 'arrivals.json'
    arrivals_file.unlink(missing_ok=True)
    names = names_of(plan.cameras)
    topics = [f'/{name}/clipseg/{one}' for name in names for one in plan.outputs] or plan.outputs
    receiver = start(
        'the consumer',
        f'{PEERS}.receiver',
        ['--output', str(arrivals_file), '--topics', *topics],
        folder / 'receiver.log',
    )
    with ExitStack() as stack:
        stack.callback(receiver.stop)
        receiver.wait_for('receiver ready', START_TIMEOUT)
        options = {'width': plan.width, 'height': plan.height, 'rate': plan.camera_hz}
        options['seconds'] = seconds + SETTLE
        words = [word for name, value in options.items() for word in (f'--{name}', str(value))]
        camera = start('the camera', f'{PEERS}.camera', words, folder / 'camera.log')
        stack.callback(camera.stop)
        camera.wait_for('publishing', START_TIMEOUT)
        time.sleep(SETTLE)
        began, busy = time.monotonic(), _busy(node)
        memory = list(_watch_memory(node, seconds))
        node.check()
        cpu = (_busy(node) - busy) / (time.monotonic() - began)
        _check_end(camera, camera.join(seconds + START_TIMEOUT))
        stamps = json.loads(camera.lines[-1])['stamps']
        # A slow node is still at work on the frames in its queue.
        time.sleep(1.0)
        _check_end(receiver, receiver.stop())
    report = json.loads(arrivals_file.read_text(encoding='utf-8'))
    times: dict[str, Any] = summarise_cameras(stamps, report['arrivals'], plan.outputs, names)
    # With several cameras, the model's time includes the wait for each other.
    duration = model_duration(plan.model, report['diagnostics']) if plan.cameras == 1 else None
    return Case(
        **vars(plan),
        beyond=None if duration is None else times['complete'] - duration,
        cpu=cpu,
        memory_mb=memory[-1],
        growth_mb=memory[-1] - memory[len(memory) // 10],
        memory_series_mb=tuple(memory),
        **times,
    )


def _check_end(child: ChildProcess, status: int) -> None:
    """Raise a BenchmarkError if a process failed."""
    if status:
        raise BenchmarkError(f'{child.name} failed (exit status {status}):\n{child.tail()}')


def _watch_memory(node: ChildProcess, seconds: float) -> Iterator[float]:
    """Yield the resident memory, megabytes: now, and in up to 60 equal steps until the end."""
    usage = psutil.Process(node.pid)
    steps = max(1, min(60, int(seconds)))
    for step in range(steps + 1):
        yield round(usage.memory_info().rss / 1e6, 1)
        if step < steps:
            time.sleep(seconds / steps)


def _busy(node: ChildProcess) -> float:
    used = psutil.Process(node.pid).cpu_times()
    return float(used.user + used.system)


def _outputs(text: str) -> tuple[str, ...]:
    return tuple(text.split(','))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.benchmark node',
        description='Measure the node from the camera to the mask in another process.',
    )
    option = parser.add_argument
    option('--model', default='stand-in:30', help='stand-in:MILLISECONDS, or a name')
    sizes = [(720, 1280), (1080, 1920)]
    option('--size', nargs='+', type=frame_size, default=sizes, help='WIDTHxHEIGHT')
    option('--rates', nargs='+', type=float, default=[10.0, 20.0, 30.0, 60.0])
    option('--subjects', nargs='+', choices=SUBJECTS, default=list(SUBJECTS))
    option(
        '--outputs',
        nargs='+',
        type=_outputs,
        default=[('mask', 'labels')],
        help='with a subscriber, such as mask,labels; the plain node has only these two',
    )
    option('--cameras', type=int, default=1, help='nodes in one process on one model; own only')
    option('--max-batch', type=int, default=0, help='their parameter: 1 takes turns, 0 automatic')
    option('--seconds', type=float, default=6.0, help='of each case')
    option('--memory', type=float, metavar='SECONDS', help='instead: one long case for each node')
    option('--domain', type=int, help='ROS_DOMAIN_ID; one that is free')
    option('--output', type=Path, default=Path('runs/benchmark_node'), help='folder')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark.

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
    cases: list[Case] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for case in _run_all(options, Path(folder)):
                cases.append(case)
                console.print(markdown([case]).splitlines()[-1])
    except (BenchmarkError, ChildError) as error:
        console.print(f'[red]failed:[/red] {escape(str(error))}')
        return 1
    report = {'machine': describe(PACKAGES), 'cases': [asdict(case) for case in cases]}
    write_figures(options.output / 'node.json', report)
    write_atomically(options.output / 'node.md', markdown(cases))
    print(markdown(cases))
    console.print(f'{options.output}/node.json and node.md')
    return 0


def _run_all(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    seconds = options.memory or options.seconds
    for subject in options.subjects:
        setup = (subject, options.model, folder, options.cameras, options.max_batch)
        with running_node(*setup) as node:
            for outputs, (height, width), rate in product(
                options.outputs, options.size, options.rates
            ):
                if subject == 'own' or set(outputs) <= {'mask', 'labels'}:
                    plan = Plan(
                        subject=subject,
                        model=options.model,
                        width=width,
                        height=height,
                        camera_hz=rate,
                        outputs=outputs,
                        cameras=options.cameras,
                    )
                    yield run_case(node, plan, seconds, folder)


if __name__ == '__main__':
    raise SystemExit(main())
