"""`clipseg segment` on videos."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from clipseg_command import CODEC, segment, squeezed
from numpy.typing import NDArray
from rich.console import Console

from clipseg_model.cli import console
from clipseg_model.cli.video_files import count_frames
from clipseg_model.images import read_mask


class TestVideos:
    def test_files_of_a_video(self, checkpoint: Path, video: Path) -> None:
        result = segment(checkpoint, video, '-p', 'mug; red chair', '--frame-masks')
        assert result.exit_code == 0, result.output
        lines = [json.loads(line) for line in Path('out/walk.jsonl').read_text().splitlines()]
        assert [line['frame'] for line in lines] == [0, 1, 2, 3]
        assert [line['seconds'] for line in lines] == [0.0, 0.1, 0.2, 0.3]
        assert count_frames(Path('out/walk_overlay.mp4')) == 4
        masks = sorted(path.name for path in Path('out/walk_masks').iterdir())
        assert len(masks) == 8
        assert masks[:2] == ['000000_mug.png', '000000_red-chair.png']
        for line in lines:
            for entry in line['prompts']:
                assert read_mask(Path('out') / entry['mask']).sum() == entry['pixels']
        assert '4 of 4' in result.stdout

    def test_progress_counts_frames(
        self, checkpoint: Path, video: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown = io.StringIO()
        monkeypatch.setattr(console, 'err', Console(file=shown, force_terminal=True, width=100))
        assert segment(checkpoint, video, photo, '-p', 'mug').exit_code == 0
        assert '5/5' in shown.getvalue()

    def test_masks_only_when_asked_for(self, checkpoint: Path, video: Path) -> None:
        assert segment(checkpoint, video, '-p', 'mug').exit_code == 0
        assert sorted(path.name for path in Path('out').iterdir()) == [
            'walk.jsonl',
            'walk_overlay.mp4',
        ]
        assert 'mask' not in json.loads(Path('out/walk.jsonl').read_text().split('\n')[0])

    def test_reuse_of_encodings(
        self, checkpoint: Path, work: Path, photo: Path, image: NDArray[np.uint8]
    ) -> None:
        for name in ('one.mp4', 'two.mp4'):
            writer = cv2.VideoWriter(name, CODEC, 10, (120, 90))
            for seen in (image, image, image, image[::-1], image[::-1]):
                writer.write(np.ascontiguousarray(seen))
            writer.release()
        inputs = ('one.mp4', 'two.mp4', photo, '-p', 'mug')
        result = segment(checkpoint, *inputs, '--reuse-below', 20)
        assert result.exit_code == 0, result.output
        for name in ('one', 'two'):
            lines = Path(f'out/{name}.jsonl').read_text().splitlines()
            reused = [json.loads(line)['reused'] for line in lines]
            assert reused == [False, True, True, False, True], 'not from one video to the next'
        said = squeezed(result.stderr)
        assert 'Approximation: 6 of 11 images reused an encoding' in said
        assert '20 levels' in said
        exact = segment(checkpoint, 'one.mp4', '-p', 'mug', '-o', 'exact')
        assert 'Approximation' not in exact.stderr
        assert '"reused"' not in Path('exact/one.jsonl').read_text()

    def test_where_nothing_can_be_reused(self, checkpoint: Path, video: Path, photo: Path) -> None:
        result = segment(checkpoint, photo, '-p', 'mug', '--reuse-below', 3)
        assert result.exit_code == 1
        assert '--reuse-below is for videos' in squeezed(result.stderr)
        result = segment(checkpoint, video, '-p', 'mug', '--reuse-below', 3, '--zoom', 'self')
        assert result.exit_code == 1
        assert 'leave zoom out' in squeezed(result.stderr)
        result = segment(checkpoint, video, '-p', 'mug', '--reuse-below', 300)
        assert 'not 300' in squeezed(result.stderr)

    def test_a_damaged_video(self, checkpoint: Path, photo: Path) -> None:
        Path('bad.mp4').write_bytes(b'not a video')
        result = segment(checkpoint, 'bad.mp4', photo, '-p', 'mug')
        assert result.exit_code == 1
        assert 'bad.mp4 cannot be read as a video' in result.stderr
        assert not Path('out/bad.jsonl').exists()
        assert Path('out/photo.json').is_file()
