"""The figures of the node's benchmark, from stamps and arrivals, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.console import markdown_table

SETTLE = 2.0
"""Seconds at the start of each case that are left out: discovery, first frames, caches."""


class BenchmarkError(RuntimeError):
    """A process of the benchmark failed; the message has the end of its output."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What runs in a case.

    Attributes:
        subject: One of :data:`~training.benchmarks.node_peers.processes.SUBJECTS`.
        model: ``stand-in:MILLISECONDS``, or a name.
        width: Of the frames, pixels.
        height: Of the frames, pixels.
        camera_hz: Frames a second that the camera is to send.
        outputs: Topics with a subscriber; the first one is the mask.
        cameras: Number of cameras with a node each, in one process on one model. All of them have
            the same frames at the same time.
    """

    subject: str
    model: str
    width: int
    height: int
    camera_hz: float
    outputs: tuple[str, ...]
    cameras: int = 1


@dataclass(frozen=True, kw_only=True)
class Case(Plan):
    """The figures of a node; of several cameras, means over the nodes.

    Times are milliseconds; latency is from the camera's stamp to the arrival in another process.

    Attributes:
        sent_hz: Frames a second that the camera sent.
        masks_hz: Masks a second that arrived.
        latency: Median over frames, of the mask.
        latency_p95: 95 % of frames are faster.
        latency_max: Of the slowest.
        complete: Median over frames until the last of all outputs arrived.
        beyond: ``complete`` less the duration of the model; None where that is not known. At
            rates beyond the model's own, it includes the wait for the model.
        age: Mean over time of the age of the newest mask.
        jitter: Standard deviation of the time between two masks.
        dropped: Share of the camera's frames that have no mask, 0…1.
        cpu: Processor time of the process over time; 1 is one core.
        memory_mb: Resident memory of the process at the end.
        growth_mb: Growth of it after the first tenth of the time.
        memory_series_mb: Its course, in equal steps of at least a second.
    """

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


def model_duration(model: str, diagnostics: Sequence[Mapping[str, str]]) -> float | None:
    """Return the time of the model for a frame, milliseconds; None where it is not known.

    Args:
        model: ``stand-in:MILLISECONDS``, or a name.
        diagnostics: Those of the node, once a second.
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
    """Compare what arrived with what was sent.

    Args:
        stamps: Of the camera's frames, nanoseconds, ascending.
        arrivals: For each output (stamp, arrival) of its messages, nanoseconds.
        outputs: The first one is the mask.

    Returns:
        Figures of :class:`Case`, by name, without the frames of the first :data:`SETTLE` seconds.

    Raises:
        BenchmarkError: If fewer than three masks arrived.
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
    # Between two masks, the age of the newest grows from its latency by the gap.
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
    """Return the mean of :func:`summarise` over the nodes of cameras (of the slowest, the maximum).

    Args:
        stamps: As :func:`summarise` takes them; all cameras have the same.
        arrivals: For each topic, as :func:`summarise` takes them.
        outputs: As :func:`summarise` takes them.
        names: Of the cameras; empty for a single one, whose topics are the outputs.
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


def markdown(cases: Sequence[Case]) -> str:
    """Return the table of cases."""
    columns = [
        *('node', 'model', 'size', 'outputs', 'camera Hz', 'masks/s', 'latency ms (95 %)'),
        *('beyond the model ms', 'age ms', 'jitter ms', 'dropped', 'CPU %', 'memory MB (growth)'),
    ]
    rows = []
    for case in cases:
        cameras = '' if case.cameras == 1 else f', {case.cameras} cameras'
        rows.append(
            [
                case.subject + cameras,
                case.model,
                f'{case.width} × {case.height}',
                ', '.join(case.outputs),
                f'{case.camera_hz:g}',
                f'{case.masks_hz:.1f}',
                f'{case.latency:.1f} ({case.latency_p95:.1f})',
                '' if case.beyond is None else f'{case.beyond:.1f}',
                f'{case.age:.1f}',
                f'{case.jitter:.1f}',
                f'{case.dropped:.0%}',
                f'{case.cpu:.0%}',
                f'{case.memory_mb:.0f} ({case.growth_mb:+.1f})',
            ]
        )
    return '\n'.join(markdown_table(columns, rows)) + '\n'
