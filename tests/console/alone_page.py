"""The page in Chromium on the model `tabletop` and a picture of a table, without ROS."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from page_driver import PATIENCE, Page

from clipseg_ros.console import cards as editing
from clipseg_ros.console.back_ends.alone import AloneBackEnd
from clipseg_ros.console.cards import Card

MUG, PLATE = 'the mug', 'yellow plate'

# Lets a file fall onto an element, as a file manager does.
_DROP = """(target, {name, data}) => {
    const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type: 'image/png'}));
    for (const kind of ['dragover', 'drop']) {
        target.dispatchEvent(new DragEvent(
            kind, {bubbles: true, cancelable: true, dataTransfer: transfer}));
    }
}"""


def png(rgb: NDArray[np.uint8]) -> bytes:
    return cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()


def drop(page: Page, target: Any, name: str, data: bytes) -> None:
    target.evaluate(_DROP, {'name': name, 'data': base64.b64encode(data).decode()})


def begin(page: Page, back_end: AloneBackEnd, text: str) -> list[str]:
    """Makes these the prompts, and waits until the page shows them and the first one's mask."""
    back_end.change(())
    back_end.set_values({'threshold': None})
    page.wait_for(lambda: page.names() == [], what='no prompt')
    back_end.change(editing.added((), text))
    names = [card.name for card in back_end.cards]
    page.wait_for(lambda: page.names() == names, what='the prompts')
    page.wait_for(lambda: page.drawn(names[0])[0].any(), 30.0 * PATIENCE, 'the mask')
    return names


def card_of(back_end: AloneBackEnd, name: str) -> Card:
    return next(card for card in back_end.cards if card.name == name)


def open_card(page: Page, name: str) -> Any:
    if page.card(name).locator('details').get_attribute('open') is None:
        page.card(name).locator('summary').click()
    return page.card(name)
