"""What the console looks at without ROS, and the model beside it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_ros.console.back_ends.alone import DROPPED, AloneBackEnd
from clipseg_ros.console.back_ends.base import ConsoleError
from clipseg_ros.console.back_ends.feeds import (
    MOST_DROPPED,
    Feed,
    Moving,
    fitted,
    open_bag,
    open_pictures,
    open_video,
)
from clipseg_ros.console.cards import added
from clipseg_ros.console.commands import decode_values
from clipseg_ros.console.shots import Shot
from clipseg_ros.demo.scenes import make_scene
from clipseg_ros.errors import SourceError


def wait_until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'it does not happen'
        time.sleep(0.02)
    return value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(('a.png', 'b.png', 'c.png')):
        picture = np.full((40, 60, 3), 80 * number, np.uint8)
        assert cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / 'words.txt').write_text('no picture')
    return tmp_path


def test_pictures_of_a_folder(folder: Path) -> None:
    feed = open_pictures(folder)
    assert feed.steps == 3
    number, _, picture = feed.newest(0, 1.0) or pytest.fail('no picture')
    assert picture[0, 0, 0] == 0
    assert feed.newest(number, 0.01) is None
    feed.step(-1, None)
    later, _, picture = feed.newest(number, 1.0) or pytest.fail('no picture')
    assert later > number
    assert picture[0, 0, 0] == 160
    (folder / 'a.png').write_bytes(b'damaged')
    feed.step(1, None)
    assert feed.newest(later, 1.0) is not None
    assert 'a.png is left out' in feed.problem


def test_pictures_play_and_whoever_waits_for_them_can_be_woken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = open_pictures(folder)
    [number, _, _] = feed.newest(0, 1.0) or pytest.fail('no picture')
    for playing in (False, True):
        # Who waits has other things to do: a threshold has changed.
        feed.step(0, playing)
        feed.wake()
        begin = time.monotonic()
        assert feed.newest(number, 10.0) is None
        assert time.monotonic() - begin < 1.0
        assert feed.newest(number, 0.05) is None
    monkeypatch.setattr('clipseg_ros.console.back_ends.feeds._SECONDS_A_PICTURE', 0.1)
    feed.step(0, True)
    for at in (1, 2, 0):
        later, _, _ = feed.newest(number, 5.0) or pytest.fail('it does not play')
        assert (feed.at, later > number) == (at, True)
        number = later


def test_dropped_pictures_are_few(folder: Path) -> None:
    feed = open_pictures(folder)
    for number in range(MOST_DROPPED + 5):
        feed.add(f'{number}', np.full((8, 8, 3), number, np.uint8))
    assert feed.steps == MOST_DROPPED
    assert feed.name == str(MOST_DROPPED + 4)


def test_large_pictures_are_shown_smaller() -> None:
    assert fitted(np.zeros((1000, 4000, 3), np.uint8)).shape == (320, 1280, 3)
    small = np.zeros((10, 20, 3), np.uint8)
    assert fitted(small) is small


def test_the_newest_of_a_camera_wins_and_it_rests() -> None:
    taken: list[int] = []

    def pictures() -> Iterator[tuple[float, Callable[[], NDArray[np.uint8]]]]:
        for number in itertools.count():
            time.sleep(0.002)
            taken.append(number)
            yield 0.0, lambda number=number: np.full((4, 4, 3), number % 256, np.uint8)

    freed = threading.Event()
    feed = Moving('camera', pictures(), freed.set, live=True)
    first = feed.newest(0, 5.0) or pytest.fail('no picture')
    time.sleep(0.2)
    second = feed.newest(first[0], 5.0) or pytest.fail('no picture')
    assert second[0] > first[0] + 3
    feed.pause(True)
    time.sleep(0.05)
    before = len(taken)
    time.sleep(0.1)
    assert len(taken) <= before + 1
    feed.pause(False)
    assert feed.newest(feed.newest(0, 1.0)[0], 5.0) is not None  # type: ignore[index]
    feed.close()
    assert freed.is_set()


def test_a_camera_that_fails_is_said() -> None:
    def pictures() -> Iterator[tuple[float, Callable[[], NDArray[np.uint8]]]]:
        yield 0.0, lambda: np.zeros((4, 4, 3), np.uint8)
        raise SourceError('camera 0 gives no picture')

    feed = Moving('camera', pictures(), lambda: None, live=True)
    wait_until(lambda: 'gives no picture' in feed.problem)
    feed.close()


def test_a_video_keeps_its_pace(tmp_path: Path) -> None:
    path = tmp_path / 'short.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 20.0, (64, 48))
    for number in range(8):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    feed = open_video(path)
    seen, number = 0, 0
    begin = time.monotonic()
    while time.monotonic() - begin < 1.0:
        new = feed.newest(number, 0.5)
        if new is not None:
            number, seen = new[0], seen + 1
    feed.close()
    # It goes round, no faster than its 20 Hz.
    assert 3 <= seen <= 25
    with pytest.raises(ConsoleError, match='no such video'):
        open_video(tmp_path / 'none.avi')


def test_a_bag_of_either_storage_is_read(tmp_path: Path) -> None:
    rosbag2 = pytest.importorskip('rosbags.rosbag2')
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.LATEST)
    kinds = store.types
    kind = 'sensor_msgs/msg/Image'
    for storage in rosbag2.StoragePlugin:
        path = tmp_path / storage.name
        with rosbag2.Writer(path, version=8, storage_plugin=storage) as writer:
            topic = writer.add_connection('/image', kind, typestore=store)
            for number in range(3):
                stamp = kinds['builtin_interfaces/msg/Time'](1, number * 10_000_000)
                header = kinds['std_msgs/msg/Header'](stamp, 'lens')
                pixels = np.full(4 * 6 * 3, 50 * number + 10, np.uint8)
                image = kinds[kind](header, 4, 6, 'rgb8', 0, 18, pixels)
                writer.write(topic, number * 10_000_000, store.serialize_cdr(image, kind))
        feed = open_bag(path, None)
        try:
            number, _, picture = feed.newest(0, 10.0) or pytest.fail(feed.problem)
            assert picture.shape == (4, 6, 3)
            # It begins again after its end.
            wait_until(lambda: feed.newest(number + 5, 0.1))  # noqa: B023
            assert not feed.failed
        finally:
            feed.close()
        assert not feed.problem


def test_a_source_that_failed_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('clipseg_ros.console.back_ends.alone._TRY_AGAIN', 0.2)
    plugged = threading.Event()

    def open_() -> Feed:
        if not plugged.is_set():
            raise SourceError('/dev/video7 cannot be opened as a camera')
        return open_pictures(folder)

    back_end = AloneBackEnd([('camera7', 'camera 7', open_)], 'tabletop', 'cpu', 1)
    page = Page(back_end)
    try:
        back_end.watch(frozenset({'labels'}))

        def said() -> str:
            return ' '.join(trouble.text for trouble in back_end.status().troubles)

        assert 'camera 7 is being opened' in said()
        wait_until(lambda: 'cannot be opened as a camera' in said())
        assert 'Choose another source' in said()
        assert page.shots == []
        plugged.set()
        wait_until(lambda: page.shots)
        assert 'camera' not in said()
    finally:
        back_end.close()


class Page:
    """What a browser would get of a back end."""

    def __init__(self, back_end: AloneBackEnd) -> None:
        self.shots: list[Shot] = []
        self.back_end = back_end
        back_end.start(self.shots.append, lambda: None)

    def segmented(self, after: int = 0) -> Shot:
        def newest() -> Shot | None:
            shots = [shot for shot in self.shots[after:] if shot.segmented]
            return shots[-1] if shots else None

        shot: Shot = wait_until(newest)
        return shot


def labels_of(shot: Shot) -> NDArray[Any]:
    return np.asarray(decode_values(shot.layer('labels') or b''))


def test_the_model_on_a_folder(tmp_path: Path) -> None:
    scene = make_scene(1, 320, 240)
    assert cv2.imwrite(str(tmp_path / 'scene.png'), scene.rgb[..., ::-1])
    back_end = AloneBackEnd(
        [('given', 'pictures', lambda: open_pictures(tmp_path))], 'tabletop', 'cpu', 1
    )
    page = Page(back_end)
    try:
        back_end.change(added((), 'the mug'))
        # Nobody looks: nothing is read, and nothing segmented.
        wait_until(lambda: back_end.status().model == 'tabletop')
        time.sleep(0.2)
        assert page.shots == []
        back_end.watch(frozenset({'labels'}))
        shot = page.segmented()
        assert shot.found[0].presence
        truth = next(q.truth for q in scene.questions if q.text == 'the mug')
        mask = labels_of(shot) == back_end.cards[0].id
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6
        for name in ('heat', 'instances'):
            assert shot.layer(name)
        # What was asked of other pictures meanwhile leaves this one alone.
        labels = labels_of(shot)
        back_end.answer(np.zeros((240, 320, 3), np.uint8), back_end.cards)
        seen = len(page.shots)
        back_end.set_values({'threshold': None})
        assert np.array_equal(labels_of(page.segmented(seen)), labels)
        # A threshold tells at once, of the picture that stands still.
        seen = len(page.shots)
        back_end.set_values({'threshold': 0.97})
        assert page.segmented(seen).found[0].area < shot.found[0].area
        with pytest.raises(PromptError):
            back_end.change(added((), '\N{CJK UNIFIED IDEOGRAPH-4E2D}' * 5))
        assert [card.name for card in back_end.cards] == ['the mug']
        # A model that cannot be loaded is said, and another one can be chosen.
        back_end._own = back_end._model = str(tmp_path / 'none.safetensors')
        wait_until(lambda: any('cannot be loaded' in t.text for t in back_end.status().troubles))
        back_end.choose('model', 'tabletop')
        wait_until(lambda: back_end.status().model == 'tabletop')
        # It sees the picture too, not what it was tried with.
        back_end.set_values({'threshold': None})
        seen = len(page.shots)
        back_end.set_values({'threshold': None})
        assert np.array_equal(labels_of(page.segmented(seen)), labels)
        back_end.take_picture(scene.rgb, 'dropped.png')
        assert back_end.status().source == DROPPED
        for what, key in (('model', 'no'), ('source', 'no'), ('no', 'no')):
            with pytest.raises(ConsoleError):
                back_end.choose(what, key)
    finally:
        back_end.close()
