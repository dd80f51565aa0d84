"""Once a second: how the node is, on ``/diagnostics``, and in the log where that changes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.utilities import get_rmw_implementation_identifier

from clipseg_model.runtime.devices import reserved_memory
from clipseg_ros.health.diagnostics import (
    Situation,
    diagnostic_array,
    judge,
    namesake,
    no_images,
    present_fault,
)
from clipseg_ros.health.loss import explain_loss
from clipseg_ros.health.memory_watch import MemoryWatch
from clipseg_ros.health.wire_watch import explain_deafness
from clipseg_ros.prompts.set import ActivePrompt, reported
from clipseg_ros.ros.qos import QosWatch, report_output
from clipseg_ros.ros.share import share_path
from clipseg_ros.ros.timing import create_steady_timer
from clipseg_ros.segment.frame_worker import WorkerStatistics
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.stream import CameraStream

_FAULT_SECONDS = 10.0


@dataclass(frozen=True)
class NodeState:
    """The node at a moment; see :class:`~clipseg_ros.health.diagnostics.Situation`.

    ``prompts`` are all, the negative and the disabled ones included.
    """

    state: str
    failure: str
    enabled: bool
    prompts: tuple[ActivePrompt, ...]
    settings: Settings
    stream: CameraStream | None


class NodeReport:
    """Publishes ``/diagnostics``, and logs peers that do not fit and images that stay away."""

    def __init__(self, node: Any, look: Callable[[], NodeState]) -> None:
        self._node, self._look = node, look
        self._silent = self._told_silence = False
        self._namesakes = 0
        self._lossy = self._deaf = False
        self._faults = self._new_faults = 0
        self._fault_at = -math.inf
        self._memory = MemoryWatch()
        # Of its own: that of the stream exists while the node is configured.
        self._watch = QosWatch(node)
        self._publisher = self._watch.create_publisher(
            DiagnosticArray, '/diagnostics', report_output()
        )
        self._timer = create_steady_timer(node, 1.0, self._report)

    def _report(self) -> None:
        node, now = self._node, self._look()
        self._memory.look(_resident)
        watches = (self._watch,) if now.stream is None else (now.stream.watch, self._watch)
        mismatches = [mismatch for watch in watches for mismatch in watch.warn()]
        worker = None if now.stream is None else now.stream.worker
        counts = None if worker is None else worker.statistics()
        situation = self._situation(now, mismatches, counts)
        situation = self._listen(now, situation)
        self._tell_silence(situation, mismatches)
        self._tell_namesakes(situation)
        self._tell_loss(situation)
        self._publisher.publish(
            diagnostic_array(
                f'{node.full_name.lstrip("/")}: segmentation',
                '' if now.stream is None else str(now.stream.segmenter.device),
                judge(situation),
                _values(now, counts) | {'callback_faults': str(self._callback_faults())},
                node.get_clock().now().to_msg(),
            )
        )

    def _listen(self, now: NodeState, situation: Situation) -> Situation:
        """Find out whether images that stay away are on the wire, and say so."""
        if now.stream is None:
            return situation
        # What could not be taken has come.
        heard = bool(situation.callback_fault)
        missing = (
            _is_silent(situation)
            and situation.receives
            and situation.camera_count > 0
            and not heard
        )
        if not now.stream.wire.look(missing):
            self._deaf = False
            return situation
        deaf = explain_deafness(situation.image_topic, situation.idle)
        if not self._deaf:
            self._deaf = True
            self._node.get_logger().error(deaf)
            if now.settings.exit_on_failure:
                self._node.gave_up = True
        return replace(situation, deaf=deaf)

    def _tell_silence(self, situation: Situation, mismatches: Sequence[str]) -> None:
        """Log when images stay away, and when they arrive again."""
        silent = _is_silent(situation)
        if silent == self._silent:
            return
        self._silent = silent
        if silent:
            reason = no_images(situation)
            # What is told of already: peers that do not fit, images that are lost.
            told = (*mismatches, situation.loss, situation.deaf)
            self._told_silence = reason not in told
            if self._told_silence:
                self._node.get_logger().warning(reason)
        elif _is_waiting(situation) and self._told_silence and situation.receives:
            self._node.get_logger().info(f'images arrive on {situation.image_topic}')

    def _find_callback_fault(self) -> str:
        """Return how many callbacks failed of late; empty while none has for some seconds."""
        now, faults = time.monotonic(), self._callback_faults()
        if faults > self._faults:
            self._fault_at = now
            self._new_faults += faults - self._faults
        self._faults = faults
        if now - self._fault_at > _FAULT_SECONDS:
            self._new_faults = 0
            return ''
        return (
            f'{self._new_faults} message(s) or callback(s) failed of late: the log says which, '
            'and why'
        )

    def _callback_faults(self) -> int:
        """Return how many callbacks failed, or had a message that cannot be read."""
        return int(getattr(self._node.executor, 'faults', 0))

    def _count_namesakes(self) -> int:
        own = self._node.get_name(), self._node.get_namespace()
        return max(0, self._node.get_node_names_and_namespaces().count(own) - 1)

    def _tell_namesakes(self, situation: Situation) -> None:
        """Log that another node has the name of this one, once for each that comes."""
        if situation.namesakes > self._namesakes:
            self._node.get_logger().warning(namesake(situation.node))
        self._namesakes = situation.namesakes

    def _tell_loss(self, situation: Situation) -> None:
        """Log when images begin to be lost, and when they are no longer."""
        lossy = bool(situation.loss)
        if lossy and not self._lossy:
            self._node.get_logger().warning(situation.loss)
        elif self._lossy and not lossy:
            self._node.get_logger().info('no images are lost on their way any more')
        self._lossy = lossy

    def _situation(
        self, now: NodeState, mismatches: Sequence[str], counts: WorkerStatistics | None
    ) -> Situation:
        situation = replace(
            Situation.at_rest(
                self._node.full_name, now.state, now.failure, now.enabled, now.prompts
            ),
            watchdog=now.settings.watchdog,
            mismatches=tuple(mismatches),
            namesakes=self._count_namesakes(),
            callback_fault=self._find_callback_fault(),
        )
        stream = now.stream
        if stream is None:
            return situation
        situation = replace(
            situation,
            image_topic=stream.topic,
            camera_count=self._node.count_publishers(stream.topic),
            outputs=tuple(stream.outputs.wanted()),
            receives=stream.images.is_open,
            loss=_loss(stream),
            frame_fault=stream.faults.newest,
            depth_fault=stream.depth.fault(),
            memory_warning=stream.pipeline.memory.warning(),
        )
        if counts is None:
            return situation
        return replace(situation, idle=counts.idle, busy=counts.busy, rate=counts.rate)


def _is_waiting(situation: Situation) -> bool:
    """Return whether images would be segmented."""
    return bool(situation.state == 'active' and situation.enabled and situation.prompts)


def _is_silent(situation: Situation) -> bool:
    """Return whether images are missed that somebody needs, or there is no camera."""
    missed = situation.receives or not situation.camera_count
    late = situation.watchdog and situation.idle > situation.watchdog
    return bool(_is_waiting(situation) and late and missed)


def _values(now: NodeState, counts: WorkerStatistics | None) -> dict[str, str]:
    """Return further facts for the diagnostics."""
    stream = now.stream
    values = {
        'state': now.state,
        'model': '' if stream is None else stream.segmenter.card.name,
        'device': '' if stream is None else str(stream.segmenter.device),
        'prompts': str(sum(entry.enabled for entry in reported(now.prompts))),
        'memory_mb': f'{_resident() / 1e6:.0f}',
    }
    if stream is None:
        return values
    segmenter, pipeline = stream.segmenter, stream.pipeline
    memory = pipeline.memory
    values['image_topic'] = stream.topic
    if segmenter.device.type == 'cuda':
        values['gpu_memory_mb'] = f'{reserved_memory(segmenter.device) / 1e6:.0f}'
    if counts is not None:
        values |= {
            'fps': f'{counts.rate:.2f}',
            'latency_ms': f'{counts.latency * 1e3:.1f}',
            'latency_max_ms': f'{counts.latency_max * 1e3:.1f}',
            'model_ms': f'{pipeline.model_seconds * 1e3:.1f}',
            'age_ms': f'{pipeline.age * 1e3:.1f}',
            'received': str(counts.received),
            'processed': str(counts.processed),
            'dropped': str(counts.dropped),
            'lost': str(stream.lost.count),
            'lost_on_way': str(stream.losses.total),
            'failed': str(counts.failed),
            'refused': str(stream.faults.refused),
            'prompts_at_once': str((memory.warning() and memory.at_once) or 'all'),
            'last_error': present_fault(stream.faults.newest, counts.idle, now.settings.watchdog),
        }
        if now.settings.reuse_below:
            still = segmenter.still
            values |= {'reused': str(still.reused), 'reused_share': f'{still.share:.2f}'}
    return values | stream.depth.values()


def _loss(stream: CameraStream) -> str:
    """Return how many images are lost of late and the remedy; empty while none are."""
    share = stream.losses.share()
    if share is None:
        return ''
    middleware, profile = get_rmw_implementation_identifier(), share_path('config', 'fastdds.xml')
    return explain_loss(share, stream.topic, middleware, str(profile), stream.images.counts_losses)


def _resident() -> int:
    """Return the resident memory of this process, bytes."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')
