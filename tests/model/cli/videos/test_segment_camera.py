from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from clipseg_command import segment, squeezed
from numpy.typing import NDArray

from clipseg_model.cli.camera import NewestFrames
from clipseg_model.errors import ImageError


def test_the_newest_frames_until_it_ends(checkpoint: Path, video: Path) -> None:
    result = segment(checkpoint, '--camera', video, '-p', 'mug', '-o', 'res')
    assert result.exit_code == 0, result.output
    text = Path('res', f'{video.stem}.jsonl').read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    assert lines[0]['prompts'][0]['name'] == 'mug'
    assert lines[-1]['seconds'] >= lines[0]['seconds']
    assert sorted(path.suffix for path in Path('res').iterdir()) == ['.jsonl', '.png', '.png']
    assert 'until Ctrl-C' in squeezed(result.stderr)


def test_ctrl_c_ends_it_well(
    checkpoint: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: NewestFrames) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        yield 0.0, np.zeros((48, 64, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(NewestFrames, 'frames', interrupted)
    result = segment(checkpoint, '--camera', video, '-p', 'mug')
    assert result.exit_code == 0, result.output
    assert 'mug' in result.stdout


def test_what_is_no_camera(checkpoint: Path, photo: Path) -> None:
    result = segment(checkpoint, '--camera', 'no_such_device', '-p', 'mug')
    assert result.exit_code == 1
    assert "The camera 'no_such_device' gives no picture" in squeezed(result.stderr)
    result = segment(checkpoint, photo, '--camera', '0', '-p', 'mug')
    assert result.exit_code == 1
    assert '--camera is in place of files' in squeezed(result.stderr)


def test_a_camera_that_goes_away_is_a_failure(
    checkpoint: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, 'is_file', lambda self: False)
    camera = NewestFrames(str(video))
    monkeypatch.undo()
    try:
        with pytest.raises(ImageError, match=r'no more pictures.*unplugged'):
            list(camera.frames())
    finally:
        camera.close()


def test_frames_of_too_many_pixels(
    checkpoint: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        result = segment(checkpoint, '--camera', video, '--max-pixels', 100, '-p', 'mug')
        assert result.exit_code == 1
        assert 'and at most 100 are read' in squeezed(result.stderr)
        # Where the driver tells nothing, by the first frame.
        monkeypatch.setattr(cv2, 'CAP_PROP_FRAME_WIDTH', -1)
