"""What only embeds prompts is given back when none has come for a while."""

from __future__ import annotations

import numpy as np
import pytest

from clipseg_model.registry import create_model
from clipseg_model.runtime.exported import KEPT_FOR, ExportedRuntime
from clipseg_model.segmenter import Segmenter

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.fixture
def segmenter() -> Segmenter:
    made = create_model('tabletop', 'cpu', threads=1, runtime='onnxruntime')
    assert isinstance(made.runtime, ExportedRuntime)
    return made


def test_it_is_loaded_anew_with_the_same_answers(segmenter: Segmenter) -> None:
    runtime = segmenter.runtime
    before = runtime.embed_texts(['a red mug'])
    runtime.release_prompt_towers()
    assert not runtime._towers
    assert runtime._read_texts is None
    np.testing.assert_array_equal(runtime.embed_texts(['a red mug']), before)
    assert set(runtime._towers) == {'text'}


def test_it_stays_while_prompts_come(segmenter: Segmenter) -> None:
    runtime = segmenter.runtime
    features = runtime.encode_image(segmenter.preprocessor.pixels(IMAGE))
    condition = runtime.embed_texts(['a red mug'])
    for _ in range(KEPT_FOR - 1):
        runtime.decode(features, condition)
    runtime.embed_texts(['a book'])
    for _ in range(KEPT_FOR - 1):
        runtime.decode(features, condition)
    assert runtime._towers
    runtime.decode(features, condition)
    assert not runtime._towers, 'it was not needed for so many answers'
