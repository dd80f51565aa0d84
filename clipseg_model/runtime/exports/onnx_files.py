"""ONNX files whose weights lie elsewhere: in one file for all graphs, or in a checkpoint itself.

An ONNX graph may name the file, the offset and the length of a weight. So the graphs of one model,
which share the image tower, have their weights once; and those of a bundled model read them out of
its ``.safetensors`` file, where they may be of 16 bits and lie in another order: nodes in the graph
undo that, which a runtime computes once, when it loads the file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ExportError
from clipseg_model.runtime.base import require

WEIGHTS = 'weights.bin'

LEAST_VALUES = 256
"""Weights of fewer values stay in their graph."""

_MOST_INSIDE = 1 << 20
"""Bytes of a graph of a bundled model: more are weights that are not read from the checkpoint."""

_ALIGNMENT = 4096
_NUMPY = {'F32': np.float32, 'F16': np.float16, 'I8': np.int8, 'I16': np.int16, 'U8': np.uint8}


@dataclass(frozen=True)
class Place:
    """Where a weight lies, and how it is made of what lies there.

    Attributes:
        file: Name of the file.
        offset: Of its first byte there.
        stored: Values as they lie there.
        order: Axes of those, as they come in the weight.
    """

    file: str
    offset: int
    stored: NDArray[Any]
    order: tuple[int, ...]


class Shelf(Protocol):
    """Where weights lie."""

    def place(self, weight: NDArray[Any]) -> Place | None:
        """Return where a weight lies; None where it must stay in its graph."""
        ...


class NewShelf:
    """A new file of weights, each of which is in it once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open('wb')
        self._offsets: dict[tuple[str, str], int] = {}

    def place(self, weight: NDArray[Any]) -> Place:
        """See :class:`Shelf`."""
        data = np.ascontiguousarray(weight)
        key = (data.dtype.str, hashlib.sha256(data.tobytes()).hexdigest())
        if key not in self._offsets:
            self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
            self._offsets[key] = self._file.tell()
            self._file.write(data.tobytes())
        return Place(self._path.name, self._offsets[key], data, tuple(range(data.ndim)))

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


class Checkpoint:
    """A ``.safetensors`` file of this project, whose weights are found by their values.

    Attributes:
        name: Of the file.
        offsets: Of each tensor: its first byte in the file, and its length, bytes.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        data = path.read_bytes()
        (length,) = struct.unpack('<Q', data[:8])
        header = json.loads(data[8 : 8 + length])
        header.pop('__metadata__', None)
        self.offsets: dict[str, tuple[int, int]] = {}
        self._by_size: dict[int, list[tuple[int, NDArray[Any]]]] = {}
        for name, entry in header.items():
            start, end = (8 + length + value for value in entry['data_offsets'])
            self.offsets[name] = (start, end - start)
            stored = np.frombuffer(data[start:end], _NUMPY[entry['dtype']])
            stored = stored.reshape(entry['shape'])
            self._by_size.setdefault(stored.size, []).append((start, stored))

    def place(self, weight: NDArray[Any]) -> Place | None:
        """See :class:`Shelf`."""
        flat = weight.ravel()
        for offset, stored in self._by_size.get(weight.size, ()):
            values = stored.astype(weight.dtype)
            # A cheap look first: the sums of permuted values are equal but for rounding.
            if not np.isclose(values.sum(dtype=np.float64), flat.sum(dtype=np.float64)):
                continue
            for order in itertools.permutations(range(stored.ndim)):
                if np.array_equal(values.transpose(order).ravel(), flat):
                    return Place(self.name, offset, stored, order)
        return None


def store_weights(model: Any, shelf: Shelf, path: Path) -> None:
    """Write an ONNX model, of which a shelf holds the weights, to a file.

    Args:
        model: An ``onnx.ModelProto``; it is changed.
        shelf: What holds its weights.
        path: Beside the files of the shelf.

    Raises:
        ExportError: Too many weights are left over that the shelf has not.
    """
    onnx = require('onnx', 'onnxruntime', 'export')
    graph, nodes, inside = model.graph, [], 0
    kept = list(graph.initializer)
    del graph.initializer[:]
    for initializer in kept:
        weight = onnx.numpy_helper.to_array(initializer)
        place = shelf.place(weight) if weight.size >= LEAST_VALUES else None
        if place is None:
            graph.initializer.append(initializer)
            inside += weight.nbytes
            continue
        made = list(_made_of(onnx, initializer.name, weight, place))
        nodes += made
        name = f'{initializer.name}/stored' if made else initializer.name
        graph.initializer.append(_reference(onnx, name, place))
    if isinstance(shelf, Checkpoint) and inside > _MOST_INSIDE:
        raise ExportError(
            f'{path.name}: {inside} bytes of weights are not in the checkpoint as they are'
        )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    # Shapes that the exporter inferred: half of a file, and of no use to a runtime.
    del graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ''
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())


def _reference(onnx: Any, name: str, place: Place) -> Any:
    stored = place.stored
    tensor = onnx.TensorProto(
        name=name,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(stored.dtype),
        dims=stored.shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    entries = {'location': place.file, 'offset': place.offset, 'length': stored.nbytes}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _made_of(onnx: Any, name: str, weight: NDArray[Any], place: Place) -> Iterator[Any]:
    """Return the nodes that make a weight of what is stored; none where it is the same."""
    steps: list[tuple[str, dict[str, Any], list[str]]] = []
    stored = place.stored
    if stored.dtype != weight.dtype:
        kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
        steps.append(('Cast', {'to': kind}, []))
    moved = [axis for axis in place.order if stored.shape[axis] != 1]
    if moved != sorted(moved):
        steps.append(('Transpose', {'perm': list(place.order)}, []))
    shape = stored.transpose(place.order).shape if moved != sorted(moved) else stored.shape
    if shape != weight.shape:
        wanted = np.array(weight.shape, np.int64)
        constant = f'{name}/shape'
        yield onnx.helper.make_node(
            'Constant', [], [constant], value=onnx.numpy_helper.from_array(wanted)
        )
        steps.append(('Reshape', {}, [constant]))
    value = f'{name}/stored'
    for number, (kind, attributes, more) in enumerate(steps, start=1):
        result = name if number == len(steps) else f'{name}/{kind.lower()}'
        yield onnx.helper.make_node(kind, [value, *more], [result], **attributes)
        value = result
