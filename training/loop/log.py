"""The log of a training run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from clipseg_model.files.atomic_files import write_atomically
from training.loop.curves import draw_curves
from training.loop.run_state import Run
from training.loop.validation import Measured
from training.metrics.outcomes import write_csv


class Log:
    """Writes ``log.jsonl``, TensorBoard's events and a progress bar, in the main process."""

    def __init__(self, run: Run, length: int) -> None:
        self._run, self._length = run, length
        self._pending: list[Tensor] = []
        self._restart_clock()
        self._writer: SummaryWriter | None = None
        shown = run.accelerator.is_main_process
        self._hook = threading.excepthook
        self._events = run.folder.path / 'tensorboard'
        if shown:
            dumped = run.settings.model_dump(mode='json')
            run.folder.begin(dumped, run.step, run.accelerator.num_processes)
            run.folder.trim_log(run.step)
            threading.excepthook = self._thread_failed
            with run.folder.writing(self._events):
                self._writer = SummaryWriter(str(self._events), purge_step=run.step)
            count = sum(value.numel() for value in run.learner.trained().values())
            print(f'{run.samples} samples, {count:,} weights to train, {length} iterations')
        self._bar = tqdm(total=length, initial=run.step, disable=not shown, unit='it')

    def add(self, loss: Tensor, rate: float) -> None:
        """Take the loss of a step in this process; every ``log_every`` steps, write the mean."""
        run, settings = self._run, self._run.settings
        self._pending.append(loss)
        self._seen += settings.batch_size
        self._bar.update()
        if run.step % settings.log_every and run.step != self._length:
            return
        mean = run.accelerator.reduce(torch.stack(self._pending).mean(), 'mean').item()
        self._pending.clear()
        speed = self._seen / (time.monotonic() - self._began)
        self._restart_clock()
        figures = {'loss': mean, 'rate': rate, 'samples_per_second': round(speed, 2)}
        self._write(figures, 'train', figures)
        self._bar.set_postfix(loss=f'{mean:.4f}')

    def add_validation(self, measured: Measured, is_best: bool) -> None:
        """Write the figures and pictures of a validation, and a line for each sample."""
        step, scalars = self._run.step, measured.scalars()
        line = {'validation': scalars, 'samples': measured.samples}
        self._write(line, 'validation', scalars)
        if self._writer is not None:
            samples = self._run.folder.path / f'validation/{step:06d}.csv'
            with self._run.folder.writing(samples):
                write_csv(samples, measured.outcomes)
            with self._run.folder.writing(self._events):
                for number, picture in enumerate(measured.pictures):
                    self._writer.add_image(f'validation/{number}', picture, step, dataformats='HWC')
            figures = ', '.join(f'{name} {value:.4f}' for name, value in scalars.items())
            tqdm.write(f'iteration {step}: {figures}{" (best)" if is_best else ""}')
        self.draw()
        # Speeds are of training alone.
        self._restart_clock()

    def draw(self) -> None:
        """Draw ``curves.png`` of what the log has so far."""
        if self._writer is None:
            return
        path = self._run.folder.path / 'curves.png'
        with self._run.folder.writing(path):
            picture = draw_curves(self._run.folder.path / 'log.jsonl')
            if picture is not None:
                write_atomically(path, picture)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Write what is left."""
        self._bar.close()
        if self._writer is None:
            return
        try:
            if error is None:
                self.draw()
                with self._run.folder.writing(self._events):
                    self._writer.close()
            else:
                # The error that is under way says more.
                with contextlib.suppress(OSError):
                    self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _write(self, line: Mapping[str, Any], group: str, scalars: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        self._run.folder.log({'iteration': self._run.step, **line})
        with self._run.folder.writing(self._events):
            for name, value in scalars.items():
                self._writer.add_scalar(f'{group}/{name}', value, self._run.step)

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """Keep quiet about TensorBoard's thread: its error is raised at the next call."""
        ours = type(failed.thread).__module__.startswith('tensorboard.')
        if not (ours and isinstance(failed.exc_value, OSError)):
            self._hook(failed)

    def _restart_clock(self) -> None:
        self._began, self._seen = time.monotonic(), 0
