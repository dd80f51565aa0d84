"""Segmentation of files: images, folders of images, and videos, and what is written of each.

For an image ``cup.jpg``: ``cup_<prompt>_mask.png`` for each prompt, ``cup_overlay.png`` and
``cup.json``. For a video ``walk.mp4``: ``walk_overlay.mp4`` and ``walk.jsonl``, one line a frame,
and with ``frame_masks`` the folder ``walk_masks`` of ``<frame>_<prompt>.png``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.cli.camera import NewestFrames
from clipseg_model.cli.result_folder import ResultFolder, unwritten
from clipseg_model.cli.video_files import OverlayWriter, Video
from clipseg_model.errors import ImageError
from clipseg_model.images import IMAGE_SUFFIXES, MAX_PIXELS, VIDEO_SUFFIXES, read_image
from clipseg_model.instances import check_min_area
from clipseg_model.outputs.overlay import render_overlay
from clipseg_model.outputs.palette import Colours, check_used, palette_with
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter

_SLUG_CHARS = 40
_NAME_BYTES = 255

Tick = Callable[[], None]


@dataclass
class PromptSummary:
    """What was found for one prompt in one file, over all its frames."""

    label: str
    threshold: float
    scores: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    present: int = 0

    @property
    def frames(self) -> int:
        """Number of frames looked at; 1 for an image."""
        return len(self.scores)

    @property
    def score(self) -> float:
        """Mean score, 0…1."""
        return float(np.mean(self.scores))

    @property
    def share(self) -> float:
        """Mean share of the picture that is on, 0…1."""
        return float(np.mean(self.shares))


def find_files(inputs: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Find the files named, and the images in the folders named, sorted within each and each once.

    Returns:
        The files, and (input, reason) for what is not there or holds no image.
    """
    files: dict[Path, None] = {}
    problems: list[tuple[Path, str]] = []
    for entry in inputs:
        try:
            inside = sorted(map(entry.joinpath, os.listdir(entry))) if entry.is_dir() else None
        except OSError as error:
            problems.append((entry, f'it cannot be looked at: {error.strerror}'))
            continue
        if inside is not None:
            inside = [path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
            inside = [path for path in inside if path.is_file()]
            if not inside:
                kinds = ' '.join(sorted(IMAGE_SUFFIXES))
                problems.append((entry, f'the folder holds no image ({kinds})'))
            files.update(dict.fromkeys(inside))
        elif entry.is_file():
            files[entry] = None
        else:
            problems.append((entry, 'there is no such file or folder'))
    return list(files), problems


def slug(text: str) -> str:
    """Turn a text into a part of a file name: letters and digits of any script, the rest dashes."""
    dashed = re.sub(r'[\W_]+', '-', text.lower()).strip('-')
    return dashed[:_SLUG_CHARS].rstrip('-') or 'prompt'


class FileRunner:
    """Segments one file after the other with the same prompts.

    Results go to the folder ``output``. ``threshold`` is as :meth:`Segmenter.predict` takes it;
    ``frame_masks`` writes the masks of every frame of a video too; ``min_area`` is the least area
    of the parts of masks that are written, pixels, of which None writes none; ``colours`` are those
    of prompts on overlays, by name or number; ``max_pixels`` is the most that a picture or a frame
    may have.

    Raises:
        ColourError: A colour is that of no prompt.
        PromptError: A prompt is not representable by the model.
        RegionError: The least area is less than 1.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: Sequence[Prompt],
        output: ResultFolder,
        threshold: float | None = None,
        frame_masks: bool = False,
        min_area: int | None = None,
        colours: Colours = (),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if min_area is not None:
            check_min_area(min_area)
        self.segmenter = segmenter
        self.prompts = segmenter.prepare(prompts)
        self.output = output
        self.threshold = threshold
        self.frame_masks = frame_masks
        self.min_area = min_area
        self.max_pixels = max_pixels
        reported = [prompt for prompt in self.prompts if not prompt.negative]
        taken: set[str] = set()
        self._slugs = [_unique(slug(prompt.label), '-', taken) for prompt in reported]
        named = list(enumerate((prompt.label for prompt in reported), start=1))
        check_used(colours, named)
        self._palette = palette_with(colours, named)
        self._stems: set[str] = set()

    def run(self, path: Path, tick: Tick) -> list[PromptSummary]:
        """Segment a file, by its suffix an image or a video, and return one summary a prompt.

        ``tick`` is called after each frame.

        Raises:
            ClipsegError: The file cannot be read, or only in part, or the results not be written.
        """
        longest = max((len(os.fsencode(part)) for part in self._slugs), default=0)
        # Beside the prompt a name holds "_", "_mask.png" and perhaps a number.
        room = _NAME_BYTES - max(longest, len('overlay')) - 16
        short = os.fsencode(path.stem)[:room].decode('utf-8', 'ignore')
        stem = _unique(short or 'file', '_', self._stems)
        # Another file is not what the camera saw next.
        self.segmenter.still.forget()
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return self._run_video(path, stem, tick)
        names = [f'{stem}_{part}_mask.png' for part in self._slugs]
        overlay, told = f'{stem}_overlay.png', f'{stem}.json'
        self.output.check(*names, overlay, told)
        image = read_image(path, self.max_pixels)
        found = self.segmenter.segment(image, self.prompts, self.threshold)
        for result, name in zip(found.results, names, strict=True):
            self.output.write_image(name, result.mask.view(np.uint8) * np.uint8(255))
        self.output.write_image(overlay, self._overlay(image, found))
        record = {'input': str(path), **_record(found, names, self.min_area)}
        self.output.write(told, _json(record, indent=2))
        summaries: list[PromptSummary] = []
        _count(summaries, found)
        tick()
        return summaries

    def _run_video(self, path: Path, stem: str, tick: Tick) -> list[PromptSummary]:
        summaries: list[PromptSummary] = []
        told, shown = f'{stem}.jsonl', f'{stem}_overlay.mp4'
        target = self.output.path / told
        self.output.check(told, shown)
        reuse = self.segmenter.settings.reuse_below
        with closing(Video(path, self.max_pixels)) as video:
            try:
                self.output.open(shown).close()
                writer = OverlayWriter(self.output.path / shown, video.rate, video.regular)
                with self.output.open(told) as lines, closing(writer) as overlay:
                    for number, (seconds, frame) in enumerate(video.frames()):
                        found = self.segmenter.segment(frame, self.prompts, self.threshold)
                        names = self._write_masks(found, stem, number)
                        overlay.write(seconds, self._overlay(frame, found))
                        record = {
                            'input': str(path),
                            'frame': number,
                            'seconds': round(seconds, 4),
                            **({'reused': found.reused} if reuse else {}),
                            **_record(found, names, self.min_area),
                        }
                        lines.write(_json(record))
                        _count(summaries, found)
                        tick()
            except OSError as error:
                raise unwritten(target, error) from error
            if summaries[0].frames < video.expected:
                raise ImageError(
                    f'{summaries[0].frames} of {video.expected} frames could be read and are in '
                    f'{target}; the rest is missing or damaged'
                )
        return summaries

    def _write_masks(self, found: Segmentation, stem: str, number: int) -> list[str | None]:
        """Write the masks of a frame if they are asked for; return their names for the record."""
        if not self.frame_masks:
            return [None] * len(found.results)
        folder = f'{stem}_masks'
        self.output.make_folder(folder)
        names: list[str | None] = []
        for index, result in enumerate(found.results):
            name = f'{folder}/{number:06d}_{self._slugs[index]}.png'
            self.output.write_image(name, result.mask.view(np.uint8) * np.uint8(255))
            names.append(name)
        return names

    def run_camera(self, camera: NewestFrames) -> list[PromptSummary]:
        """Segment a camera's newest frame again and again, until it ends or Ctrl-C.

        Each time ``<camera>_overlay.png`` and ``<camera>_<prompt>_mask.png`` are replaced, and
        ``<camera>.jsonl`` gets a line.

        Args:
            camera: The camera; it is closed.

        Returns:
            One summary a prompt; none if there was no frame.

        Raises:
            ClipsegError: The results cannot be written.
        """
        summaries: list[PromptSummary] = []
        names = [f'{camera.name}_{part}_mask.png' for part in self._slugs]
        told, shown = f'{camera.name}.jsonl', f'{camera.name}_overlay.png'
        target = self.output.path / told
        with closing(camera), self.output.open(told) as lines:
            try:
                for number, (seconds, frame) in enumerate(camera.frames()):
                    found = self.segmenter.segment(frame, self.prompts, self.threshold)
                    for result, name in zip(found.results, names, strict=True):
                        mask = result.mask.view(np.uint8) * np.uint8(255)
                        self.output.replace_image(name, mask)
                    self.output.replace_image(shown, self._overlay(frame, found))
                    record = {
                        'frame': number,
                        'seconds': round(seconds, 3),
                        'dropped': camera.dropped,
                        **_record(found, names, self.min_area),
                    }
                    lines.write(_json(record))
                    lines.flush()
                    _count(summaries, found)
            except KeyboardInterrupt:
                pass
            except OSError as error:
                raise unwritten(target, error) from error
        return summaries

    def _overlay(self, image: NDArray[np.uint8], found: Segmentation) -> NDArray[np.uint8]:
        names = [
            f'{result.prompt.label}  {result.score:.2f}' + ('' if result.presence else '  absent')
            for result in found.results
        ]
        legend = list(enumerate(names, start=1))
        return render_overlay(image, found.labels(), 0.5, legend, True, palette=self._palette)


def _record(
    found: Segmentation, masks: Sequence[str | None], min_area: int | None
) -> dict[str, Any]:
    prompts = []
    for result, mask in zip(found.results, masks, strict=True):
        entry: dict[str, Any] = {
            'prompt': result.prompt.text,
            'name': result.prompt.label,
            'score': round(result.score, 6),
            'present': result.presence,
            'threshold': result.threshold,
            'pixels': int(np.count_nonzero(result.mask)),
            'box': _bounding_box(result.mask),
        }
        if mask is not None:
            entry['mask'] = mask
        if result.close_ups is not None:
            views = [part.view for part in result.close_ups.parts]
            entry['looked_at'] = [[v.left, v.top, v.width, v.height] for v in views]
        if min_area is not None:
            entry['instances'] = [
                {
                    'area': one.area,
                    'box': list(one.box),
                    'centroid': [round(value, 2) for value in one.centroid],
                    'probability': round(one.probability, 6),
                }
                for one in result.instances(min_area)
            ]
        prompts.append(entry)
    size = {'width': found.width, 'height': found.height}
    return {**size, 'model': found.model, 'prompts': prompts}


def _bounding_box(mask: NDArray[np.bool_]) -> list[int] | None:
    """(x, y, width, height) of what is on, pixels; None where nothing is."""
    if not mask.any():
        return None
    return [int(value) for value in cv2.boundingRect(mask.view(np.uint8))]


def _count(summaries: list[PromptSummary], found: Segmentation) -> None:
    if not summaries:
        summaries += [PromptSummary(one.prompt.label, one.threshold) for one in found.results]
    for summary, result in zip(summaries, found.results, strict=True):
        summary.scores.append(result.score)
        summary.shares.append(float(result.mask.mean()))
        summary.present += result.presence


def _unique(name: str, joint: str, taken: set[str]) -> str:
    """Return a name that is not yet taken, with a number where needed, and take it."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f'{name}{joint}{number}'
    taken.add(unique)
    return unique


def _json(record: dict[str, Any], indent: int | None = None) -> bytes:
    # Names of files need not be text; what is none in them becomes escapes.
    text = json.dumps(record, indent=indent, ensure_ascii=False)
    return text.encode('utf-8', 'backslashreplace') + b'\n'
