"""`clipseg segment`: the times and sizes of frames, and videos of which something is missing."""

from __future__ import annotations

import json
import re
from math import ceil
from pathlib import Path

import cv2
import pytest
import small_videos
from clipseg_command import segment, squeezed
from numpy.typing import NDArray

from clipseg_model.cli.edit_list import hidden_seconds
from clipseg_model.cli.video_files import OverlayWriter, Video, count_frames
from clipseg_model.errors import ImageError

UNEVEN = [0, 40, 80, 500, 540, 2000, 2033]
JITTER = [0, 41, 79, 121, 160, 199, 241, 280]
SLOWER = [0, 33, 67, 100, 200, 300, 400, 500, 600, 700]


def _lines(name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path('out', name).read_text().splitlines()]


class TestTimes:
    @pytest.mark.parametrize('times', [UNEVEN, SLOWER, JITTER, [0], [0, 3000]], ids=str)
    @pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
    def test_are_those_of_the_container(
        self, checkpoint: Path, work: Path, times: list[int], suffix: str
    ) -> None:
        seconds = small_videos.write_at(work / f'v{suffix}', times)
        result = segment(checkpoint, f'v{suffix}', '-p', 'mug')
        assert result.exit_code == 0, result.output
        assert [line['seconds'] for line in _lines('v.jsonl')] == pytest.approx(seconds, abs=0.002)
        overlay = small_videos.read(Path('out/v_overlay.mp4'))
        assert [time for time, _ in overlay] == pytest.approx(seconds, abs=0.002)
        assert {shape for _, shape in overlay} == {(90, 120, 3)}

    @pytest.mark.parametrize(
        ('name', 'codec'),
        [('v.mp4', 'mp4v'), ('v.avi', 'MJPG'), ('v.mkv', 'FFV1'), ('v.webm', 'VP80')],
    )
    def test_of_a_constant_rate_stay_so(
        self, checkpoint: Path, work: Path, name: str, codec: str
    ) -> None:
        small_videos.write(work / name, codec, 12)
        assert segment(checkpoint, name, '-p', 'mug').exit_code == 0
        reader = cv2.VideoCapture('out/v_overlay.mp4')
        assert reader.get(cv2.CAP_PROP_FPS) == 10
        code = int(reader.get(cv2.CAP_PROP_FOURCC))
        assert code.to_bytes(4, 'little') in (b'FMP4', b'mp4v'), 'small files where it is possible'
        assert [time for time, _ in small_videos.read(Path('out/v_overlay.mp4'))] == pytest.approx(
            [number / 10 for number in range(12)]
        )
        assert [line['seconds'] for line in _lines('v.jsonl')] == pytest.approx(
            [number / 10 for number in range(12)], abs=0.002
        )

    def test_always_grow(self, work: Path) -> None:
        """Whatever a damaged container tells."""
        path = small_videos.write(work / 'v.mp4', 'mp4v', 5)
        video = Video(path)

        class Stuck:
            def __init__(self, reader: cv2.VideoCapture) -> None:
                self.reader = reader

            def get(self, what: int) -> float:
                return 0.0

            def read(self) -> tuple[bool, NDArray]:
                return self.reader.read()

        video._reader = Stuck(video._reader)  # type: ignore[assignment]
        assert [seconds for seconds, _ in video.frames()] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize('size', [(121, 91), (120, 91), (121, 90), (1, 1), (3, 2)], ids=str)
@pytest.mark.parametrize('times', [[0, 1, 2], [0, 1, 5]], ids=['constant', 'variable'])
def test_odd_sizes_stay(
    checkpoint: Path, work: Path, size: tuple[int, int], times: list[int]
) -> None:
    seconds = small_videos.write_at(work / 'v.mp4', times, size, rate=10)
    result = segment(checkpoint, 'v.mp4', '-p', 'mug', '--frame-masks')
    assert result.exit_code == 0, result.output
    expected = (size[1], size[0], 3)
    overlay = small_videos.read(Path('out/v_overlay.mp4'))
    assert [shape for _, shape in overlay] == [expected] * 3
    assert [time for time, _ in overlay] == pytest.approx(seconds, abs=0.002)
    assert cv2.imread('out/v_masks/000002_mug.png').shape == expected
    assert _lines('v.jsonl')[0]['width'] == size[0]


def _without(path: Path, start: float, end: float = 1.0) -> None:
    """Cut off the rest of a file, or blank a part of it."""
    content = bytearray(path.read_bytes())
    first, last = int(start * len(content)), int(end * len(content))
    if end == 1:
        del content[first:]
    else:
        content[first:last] = bytes(last - first)
    path.write_bytes(content)


class TestMissingFrames:
    @pytest.mark.parametrize(
        ('name', 'codec', 'part'),
        [
            ('v.avi', 'MJPG', (0.6,)),
            ('v.avi', 'MJPG', (0.4, 0.6)),
            ('v.avi', 'XVID', (0.5,)),
            ('v.mp4', 'mp4v', (0.4, 0.6)),
            ('v.mov', 'mp4v', (0.3, 0.5)),
            ('v.mkv', 'FFV1', (0.6,)),
            ('v.mkv', 'FFV1', (0.4, 0.6)),
            ('v.mkv', 'mp4v', (0.5, 0.6)),
            ('v.webm', 'VP80', (0.6,)),
            ('v.webm', 'VP90', (0.3, 0.6)),
        ],
    )
    def test_are_told(
        self, checkpoint: Path, work: Path, photo: Path, name: str, codec: str, part: tuple[float]
    ) -> None:
        path = small_videos.write(work / name, codec)
        _without(path, *part)
        result = segment(checkpoint, path, photo, '-p', 'mug')
        assert result.exit_code == 1, result.output
        said = re.search(r'(\d+) of 20 frames could be read', squeezed(result.stderr))
        assert said is not None, result.stderr
        assert 0 < int(said[1]) < 20
        assert len(_lines('v.jsonl')) == int(said[1]), 'what could be read is kept'
        assert count_frames(Path('out/v_overlay.mp4')) == int(said[1])
        assert '1 of 2 inputs failed' in result.stderr
        assert Path('out/photo.json').is_file()

    def test_at_the_end_of_a_video_of_any_rate(self, checkpoint: Path, work: Path) -> None:
        small_videos.write_at(work / 'v.mkv', [*UNEVEN, 2100, 2900, 3000, 3010])
        _without(work / 'v.mkv', 0.5)
        result = segment(checkpoint, 'v.mkv', '-p', 'mug')
        assert result.exit_code == 1
        assert 'frames could be read' in result.stderr

    def test_a_header_without_frames(self, checkpoint: Path, work: Path) -> None:
        path = small_videos.write(work / 'v.mp4', 'mp4v')
        _without(path, 0.5)  # The index stands at the end.
        result = segment(checkpoint, path, '-p', 'mug')
        assert result.exit_code == 1
        assert 'v.mp4 cannot be read as a video' in squeezed(result.stderr)
        assert not Path('out/v.jsonl').exists()


class TestOverlays:
    def test_frames_that_did_not_arrive(self, work: Path) -> None:
        """OpenCV drops what it cannot write, without a word."""
        writer = OverlayWriter(work / 'o.mp4', 10, True)
        writer.write(0.0, small_videos.picture(0))
        writer.write(0.1, small_videos.picture(1, 60, 40))
        with pytest.raises(ImageError, match=r'o\.mp4 is incomplete, 1 of 2 frames'):
            writer.close()

    def test_nothing_written_is_no_file(self, work: Path) -> None:
        OverlayWriter(work / 'o.mp4', 10, True).close()
        assert not (work / 'o.mp4').exists()

    def test_where_none_can_be_made(self, work: Path) -> None:
        writer = OverlayWriter(work / 'none' / 'o.mp4', 10, True)
        with pytest.raises(ImageError, match='cannot be written as a video of 120 × 90 pixels'):
            writer.write(0.0, small_videos.picture(0))


def test_without_room_for_temporary_files(
    checkpoint: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError(2, 'No usable temporary directory found')

    monkeypatch.setattr('tempfile.TemporaryDirectory', refuse)
    Path('a:b%03d.mp4').write_bytes(video.read_bytes())
    result = segment(checkpoint, 'a:b%03d.mp4', '-p', 'mug')
    assert result.exit_code == 0, result.output
    assert len(small_videos.read(Path('out/a:b%03d_overlay.mp4').absolute())) == 4


def test_frames_of_too_many_pixels(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_videos.write(work / 'v.mp4', 'mp4v', 2)
    with pytest.raises(ImageError, match='120 × 90 pixels, and at most 10000 are read'):
        Video(path, 10_000)
    # Where the header tells nothing, of the first frame.
    monkeypatch.setattr(cv2, 'CAP_PROP_FRAME_WIDTH', -1)
    with pytest.raises(ImageError, match='120 × 90 pixels, and at most 10000 are read'):
        Video(path, 10_000)


class TestTrimmedWithoutEncoding:
    """Phones and `ffmpeg -c copy` keep the frames before the first that is shown."""

    @staticmethod
    def _trimmed(path: Path, frames: float) -> Path:
        """Hide the first frames of a video of 20 at 10 per second, by its edit list."""
        data = bytearray(small_videos.write(path, 'mp4v').read_bytes())
        scale_at = data.index(b'mdhd') + 16
        start_at = data.index(b'elst') + 16
        ticks = round(int.from_bytes(data[scale_at : scale_at + 4], 'big') * frames / 10)
        data[start_at : start_at + 4] = ticks.to_bytes(4, 'big')
        path.write_bytes(data)
        return path

    @pytest.mark.parametrize('hidden', [0, 1, 2.5, 7])
    def test_what_is_shown_is_all(self, checkpoint: Path, work: Path, hidden: float) -> None:
        path = self._trimmed(work / 'v.mp4', hidden)
        shown = len(small_videos.read(path))
        assert shown == 20 - ceil(hidden)
        result = segment(checkpoint, 'v.mp4', '-p', 'mug')
        assert result.exit_code == 0, result.output
        assert len(_lines('v.jsonl')) == shown

    def test_what_is_cut_off_as_well_is_missed(self, work: Path) -> None:
        whole = self._trimmed(work / 'v.mov', 7)
        video = Video(whole)
        assert (video.expected, len(list(video.frames()))) == (13, 13)

    def test_a_damaged_list_hides_nothing(self, work: Path) -> None:
        data = self._trimmed(work / 'v.mp4', 7).read_bytes()
        start, list_at = data.index(b'moov') - 4, data.index(b'elst')
        for end in range(start, list_at + 16, 3):
            (work / 'd.mp4').write_bytes(data[start:end])
            assert hidden_seconds(work / 'd.mp4') == 0, end - start

    @pytest.mark.parametrize('box', ['mdhd', 'hdlr', 'elst', 'trak', 'mdia'])
    def test_a_box_that_is_not_there_hides_nothing(self, work: Path, box: str) -> None:
        data = self._trimmed(work / 'v.mp4', 7).read_bytes()
        (work / 'd.mp4').write_bytes(data.replace(box.encode(), b'free'))
        assert hidden_seconds(work / 'd.mp4') == 0
