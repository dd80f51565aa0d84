"""Graphs whose weights lie elsewhere, and texts that are read without torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from clipseg_model.errors import ExportError, PromptError
from clipseg_model.runtime.exports.onnx_files import Checkpoint, NewShelf, store_weights
from clipseg_model.runtime.exports.text_tokens import CLIP, WORD_PIECES, open_tokenizer
from tests.fuzz.mutations import guarded

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')

RNG = np.random.default_rng(0)
STORED = {
    'half': RNG.normal(size=(48, 32)).astype(np.float16),
    'kernel': RNG.normal(size=(8, 32, 3, 3)).astype(np.float16),
    'table': RNG.integers(-100, 100, (40, 32)).astype(np.int8),
}


def model_of(weights: dict[str, Any]) -> Any:
    """Returns each of its weights, times one."""
    nodes, outputs = [], []
    for name, value in weights.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        nodes.append(onnx.helper.make_node('Mul', [name, f'one_{kind}'], [f'out_{name}']))
        outputs.append(onnx.helper.make_tensor_value_info(f'out_{name}', kind, value.shape))
    kinds = {value.dtype for value in weights.values()}
    ones = [
        onnx.helper.make_tensor_value_info(
            f'one_{onnx.helper.np_dtype_to_tensor_dtype(kind)}',
            onnx.helper.np_dtype_to_tensor_dtype(kind),
            [1],
        )
        for kind in kinds
    ]
    held = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, 'weights', ones, outputs, held)
    return onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid('', 18)]
    )


def weights_in(path: Path) -> dict[str, Any]:
    """What a runtime reads out of such a model."""
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    kinds = {'tensor(float)': np.float32, 'tensor(int8)': np.int8}
    ones = {value.name: np.ones(1, kinds[value.type]) for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, ones), strict=True))


def test_weights_of_a_checkpoint_may_be_cast_turned_and_reshaped(tmp_path: Path) -> None:
    save_file(STORED, tmp_path / 'model.safetensors')
    half = STORED['half'].astype(np.float32)
    kernel = STORED['kernel'].astype(np.float32)
    weights = {
        'same': half,
        'turned': np.ascontiguousarray(half.T),
        'flat': half.reshape(12, 128),
        'kernel': np.ascontiguousarray(kernel.transpose(1, 2, 3, 0)),
        'kernel_flat': np.ascontiguousarray(kernel.transpose(1, 0, 2, 3)).reshape(32, -1),
        'small': np.arange(8, dtype=np.float32),
        'own': RNG.normal(size=(30, 30)).astype(np.float32),
    }
    path = tmp_path / 'model.onnx'
    store_weights(model_of(weights), Checkpoint(tmp_path / 'model.safetensors'), path)
    # The first five are not in it: it holds the last two and little else.
    assert path.stat().st_size < weights['own'].nbytes + 3000
    found = weights_in(path)
    for name, expected in weights.items():
        np.testing.assert_array_equal(found[f'out_{name}'], expected)


def test_weights_that_are_not_in_the_checkpoint_are_refused(tmp_path: Path) -> None:
    save_file(STORED, tmp_path / 'model.safetensors')
    other = {'other': RNG.normal(size=(600, 600)).astype(np.float32)}
    with pytest.raises(ExportError, match='1440000 bytes of weights are not in the checkpoint'):
        store_weights(
            model_of(other), Checkpoint(tmp_path / 'model.safetensors'), tmp_path / 'model.onnx'
        )


def test_graphs_of_one_folder_share_their_weights(tmp_path: Path) -> None:
    weight = {'weight': RNG.normal(size=(64, 64)).astype(np.float32)}
    shelf = NewShelf(tmp_path / 'weights.bin')
    for name in ('one.onnx', 'other.onnx'):
        store_weights(model_of(weight), shelf, tmp_path / name)
    shelf.close()
    assert (tmp_path / 'weights.bin').stat().st_size == weight['weight'].nbytes
    for name in ('one.onnx', 'other.onnx'):
        found = weights_in(tmp_path / name)
        np.testing.assert_array_equal(found['out_weight'], weight['weight'])


class TestTokenizer:
    @pytest.fixture(scope='class')
    def clip(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        import open_clip

        from clipseg_model.runtime.split import _clip_tokenizer

        folder, theirs = tmp_path_factory.mktemp('clip'), open_clip.SimpleTokenizer()
        (folder / 'tokenizer.json').write_text(_clip_tokenizer(theirs))
        entry = {'kind': CLIP, 'file': 'tokenizer.json', 'most': 77}
        return theirs, open_tokenizer(entry, folder)

    @pytest.mark.parametrize(
        'text',
        [
            'a mug',
            "The man's RED   coffee-cup, isn't it?",
            'x' * 60,
            'Größe 茶碗 чашка ☕️',
            '&amp;lt;b&gt; \t and\u00a0more',
            'schÃ¶n',
            '12345 3.14 a1b2',
            '',
            '…—“quoted”',
            'a photo of <end_of_text> and <start_of_text>',
        ],
    )
    def test_is_that_of_open_clip(self, clip: Any, text: str) -> None:
        theirs, ours = clip
        expected = theirs([text])[0].numpy()
        found = ours([text])['tokens'][0]
        np.testing.assert_array_equal(found, expected[: len(found)])
        assert not expected[len(found) :].any()

    def test_pads_and_refuses_what_is_too_long(self, clip: Any) -> None:
        _, ours = clip
        tokens = ours(['mug', 'a large red mug'])['tokens']
        assert tokens.dtype == np.int64
        assert tokens.shape == (2, 6)
        assert tokens[0, 3:].tolist() == [0, 0, 0]
        with pytest.raises(PromptError, match='longer than the 77 tokens'):
            ours(['mug ' * 80])

    @pytest.mark.parametrize(
        ('entry', 'words'),
        [
            ({}, 'damaged'),
            ({'kind': CLIP, 'file': 'no.json', 'most': 77}, 'no file beside'),
            ({'kind': CLIP, 'file': 'large', 'most': 77}, 'larger than any'),
            ({'kind': 'x', 'file': 'y'}, 'kind .x.'),
            ({'file': '../secret'}, 'no file beside'),
            ({'file': '/dev/zero'}, 'no file beside'),
            ({'file': 'zero'}, 'no file beside'),
            ({'file': ['y']}, 'no file beside'),
            ({'bytes': -1}, 'no vocabulary has'),
            ({'bytes': 1 << 30}, 'no vocabulary has'),
            ({'bytes': float('inf')}, 'damaged'),
            ({'offset': -1}, 'no vocabulary has'),
        ],
    )
    def test_what_a_manifest_may_say_wrong(
        self, entry: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        good = {'kind': WORD_PIECES, 'file': 'y', 'offset': 0, 'bytes': 9, 'pieces': 1, 'most': 9}
        folder = tmp_path / 'export'
        folder.mkdir()
        (tmp_path / 'secret').write_bytes(b'secret')
        (folder / 'y').write_bytes(b'vocabulary')
        (folder / 'zero').symlink_to('/dev/zero')
        with (folder / 'large').open('wb') as file:
            file.truncate(1 << 34)
        with guarded(5, 300 << 20), pytest.raises(ExportError, match='the model again') as caught:
            open_tokenizer(json.loads(json.dumps({**good, **entry} if entry else {})), folder)
        assert re.search(words, str(caught.value))
