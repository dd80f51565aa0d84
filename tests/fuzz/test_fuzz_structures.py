"""Structures that a peer or a file may make of valid parts: read, or refused in our words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from clipseg_model.errors import ClipsegError
from clipseg_model.files.small_files import parse_json, parse_yaml
from clipseg_model.model_card import ModelCard
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.images.encodings import ENCODINGS
from clipseg_ros.prompts.messages import read_message
from clipseg_ros.prompts.set import PromptSet
from clipseg_ros.prompts.text import read_prompts, write_prompts
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.segment.parameters import DECLARATIONS

EXAMPLES = int(os.environ.get('FUZZ_EXAMPLES', '150'))

thorough = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    # The same ones each time, unless a seed is given.
    derandomize='FUZZ_EXAMPLES' not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

numbers = st.integers() | st.floats()
marks = st.text(alphabet='[]{}:,-&*!?|>#"\' \n0123456789abe.~', max_size=80)
words = (
    st.text(max_size=60)
    | st.sampled_from(['the mug', 'a;b', 'x: y', '!z', '\n', '', ' ', '2020-13-45', '!!bool x'])
    | marks
)
scalars = st.none() | st.booleans() | numbers | words
values = scalars | st.lists(scalars, max_size=5)
trees = st.recursive(
    scalars, lambda part: st.lists(part) | st.dictionaries(words, part), max_leaves=9
)


def attempt(act: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a call returns, and why it was refused; anything but an error of ours fails."""
    try:
        return act(*arguments), ''
    except (ClipsegError, ImageConversionError) as error:
        return None, str(error)


@thorough
@given(name=st.sampled_from(sorted(DECLARATIONS)), value=values)
def test_parameters(name: str, value: Any) -> None:
    declaration = DECLARATIONS[name]
    typed, refused = attempt(declaration.typed, value)
    if refused:
        assert name in refused
    elif not declaration.find_problem(typed):
        declaration.read(typed)


@thorough
@given(text=words | st.lists(words, max_size=6))
def test_texts_of_prompts(text: Any) -> None:
    prompts, refused = attempt(read_prompts, text)
    if refused:
        return
    again = read_prompts(write_prompts(prompts))
    assert [(p.text, p.label, p.negative) for p in again] == [
        (p.text, p.label, p.negative) for p in prompts
    ]


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Of any encoding, with sizes that fit, or do not."""
    encoding = draw(st.sampled_from(sorted(ENCODINGS)) | words)
    width, height = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    known = ENCODINGS.get(encoding, ENCODINGS['rgb8'])
    step = width * known.channels * known.dtype.itemsize + draw(st.sampled_from([0, 0, 1, 4]))
    size = int(height * known.rows) * step
    made = Image(width=width, height=height, encoding=encoding, step=step)
    made.is_bigendian = draw(st.integers(0, 255))
    made.data = draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=50))
    if draw(st.booleans()):
        field = draw(st.sampled_from(['width', 'height', 'step']))
        setattr(made, field, draw(st.integers(0, 2**32 - 1)))
    return made


@thorough
@given(image=images())
def test_images(image: Image) -> None:
    rgb, refused = attempt(image_to_rgb, image)
    if refused:
        assert 10 < len(refused) < 500
    else:
        assert (rgb.dtype, rgb.shape) == (np.uint8, (image.height, image.width, 3))


INTERFACES: Any = load_interfaces()
# The generated classes refuse the largest numbers of 32 bits themselves.
single = st.floats(-(2.0**126), 2.0**126, width=32) | st.sampled_from([float('nan'), float('inf')])


@pytest.mark.skipif(
    INTERFACES is None, reason='the messages are not built: `make test` builds them'
)
@thorough
@given(
    fields=st.lists(
        st.fixed_dictionaries(
            {
                'id': st.integers(0, 255),
                'name': words,
                'phrase': words,
                'threshold': single,
                'presence_threshold': single,
                'weight': single,
                'negative': st.booleans(),
                'enabled': st.booleans(),
            },
            optional={'image': images(), 'mask': images()},
        ),
        max_size=4,
    )
)
def test_messages_of_prompts(fields: list[dict[str, Any]]) -> None:
    active = PromptSet()
    _, refused = attempt(
        lambda: active.replace([read_message(INTERFACES.Prompt(**each), {}) for each in fields])
    )
    if refused:
        assert len(refused) < 2000
        return
    ids = [entry.id for entry in active.active]
    assert len(set(ids)) == len(ids) == len(fields)
    assert all(1 <= number <= 254 for number in ids)


@thorough
@given(text=marks)
def test_small_files(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        _, refused = attempt(parse, text, 'the file')
        assert not refused or (refused.startswith('the file') and len(refused) < 500)


@thorough
@given(tree=trees)
def test_cards(tree: Any) -> None:
    stored = tree if isinstance(tree, dict) else {'name': 'x', 'details': tree}
    _, refused = attempt(ModelCard.from_stored, stored, {}, Path('a.safetensors'))
    assert not refused or 15 < len(refused) < 2000
