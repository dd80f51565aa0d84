"""Damage to a sample, where its format has a structure: in bytes, in JSON, and inside of others."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_json_text

_REACH = 4000
"""Bytes of a large file that are damaged at once: in the middle of weights nothing is found."""


def damage(path: Path, rng: np.random.Generator, others: Sequence[bytes] = ()) -> str:
    """Damage a file, or one file of a folder, in place; return its name.

    ``others`` are files that parts may come from.
    """
    if path.is_dir():
        files = sorted(entry for entry in path.rglob('*') if entry.is_file())
        # That one holds little that matters, and is read first.
        weights = np.array([1.0 if file.name == 'metadata.yaml' else 8.0 for file in files])
        path = files[rng.choice(len(files), p=weights / weights.sum())]
    change = _CHANGES.get(path.suffix)
    if change is not None and rng.random() < 0.7:
        change(path, rng)
    else:
        _damage_part(path, rng, others)
    return path.name


def _damage_part(path: Path, rng: np.random.Generator, others: Sequence[bytes] = ()) -> None:
    data = path.read_bytes()
    at = int(rng.choice([0, max(0, len(data) - _REACH), rng.integers(0, len(data) + 1)]))
    part = data[at : at + _REACH] if len(data) > 4 * _REACH else data
    at = at if len(data) > 4 * _REACH else 0
    path.write_bytes(data[:at] + mutate_bytes(part, rng, others) + data[at + len(part) :])


def _damage_json(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(mutate_json_text(json.loads(path.read_text()), rng))


def _damage_yaml(path: Path, rng: np.random.Generator) -> None:
    path.write_text(yaml.safe_dump(mutate_json(yaml.safe_load(path.read_text()), rng)))


def _damage_safetensors(path: Path, rng: np.random.Generator) -> None:
    """Change the header, one of the texts that it holds, or the packed vocabulary."""
    data = path.read_bytes()
    length = struct.unpack('<Q', data[:8])[0]
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    metadata = header.get('__metadata__', {})
    texts = [key for key, value in metadata.items() if value.startswith(('{', '['))]
    packed = [key for key in header if key.endswith('text.vocabulary')]
    match rng.integers(0, 4):
        case 0 if texts:
            key = texts[rng.integers(0, len(texts))]
            text = mutate_json_text(json.loads(metadata[key]), rng)
            header['__metadata__'] = {**metadata, key: text.decode(errors='replace')}
        case 1 if packed:
            begin, end = header[packed[0]]['data_offsets']
            changed = mutate_bytes(body[begin:end], rng)[: end - begin].ljust(end - begin, b'\0')
            body = body[:begin] + changed + body[end:]
        case 2:
            text = mutate_bytes(data[8 : 8 + length], rng)
            path.write_bytes(struct.pack('<Q', len(text)) + text + body)
            return
        case _:
            header = mutate_json(header, rng)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + body)


def _damage_zip(path: Path, rng: np.random.Generator) -> None:
    """Change the pickle in an archive of torch.save, whose checksums stay right."""
    if not zipfile.is_zipfile(path):
        _damage_part(path, rng)
        return
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in entries.items():
            archive.writestr(
                name, mutate_bytes(content, rng) if name.endswith('data.pkl') else content
            )


_CHANGES: dict[str, Callable[[Path, np.random.Generator], None]] = {
    '.json': _damage_json,
    '.yaml': _damage_yaml,
    '.safetensors': _damage_safetensors,
    '.pth': _damage_zip,
}
