"""The demo's contact sheet: every scene with every prompt's mask, its truth and its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CAPTION_HEIGHT = 44
GAP = 6
_PAPER = (255, 255, 255)
_INK = (32, 32, 32)
_MASK = (235, 30, 110)
_TRUTH = (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet, uint8 (H, W, 3), with the two lines of its caption."""

    rgb: NDArray[np.uint8]
    title: str
    note: str = ''


def draw_mask(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Tint a mask, bool (H, W), and outline its truth in white with a dark rim."""
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    picture = np.where(mask[..., None], 0.45 * rgb + 0.55 * np.array(_MASK), 0.6 * grey + 0.4 * rgb)
    picture = np.ascontiguousarray(picture.astype(np.uint8))
    outlines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(rgb.shape[0] / 240))
    for colour, width in ((_INK, thickness + 2), (_TRUTH, thickness)):
        cv2.drawContours(picture, outlines, -1, colour, width, cv2.LINE_AA)
    return picture


def contact_sheet(rows: Sequence[Sequence[Tile]], width: int = 280) -> NDArray[np.uint8]:
    """Lay tiles of one shape out in rows, ``width`` pixels each; return RGB uint8 (H, W, 3)."""
    first = rows[0][0].rgb
    height = round(width * first.shape[0] / first.shape[1])
    columns = max(len(row) for row in rows)
    size = (GAP + columns * (width + GAP), GAP + len(rows) * (height + CAPTION_HEIGHT + GAP))
    sheet = Image.new('RGB', size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    title_font, note_font = ImageFont.load_default(16), ImageFont.load_default(14)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            x, y = GAP + j * (width + GAP), GAP + i * (height + CAPTION_HEIGHT + GAP)
            small = cv2.resize(tile.rgb, (width, height), interpolation=cv2.INTER_AREA)
            sheet.paste(Image.fromarray(small), (x, y))
            title = _shorten(draw, tile.title, title_font, width)
            draw.text((x + 2, y + height + 3), title, _INK, title_font)
            draw.text((x + 2, y + height + 23), tile.note, _INK, note_font)
    return np.asarray(sheet)


def _shorten(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> str:
    if draw.textlength(text, font) <= width - 4:
        return text
    while text and draw.textlength(f'{text}…', font) > width - 4:
        text = text[:-1]
    return f'{text}…'
