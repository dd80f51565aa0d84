"""What reads images: cv_bridge is used where it is installed and passes its test, or refused."""

from __future__ import annotations

import array
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from clipseg_ros.errors import ImageBackendError, ImageConversionError
from clipseg_ros.images.backend import open_backend
from clipseg_ros.images.conversion import compressed_to_rgb, image_to_rgb
from clipseg_ros.images.encodings import ENCODINGS

STAND_INS = Path(__file__).parents[1] / 'stand_ins'
HEIGHT, WIDTH = 6, 8


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that the backend takes for cv_bridge."""
    spec = importlib.util.spec_from_file_location('cv_bridge', STAND_INS / 'cv_bridge.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    return module


def image(encoding: str, padding: int = 0, seed: int = 3) -> Image:
    """An image of any encoding, with noise in it and after its rows."""
    layout = ENCODINGS[encoding]
    random = np.random.default_rng(seed)
    shape = (int(HEIGHT * layout.rows), WIDTH, layout.channels)
    if layout.dtype.kind == 'f':
        values = random.random(shape).astype(layout.dtype)
    else:
        values = random.integers(0, np.iinfo(layout.dtype).max + 1, shape, dtype=layout.dtype)
    lines = values.view(np.uint8).reshape(shape[0], -1)
    lines = np.hstack((lines, random.integers(1, 255, (shape[0], padding), dtype=np.uint8)))
    data = array.array('B', lines.tobytes())
    return Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=lines.shape[1], data=data)


def compressed(pixels: NDArray[Any], ending: str = '.png') -> CompressedImage:
    data = cv2.imencode(ending, pixels)[1].tobytes()
    return CompressedImage(format=ending[1:], data=array.array('B', data))


def test_the_default_is_our_own_converter() -> None:
    for pressed, own in ((False, image_to_rgb), (True, compressed_to_rgb)):
        backend = open_backend('builtin', pressed)
        assert backend.to_rgb is own
        assert backend.notice == ''


def test_another_name_is_refused() -> None:
    with pytest.raises(ImageBackendError, match="'pillow' is not one of builtin, cv_bridge"):
        open_backend('pillow')


READ = ['mono8', 'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono16', 'rgb16', 'bgr16', 'yuv422',
        'bayer_rggb8', '8UC1', '8UC3', '8UC4', '16UC1', '16UC3', '32FC1', '64FC3']  # fmt: skip


@pytest.mark.parametrize('encoding', READ)
@pytest.mark.parametrize('pixels', [0, 3])
def test_a_good_cv_bridge_reads_what_our_converter_reads(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch, encoding: str, pixels: int
) -> None:
    asked: list[str] = []
    plain = stand_in.CvBridge.imgmsg_to_cv2

    def spy(bridge: Any, message: Image, desired: str = 'passthrough') -> Any:
        asked.append(message.encoding)
        return plain(bridge, message, desired)

    monkeypatch.setattr(stand_in.CvBridge, 'imgmsg_to_cv2', spy)
    backend = open_backend('cv_bridge')
    assert f'cv_bridge in {STAND_INS}' in backend.notice
    layout = ENCODINGS[encoding]
    message = image(encoding, pixels * layout.channels * layout.dtype.itemsize)
    asked.clear()
    np.testing.assert_array_equal(backend.to_rgb(message), image_to_rgb(message))
    assert asked == [encoding]


@pytest.mark.parametrize(
    'message',
    [
        compressed(np.arange(90, dtype=np.uint8).reshape(5, 6, 3)),
        compressed(np.arange(120, dtype=np.uint8).reshape(5, 6, 4)),
        compressed(np.arange(30, dtype=np.uint8).reshape(5, 6)),
        compressed(np.arange(90, dtype=np.uint16).reshape(5, 6, 3) * 700),
        compressed(np.arange(90, dtype=np.uint8).reshape(5, 6, 3), '.jpg'),
        compressed(np.arange(30, dtype=np.uint8).reshape(5, 6), '.jpg'),
    ],
    ids=['png', 'alpha', 'grey', '16 bits', 'jpeg', 'grey jpeg'],
)
def test_compressed_images_are_decoded_alike(
    stand_in: ModuleType, message: CompressedImage
) -> None:
    backend = open_backend('cv_bridge', compressed=True)
    found = backend.to_rgb(message).astype(int)
    # OpenCV takes 8 of the 16 bits, we round.
    assert np.abs(found - compressed_to_rgb(message)).max() <= 1


def unpadded(message: Image, take_step: bool) -> Image:
    """The image without padding; of the wrong bytes, where its step is not looked at."""
    layout = ENCODINGS[message.encoding]
    row = message.width * layout.channels * layout.dtype.itemsize
    step = message.step if take_step else row
    lines = np.frombuffer(message.data, np.uint8)[: message.height * step]
    made = Image(height=message.height, width=message.width, encoding=message.encoding, step=row)
    made.data.frombytes(lines.reshape(message.height, step)[:, :row].tobytes())
    return made


Read = Callable[[Image, str], Any]


def ignoring_step(encoding: str) -> Callable[[Read, Image, str], Any]:
    def fault(read: Read, message: Image, desired: str) -> Any:
        return read(unpadded(message, False) if message.encoding == encoding else message, desired)

    return fault


def changing(encoding: str, change: Callable[[Any], Any]) -> Callable[[Read, Image, str], Any]:
    def fault(read: Read, message: Image, desired: str) -> Any:
        values = read(message, desired)
        return change(values) if message.encoding == encoding else values

    return fault


FAULTS: dict[str, tuple[Callable[[Read, Image, str], Any], str]] = {
    'ignores the step': (
        ignoring_step('bgr8'),
        r'bgr8, rows padded by 6 bytes: \d+ of 105 values are wrong',
    ),
    'ignores the step of 16 bits': (
        ignoring_step('16UC1'),
        r'16UC1, rows padded by 4 bytes: \d+ of 105 values are wrong',
    ),
    'swaps channels': (
        changing('bgr8', lambda values: values[..., ::-1]),
        r'bgr8, rows padded by 0 bytes: \d+ of 105 values are wrong',
    ),
    'loses 16 bits': (
        changing('16UC1', lambda values: (values >> 8).astype(np.uint8)),
        r'16UC1, rows .*cv_bridge makes uint8 of shape \(5, 7\) of this .* not uint16',
    ),
    'keeps 8 bits of 16': (
        changing('16UC1', lambda values: values & 0xFF00),
        r'16UC1, rows padded by 0 bytes: \d+ of 105 values are wrong',
    ),
    'turns images': (
        changing('bgr8', lambda values: values.swapaxes(0, 1)),
        r'bgr8, rows .*cv_bridge makes uint8 of shape \(7, 5, 3\)',
    ),
    'returns nothing': (
        changing('bgr8', lambda values: None),
        r'bgr8, rows .*cv_bridge makes .*NoneType.* of shape \(\)',
    ),
    'raises': (
        changing('bgr8', lambda values: values.nothing),
        r'bgr8, rows .*cannot read this bgr8 image of 7 × 5 \(AttributeError: ',
    ),
}


@pytest.mark.parametrize('name', FAULTS)
def test_what_fails_the_self_test_is_refused_with_the_reason(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plain, (fault, reason) = stand_in.CvBridge.imgmsg_to_cv2, FAULTS[name]

    def faulty(bridge: Any, message: Image, desired: str = 'passthrough') -> Any:
        return fault(partial(plain, bridge), message, desired)

    monkeypatch.setattr(stand_in.CvBridge, 'imgmsg_to_cv2', faulty)
    with pytest.raises(ImageBackendError, match=reason) as refused:
        open_backend('cv_bridge')
    assert str(STAND_INS) in str(refused.value)
    assert 'set image_backend to builtin' in str(refused.value)


def test_swapped_pictures_are_refused_where_images_are_compressed(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = stand_in.CvBridge.compressed_imgmsg_to_cv2
    monkeypatch.setattr(
        stand_in.CvBridge,
        'compressed_imgmsg_to_cv2',
        lambda *words: plain(*words)[..., ::-1],
    )
    assert open_backend('cv_bridge').notice
    with pytest.raises(ImageBackendError, match=r'self-test \(PNG: \d+ of 105 values are wrong'):
        open_backend('cv_bridge', compressed=True)


def test_one_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImageBackendError, match=r'not installed .*apt install ros-') as refused:
        open_backend('cv_bridge')
    assert 'set image_backend to builtin' in str(refused.value)


def test_one_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What numpy 2 says of a module that was built for numpy 1.
    (tmp_path / 'cv_bridge.py').write_text("raise AttributeError('_ARRAY_API not found')\n")
    monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImageBackendError, match='AttributeError: _ARRAY_API not found') as refused:
        open_backend('cv_bridge')
    for part in (str(tmp_path), f'numpy {np.__version__}', 'set image_backend to builtin'):
        assert part in str(refused.value)


def test_rows_that_it_would_misread_are_refused(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = image('bgr8', padding=1)
    backend = open_backend('cv_bridge')
    assert 'padded by parts of a pixel' in backend.notice
    with pytest.raises(ImageConversionError, match=r'step 25 .* bgr8 pixels of 3 bytes') as refused:
        backend.to_rgb(message)
    assert refused.value.kind == 'step'

    plain = stand_in.CvBridge.imgmsg_to_cv2

    def mended(bridge: Any, message: Image, desired: str = 'passthrough') -> Any:
        return plain(bridge, unpadded(message, True), desired)

    monkeypatch.setattr(stand_in.CvBridge, 'imgmsg_to_cv2', mended)
    backend = open_backend('cv_bridge')
    assert 'padded' not in backend.notice
    np.testing.assert_array_equal(backend.to_rgb(message), image_to_rgb(message))


def wrong(**fields: Any) -> Image:
    message = image('rgb8')
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ('message', 'kind', 'reason'),
    [
        (wrong(encoding='nonsense'), 'encoding', "'nonsense' is not known"),
        (wrong(width=0), 'size', 'is empty'),
        (wrong(step=20), 'step', 'too small for 8 pixels'),
        (wrong(data=array.array('B', bytes(100))), 'data', 'is truncated'),
        (wrong(data=array.array('B', bytes(1000))), 'data', 'is mislabelled'),
        (image('nv21'), 'encoding', r'cannot read this nv21 image of 8 × 6 \(CvBridgeError: Unrec'),
        (wrong(encoding='32FC1', width=6), 'values', 'float image with values'),
    ],
    ids=['encoding', 'empty', 'step', 'short', 'long', 'unknown to it', 'float'],
)
def test_bad_images_are_conversion_errors(
    stand_in: ModuleType, message: Image, kind: str, reason: str
) -> None:
    if kind == 'values':
        message.data = array.array('B', np.full((HEIGHT, 6), 9.0, np.float32).tobytes())
    with pytest.raises(ImageConversionError, match=reason) as refused:
        open_backend('cv_bridge').to_rgb(message)
    assert refused.value.kind == kind


def test_an_answer_of_another_size_is_a_conversion_error(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_backend('cv_bridge')
    monkeypatch.setattr(stand_in.CvBridge, 'imgmsg_to_cv2', lambda *_: np.zeros((2, 2), np.uint8))
    with pytest.raises(ImageConversionError, match=r'uint8 of shape \(2, 2\) of this rgb8') as bad:
        backend.to_rgb(image('rgb8'))
    assert bad.value.kind == 'data'


PNG = compressed(np.zeros((40, 40, 3), np.uint8)).data


@pytest.mark.parametrize(
    ('data', 'form', 'kind', 'reason'),
    [
        (PNG[:60], 'png', 'data', 'is truncated'),
        (PNG, 'compressedDepth', 'format', 'is depth'),
        (array.array('B'), 'jpeg', 'data', 'without data'),
        (array.array('B', b'nothing of a picture'), 'jpeg', 'format', 'cannot be decoded'),
    ],
)
def test_bad_compressed_images_are_conversion_errors(
    stand_in: ModuleType, data: Any, form: str, kind: str, reason: str
) -> None:
    with pytest.raises(ImageConversionError, match=reason) as refused:
        open_backend('cv_bridge', compressed=True).to_rgb(CompressedImage(format=form, data=data))
    assert refused.value.kind == kind


def test_what_it_raises_on_a_compressed_image_is_a_conversion_error(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_backend('cv_bridge', compressed=True)

    def broken(*_: Any) -> Any:
        raise cv2.error('out of luck')

    monkeypatch.setattr(stand_in.CvBridge, 'compressed_imgmsg_to_cv2', broken)
    with pytest.raises(ImageConversionError, match='out of luck'):
        backend.to_rgb(CompressedImage(format='png', data=PNG))


def test_cv_bridge_itself() -> None:
    pytest.importorskip('cv_bridge', reason='cv_bridge comes with a ROS 2 installation, not pip')
    backend = open_backend('cv_bridge')
    for encoding in READ:
        message = image(encoding)
        found = backend.to_rgb(message).astype(int)
        assert np.abs(found - image_to_rgb(message)).max() <= 1, encoding
