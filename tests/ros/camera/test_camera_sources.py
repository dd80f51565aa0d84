from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from std_msgs.msg import Header

from clipseg_model.images import IMAGE_SUFFIXES
from clipseg_ros.camera import sources
from clipseg_ros.camera.node import camera_info
from clipseg_ros.camera.sources import open_source
from clipseg_ros.errors import SourceError


def flat(red: int, height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    return np.full((height, width, 3), (red, 10, 200), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, red in (('b.png', 2), ('a.png', 1), ('c.png', 3)):
        assert cv2.imwrite(str(tmp_path / name), flat(red)[..., ::-1])
    (tmp_path / 'notes.txt').write_text('no picture')
    return tmp_path


def test_folder_in_order_and_round(folder: Path) -> None:
    source = open_source(str(folder))
    frames = [source.frame(0.0) for _ in range(5)]
    assert [frame.rgb[0, 0].tolist() for frame in frames if frame] == [
        [red, 10, 200] for red in (1, 2, 3, 1, 2)
    ]
    assert frames[0] is not None
    assert frames[0].rgb.shape == (40, 60, 3)
    assert frames[0].depth is frames[0].intrinsics is frames[0].instances is None


def test_folder_without_loop_ends(folder: Path) -> None:
    source = open_source(str(folder), loop=False)
    assert [source.frame(0.0) is None for _ in range(5)] == [False, False, False, True, True]


def test_single_picture(folder: Path) -> None:
    source = open_source(str(folder / 'b.png'))
    for _ in range(2):
        frame = source.frame(0.0)
        assert frame is not None
        assert frame.rgb[0, 0].tolist() == [2, 10, 200]


@pytest.mark.parametrize('suffix', sorted(IMAGE_SUFFIXES))
def test_every_kind_of_picture_that_the_models_read(tmp_path: Path, suffix: str) -> None:
    assert cv2.imwrite(str(tmp_path / f'a{suffix}'), flat(1))
    frame = open_source(str(tmp_path)).frame(0.0)
    assert frame is not None
    assert frame.rgb.shape == (40, 60, 3)


@pytest.mark.parametrize(
    ('asked', 'shape'),
    [((30, 20), (20, 30, 3)), ((30, 0), (20, 30, 3)), ((0, 80), (80, 120, 3))],
)
def test_resizing(folder: Path, asked: tuple[int, int], shape: tuple[int, int, int]) -> None:
    frame = open_source(str(folder), width=asked[0], height=asked[1]).frame(0.0)
    assert frame is not None
    assert frame.rgb.shape == shape


def test_a_damaged_picture_is_named_and_the_next_one_comes(folder: Path) -> None:
    (folder / 'b.png').write_bytes(b'damaged')
    source = open_source(str(folder))
    source.frame(0.0)
    with pytest.raises(SourceError, match=r'b\.png cannot be decoded'):
        source.frame(0.0)
    frame = source.frame(0.0)
    assert frame is not None
    assert frame.rgb[0, 0, 0] == 3


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 48))
    for red in (0, 120, 240):
        writer.write(np.ascontiguousarray(flat(red, 48, 64)[..., ::-1]))
    writer.release()
    return path


def test_video_with_and_without_loop(video: Path) -> None:
    once = open_source(str(video), loop=False)
    reds = []
    while (frame := once.frame(0.0)) is not None:
        assert frame.rgb.shape == (48, 64, 3)
        reds.append(float(frame.rgb[..., 0].mean()))
    np.testing.assert_allclose(reds, [0, 120, 240], atol=8)
    once.close()
    again = open_source(str(video))
    frames = [again.frame(0.0) for _ in range(4)]
    assert frames[3] is not None
    np.testing.assert_allclose(frames[3].rgb[..., 0].mean(), 0, atol=8)
    again.close()


def test_videos_of_too_many_pixels(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, 'MAX_PIXELS', 48 * 64 - 1)
    with pytest.raises(SourceError, match='64 × 48 pixels, and at most 3071 are read'):
        open_source(str(video))
    # Where a driver gives what it has not stated.
    monkeypatch.setattr(sources, 'MAX_PIXELS', 48 * 64)
    source = open_source(str(video))
    assert source.frame(0.0) is not None
    monkeypatch.setattr(sources, 'MAX_PIXELS', 48 * 64 - 1)
    with pytest.raises(SourceError, match='64 × 48 pixels, and at most 3071 are read'):
        source.frame(0.1)


def test_sources_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / 'no_video.mp4').write_bytes(b'no video')
    empty = tmp_path / 'empty'
    empty.mkdir()
    for name, words in (
        (str(tmp_path / 'missing'), 'neither'),
        (str(empty), 'holds no picture'),
        (str(tmp_path / 'no_video.mp4'), 'cannot be opened as a video'),
        ('/dev/video9876', 'cannot be opened as a camera'),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            open_source(name)
        assert Path(name).name in str(caught.value)


def test_tabletop_world() -> None:
    source = open_source('tabletop', width=96, height=64, seed=5, motion='orbit')
    first, later = source.frame(0.0), source.frame(6.0)
    assert first is not None
    assert later is not None
    assert first.rgb.shape == (64, 96, 3)
    assert first.depth is not None
    assert first.intrinsics is not None
    assert first.instances is not None
    assert first.depth.dtype == np.float32
    assert first.depth.shape == first.instances.shape == (64, 96)
    assert 0 < first.instances.max() < 255
    assert first.intrinsics.shape == (3, 3)
    assert not np.array_equal(first.instances, later.instances), 'the camera moves'
    source.close()


def test_a_world_that_cannot_be_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError('cannot draw: install libegl1')

    monkeypatch.setattr('tabletop_world.render.live.LiveWorld.frame', fail)
    source = open_source('tabletop', width=32, height=32)
    with pytest.raises(SourceError, match='install libegl1'):
        source.frame(0.0)
    source.close()
    monkeypatch.setattr('tabletop_world.render.live.LiveWorld.__init__', fail)
    with pytest.raises(SourceError, match='install libegl1'):
        open_source('tabletop')
    monkeypatch.setitem(sys.modules, 'tabletop_world.render.live', None)
    with pytest.raises(SourceError, match=r"pip install 'clipseg_ros\[world\]'"):
        open_source('tabletop')


def test_camera_info() -> None:
    header = Header(frame_id='lens')
    matrix = np.array([[500.0, 0, 319.5], [0, 510.0, 239.5], [0, 0, 1]])
    info = camera_info(header, 640, 480, matrix)
    assert info.header == header
    assert (info.width, info.height, info.distortion_model) == (640, 480, 'plumb_bob')
    np.testing.assert_array_equal(np.reshape(info.k, (3, 3)), matrix)
    np.testing.assert_array_equal(np.reshape(info.p, (3, 4))[:, :3], matrix)
    np.testing.assert_array_equal(np.reshape(info.p, (3, 4))[:, 3], 0)
    np.testing.assert_array_equal(np.reshape(info.r, (3, 3)), np.eye(3))
    assert list(info.d) == [0.0] * 5
    unknown = camera_info(header, 640, 480, None)
    assert not np.any(unknown.k), 'K of zeros is an uncalibrated camera'
    assert not np.any(unknown.p)
