"""Values on the page in Chromium: which one of a slider holds, ages, and whose scores they are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from console_server import StandIn, served
from page_driver import PATIENCE, Page, running_browser

from clipseg_ros.console import cards as editing
from clipseg_ros.console.shots import Shot, encode_values

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240 * PATIENCE)]


@pytest.fixture(scope='module')
def back_end() -> StandIn:
    made = StandIn()
    made.change(editing.added((), 'mug'))
    return made


@pytest.fixture(scope='module')
def page(back_end: StandIn) -> Iterator[Page]:
    with running_browser() as browser, served(back_end) as (client, _):
        made = Page(browser, f'http://{client.host}/')
        yield made
        assert not made.faults
        made.close()


def test_the_last_value_of_a_slider_holds(page: Page, back_end: StandIn) -> None:
    requests: list[Any] = []

    def hold_first(route: Any) -> None:
        requests.append(route)
        if len(requests) > 1:
            route.continue_()

    page.page.route('**/do/edit', hold_first)
    for value in (0.3, 0.6, 0.7):
        page.slide('mug', 'Threshold', value)
        page.page.wait_for_timeout(400)
    # The first arrives now: after the others, unless those have waited for its answer.
    requests[0].continue_()
    page.wait_for(lambda: len(requests) > 1, what='the last value')
    page.page.wait_for_timeout(500)
    page.page.unroute('**/do/edit')
    assert back_end.cards[0].threshold == 0.7


def figures(page: Page) -> str:
    return str(page.page.locator('.figures').inner_text())


def test_an_age_by_another_clock_is_not_told(page: Page, back_end: StandIn) -> None:
    back_end.push()
    page.wait_for(lambda: re.search(r'age\s\d+ ms', figures(page)), what='an age')
    # The time of a simulation, and a clock that is ahead.
    for stamp in (12.5, time.time() + 3600):
        back_end.push(stamp)
        page.wait_for(lambda: re.search(r'age\s–', figures(page)), what='no age')
        back_end.push()
        page.wait_for(lambda: re.search(r'age\s[\d.]+ m?s', figures(page)), what='an age')


def test_scores_of_another_model_are_not_drawn(page: Page, back_end: StandIn) -> None:
    def push(origin: str) -> None:
        layers = {'labels': encode_values(back_end.labels())}
        rgb, found = back_end.rgb, back_end.found()
        back_end.show(Shot(time.time(), 64, 48, lambda: rgb, layers, found, None, True, origin))

    def count() -> int:
        text = "async () => (await import('/page/link.js')).link.scores.get('mug')?.length ?? 0"
        return int(page.page.evaluate(text))

    def three() -> bool:
        push('one')
        return count() >= 3

    page.wait_for(three, what='some scores')
    push('other')
    page.wait_for(lambda: count() == 1, what='the one score of the other')
