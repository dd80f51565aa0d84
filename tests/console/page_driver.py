"""Driving the console's page in Chromium."""

from __future__ import annotations

import base64
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# On a machine that does much else, everything but what is measured may take longer.
PATIENCE = float(os.environ.get('CLIPSEG_BROWSER_PATIENCE', '1'))

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')

# What is drawn in the colour of one prompt, and of which picture it is.
_DRAWN = """async (colour) => {
    const {shown} = await import('/page/stream.js');
    const canvas = document.querySelector('.picture canvas');
    const {width, height} = canvas;
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    const wanted = parseInt(colour.slice(1), 16);
    const bits = new Uint8Array(width * height);
    for (let i = 0; i < bits.length; i += 1) {
        const value = pixels[4 * i] << 16 | pixels[4 * i + 1] << 8 | pixels[4 * i + 2];
        bits[i] = value === wanted ? 1 : 0;
    }
    let text = '';
    for (let i = 0; i < bits.length; i += 8192) {
        text += String.fromCharCode(...bits.subarray(i, i + 8192));
    }
    const {shot} = shown;
    return {width, height, bits: btoa(text), stamp: shot ? shot.stamp : 0,
        number: shot ? shot.number : 0, segmented: Boolean(shot && shot.segmented)};
}"""

_PIXELS = """() => {
    const canvas = document.querySelector('.picture canvas');
    const {width, height} = canvas;
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    let text = '';
    for (let i = 0; i < pixels.length; i += 8192) {
        text += String.fromCharCode(...pixels.subarray(i, i + 8192));
    }
    return {width, height, data: btoa(text)};
}"""

_UNNAMED = """() => [...document.querySelectorAll('button, input, select, textarea, canvas, img')]
    .filter((one) => !one.getAttribute('aria-label') && !one.labels?.length
        && !one.textContent.trim() && !one.hasAttribute('alt') && one.type !== 'hidden')
    .map((one) => one.outerHTML.slice(0, 120))"""


def find_browser() -> str:
    """The browser; the test is skipped without one, unless the environment demands it."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        assert not os.environ.get('CLIPSEG_BROWSER_TESTS'), 'there is no Chromium'
        pytest.skip('Chromium is not installed (apt install chromium)')
    return found


@contextmanager
def running_browser() -> Iterator[Any]:
    """Chromium without a window."""
    path = find_browser()
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=['--no-sandbox'])
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """The page in a browser of its own, with what it asked for and what went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int = 1280, height: int = 900) -> None:
        self.context = browser.new_context(viewport={'width': width, 'height': height})
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000 * PATIENCE)
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.page.on('request', lambda request: self.requests.append(request.url))
        self.page.on('pageerror', lambda error: self.faults.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector('.picture canvas', timeout=30_000 * PATIENCE)

    def close(self) -> None:
        self.context.close()

    def add(self, text: str) -> None:
        self.page.fill('#text', text)
        self.page.keyboard.press('Enter')

    def card(self, name: str) -> Any:
        return self.page.locator(f'[data-prompt="{name}"]')

    def names(self) -> list[str]:
        return list(self.page.locator('.card').evaluate_all(
            'cards => cards.map((card) => card.dataset.prompt)'))  # fmt: skip

    def wait_for(
        self, condition: Callable[[], Any], timeout: float = 20.0 * PATIENCE, what: str = ''
    ) -> Any:
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f'not within {timeout} s: {what}\n{self.health()}\n{self.message()}'
                )
            # The driver's events are handled meanwhile.
            self.page.wait_for_timeout(50)
        return value

    def health(self) -> str:
        return str(self.page.inner_text('.health'))

    def message(self) -> str:
        return str(self.page.inner_text('.message'))

    def only_tint(self) -> None:
        """Shows masks as areas of one colour."""
        outline = self.page.get_by_role('button', name='Outline')
        if outline.get_attribute('aria-pressed') == 'true':
            outline.click()
        self.page.get_by_label('Strength').fill('1')

    def drawn(self, name: str) -> tuple[Mask, dict[str, Any]]:
        """What is drawn in the colour of a prompt, and of which picture."""
        colour = self.card(name).locator('input[type=color]').input_value()
        found = self.page.evaluate(_DRAWN, colour)
        bits = np.frombuffer(base64.b64decode(found['bits']), np.uint8)
        return bits.reshape(found['height'], found['width']).astype(bool), found

    def pixels(self) -> NDArray[np.uint8]:
        """What is drawn, RGB."""
        found = self.page.evaluate(_PIXELS)
        values = np.frombuffer(base64.b64decode(found['data']), np.uint8)
        return values.reshape(found['height'], found['width'], 4)[..., :3]

    def press(self, name: str) -> Any:
        """Presses a button above or below the picture."""
        button = self.page.get_by_role('button', name=name, exact=True)
        button.click()
        return button

    def slide(self, name: str, label: str, value: float) -> None:
        self.card(name).get_by_label(label, exact=True).fill(str(value))

    def click(self, x: float, y: float) -> None:
        """Clicks a pixel of the picture."""
        canvas = self.page.locator('.picture canvas')
        box = canvas.bounding_box()
        width = canvas.evaluate('one => one.width')
        scale = box['width'] / width
        canvas.click(position={'x': (x + 0.5) * scale, 'y': (y + 0.5) * scale})

    def drag(self, left: float, top: float, right: float, bottom: float) -> None:
        canvas = self.page.locator('.picture canvas')
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        scale = box['width'] / canvas.evaluate('one => one.width')
        mouse = self.page.mouse
        mouse.move(box['x'] + left * scale, box['y'] + top * scale)
        mouse.down()
        mouse.move(box['x'] + right * scale, box['y'] + bottom * scale, steps=4)
        mouse.up()

    def unnamed(self) -> list[str]:
        return list(self.page.evaluate(_UNNAMED))

    def foreign(self) -> list[str]:
        ours = re.compile(r'(https?|wss?)://127\.0\.0\.1[:/]|blob:|data:')
        return [url for url in self.requests if not ours.match(url)]


def overlap(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
