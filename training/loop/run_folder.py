"""The folder of a training run: settings, environment, log and checkpoints, replaced atomically.

One run writes to a folder at a time: see :meth:`RunFolder.claimed`.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import write_atomically

PACKAGES = ('torch', 'accelerate', 'open_clip_torch', 'timm', 'numpy', 'safetensors', 'tensorboard')


#: What file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunError(ClipsegError):
    """A run cannot begin, go on, or be written down."""


class RunFolder:
    """Names and writes the files of a run.

    Attributes:
        last: The newest checkpoint.
        best: The checkpoint with the best validation score.
        model: The trained model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / 'last.pt'
        self.best = path / 'best.pt'
        self.model = path / 'model.safetensors'

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other runs out of the folder while the block runs, from other machines too.

        The system frees the folder when this process ends, however it ends. Where the file system
        has no locks, a warning says that nothing keeps others out.

        Raises:
            RunError: Another run has it; which one, where and since when is in the message.
        """
        path = self.path / 'run.lock'
        with self.writing(path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = path.open('a+', encoding='utf-8')
        with lock:
            try:
                # Unlike a lock by flock, this one is not passed on to processes that load samples.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    lock.seek(0)
                    holder = lock.read().strip() or 'another run'
                    raise RunError(
                        f'{self.path} is in use by {holder}: wait for it or stop it, or give '
                        'another --output'
                    ) from error
                print(
                    f'{path} cannot be locked ({error.strerror}): make sure that no other run '
                    'writes to this folder',
                    file=sys.stderr,
                )
            with self.writing(path):
                lock.truncate(0)
                lock.write(_this_process())
                lock.flush()
            yield

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Turn an OSError of the block, which writes ``path``, into a RunError with the remedy."""
        try:
            yield
        except OSError as error:
            kept = f'; {self.last.name} is kept' if self.last.exists() else ''
            raise RunError(
                f'{path} could not be written: {error}{kept}. Make room, then go on with --resume'
            ) from error

    def begin(
        self,
        settings: Mapping[str, Any],
        start: int,
        processes: int,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the settings, and a record of commit, command, environment and ``more``."""
        text = yaml.safe_dump(dict(settings), sort_keys=False)
        with self.writing(self.path / 'config.yaml'):
            write_atomically(self.path / 'config.yaml', text)
        record = {
            'start': start,
            'commit': git_commit(),
            'command': sys.argv,
            'processes': processes,
            **environment(),
            **(more or {}),
        }
        path = self.path / f'run_{start:06d}.json'
        with self.writing(path):
            write_atomically(path, json.dumps(record, indent=2))

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to ``log.jsonl``; raise RunError where it cannot be."""
        path = self.path / 'log.jsonl'
        with self.writing(path), path.open('a', encoding='utf-8') as log:
            log.write(json.dumps(dict(line)) + '\n')

    def trim_log(self, start: int) -> None:
        """Drop the log lines of iterations after ``start``, which will run again."""
        path = self.path / 'log.jsonl'
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                if json.loads(line)['iteration'] <= start:
                    kept.append(line + '\n')
            except ValueError:
                # The line that a killed run was writing.
                continue
        with self.writing(path):
            write_atomically(path, ''.join(kept))

    def save(self, path: Path, state: Mapping[str, Any]) -> None:
        """Write a checkpoint; raise RunError where it cannot be, and the older one is as it was."""
        # In memory first: where the disk is full, torch's own writer does not say so.
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            write_atomically(path, buffer.getvalue())
        except OSError as error:
            kept = f'; the earlier {path.name} is untouched' if path.exists() else ''
            raise RunError(
                f'{path} could not be written: {error}{kept}. Make room, then go on with --resume'
            ) from error

    def load(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint, weights and plain values only, or raise RunError."""
        try:
            state: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
        except Exception as error:  # torch, pickle and zip each raise their own kinds
            raise RunError(f'{path} is not a readable checkpoint: {error}') from error
        return state


def _this_process() -> str:
    began = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
    command = ' '.join(Path(word).name if word == sys.argv[0] else word for word in sys.argv)
    return f'process {os.getpid()} on {socket.gethostname()}, which began {began} ({command})\n'


def git_commit() -> str:
    """Return the commit of the checkout, marked where the tree differs, or that there is none."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude', '*']
    folder = Path(__file__).parent
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return found.stdout.strip() if found.returncode == 0 else 'not in a git checkout'


def environment() -> dict[str, Any]:
    """Return versions and hardware."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = 'not installed'
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        'python': platform.python_version(),
        'system': platform.platform(),
        'packages': versions,
        'cuda': torch.version.cuda,
        'gpus': gpus,
        'cpus': os.cpu_count(),
    }


def frozen_fingerprint(module: nn.Module) -> str:
    """Return the digest of all that is not trained: frozen weights and buffers."""
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        if name not in trained:
            digest.update(name.encode())
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()
