"""What the buttons and sliders of the page do, in Chromium, on the model itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from alone_page import MUG, PLATE, begin, card_of, drop, open_card, png
from console_server import StandIn, served
from numpy.typing import NDArray
from page_driver import PATIENCE, Page, overlap

from clipseg_model import Prompt, create_model
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_ros.console.back_ends.alone import AloneBackEnd
from clipseg_ros.demo.scenes import DemoScene

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240 * PATIENCE)]

OTHER = 'everyday'


@pytest.fixture(scope='module')
def other() -> Segmenter:
    return create_model(OTHER, 'cpu', 1)


@pytest.fixture(autouse=True)
def _live(page: Page) -> None:
    """No button is pressed that an earlier test has pressed."""
    for name in ('Freeze', 'Heat', 'Instances'):
        button = page.page.get_by_role('button', name=name, exact=True)
        if button.get_attribute('aria-pressed') == 'true':
            button.click()


def heat_of(found: Segmentation) -> NDArray[np.float32]:
    """How far the colours of heat go from blue to yellow: red less blue, 0…255."""
    p = found.probability()
    red = 255 * np.clip(2.2 * p - 0.3, 0, 1)
    blue = 255 * np.clip(np.minimum(0.6, 0.35 + p) - 1.1 * p * p, 0, None)
    return np.asarray(red - blue, np.float32)


def is_heat(page: Page, found: Segmentation, rgb: NDArray[np.uint8]) -> bool:
    """Whether what is drawn is the probability over the picture."""
    share = 0.6 * 235 / 255
    picture = rgb.astype(np.float32)
    expected = share * heat_of(found) + (1 - share) * (picture[..., 0] - picture[..., 2])
    drawn = page.pixels().astype(np.float32)
    # Both are JPEG.
    return float(np.abs(drawn[..., 0] - drawn[..., 2] - expected).mean()) < 8


def is_in_parts(page: Page, mask: NDArray[np.bool_]) -> bool:
    """Whether each connected part of a mask has one colour of its own."""
    pixels = page.pixels().astype(np.int64)
    colours = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    count, parts, facts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    found = [set(colours[parts == one].tolist()) for one in range(1, count)
             if facts[one, cv2.CC_STAT_AREA] >= 20]  # fmt: skip
    whole = all(len(one) == 1 for one in found)
    return whole and len(set.union(*found)) == len(found) > 1


@pytest.mark.parametrize('frozen', [False, True])
def test_heat_and_instances(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter, frozen: bool
) -> None:
    # It finds two things.
    begin(page, back_end, 'kitchenware')
    found = model.segment(scene.rgb, ['kitchenware'])
    mask = found.results[0].mask
    if frozen:
        # Of what the picture has no layer yet.
        page.press('Freeze')
    assert not is_heat(page, found, scene.rgb)
    page.press('Heat')
    page.wait_for(lambda: is_heat(page, found, scene.rgb), what='the probability')
    page.press('Heat')
    assert not is_in_parts(page, mask)
    page.press('Instances')
    page.wait_for(lambda: is_in_parts(page, mask), what='things, each in its colour')


def test_a_frozen_picture_follows_thresholds_and_words(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter
) -> None:
    begin(page, back_end, MUG)
    page.press('Freeze')
    page.press('Heat')
    area = page.card(MUG).locator('.area span')
    whole = scene.rgb.shape[0] * scene.rgb.shape[1]

    def shows(prompt: Prompt) -> bool:
        mask = model.segment(scene.rgb, [prompt]).results[0].mask
        return area.inner_text() == f'{100 * mask.sum() / whole:.1f} %'

    page.wait_for(lambda: shows(Prompt(MUG)), what='the area')
    page.slide(MUG, 'Threshold', 0.9)
    page.wait_for(lambda: shows(Prompt(MUG, threshold=0.9)), what='the area of now')
    found = model.segment(scene.rgb, [PLATE])
    page.add(PLATE)
    page.card(MUG).get_by_label(f'Look for {MUG}').uncheck()
    page.wait_for(lambda: is_heat(page, found, scene.rgb), what='the probability of now')


def test_marks_suggest_a_presence_threshold(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter
) -> None:
    begin(page, back_end, MUG)
    there = model.segment(scene.rgb, [MUG]).results[0].score
    empty = np.full_like(scene.rgb, 90)
    absent = model.segment(empty, [MUG]).results[0]
    assert not absent.presence
    card = open_card(page, MUG)
    card.get_by_role('button', name='✓ right').click()
    page.wait_for(lambda: f'is there, at a score of {there:.2f}' in page.message(), what='the mark')
    # The frozen picture is marked, and not the one that is live by now.
    page.press('Freeze')
    drop(page, page.page.locator('.picture'), 'empty.png', png(empty))
    page.wait_for(lambda: 'empty.png is looked at' in page.message(), what='the picture')
    page.wait_for(lambda: back_end.status().step == 1, what='the picture')
    page.page.wait_for_timeout(500)
    card.get_by_role('button', name='✗ wrong').click()
    page.wait_for(
        lambda: f'is not there, at a score of {there:.2f}' in page.message(), what='the mark'
    )
    card.get_by_role('button', name='Forget the marks').click()
    page.press('Freeze')
    number = card.locator('.value')
    page.wait_for(lambda: number.inner_text() == f'{absent.score:.2f}', what='the live picture')
    card.get_by_role('button', name='✓ right').click()
    page.wait_for(lambda: 'is not there' in page.message(), what='the mark')
    page.page.get_by_label('Picture before').click()
    page.wait_for(lambda: number.inner_text() == f'{there:.2f}', what='the picture before')
    card.get_by_role('button', name='✓ right').click()
    middle = (there + absent.score) / 2
    use = card.get_by_role('button', name='Use presence')
    page.wait_for(lambda: use.count() and f'{middle:.2f}' in use.inner_text(), what='a threshold')
    use.click()
    page.wait_for(
        lambda: card_of(back_end, MUG).presence == pytest.approx(middle, abs=2e-3), what='its use'
    )


def test_pictures_play(page: Page, back_end: AloneBackEnd, scene: DemoScene) -> None:
    drop(page, page.page.locator('.picture'), 'mirrored.png', png(scene.rgb[:, ::-1]))
    steps = page.page.locator('.steps span')
    page.wait_for(lambda: back_end.status().steps > 1 and steps.count(), what='the pictures')
    before = back_end.status().step
    begin(page, back_end, MUG)
    page.press('Play')
    page.wait_for(lambda: back_end.status().step != before, what='the next picture')
    now = back_end.status().step
    page.wait_for(lambda: steps.inner_text().startswith(f'{now + 1} /'), what='its number')
    page.press('Stop')
    page.wait_for(lambda: not back_end.status().playing, what='the end of it')
    while back_end.status().step:
        at = back_end.status().step
        page.page.get_by_label('Picture before').click()
        page.wait_for(lambda at=at: back_end.status().step != at, what='the picture before')


def test_a_prompt_is_switched_off_and_made_negative(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter
) -> None:
    # Each takes a part of what the other finds.
    words = 'tableware'
    begin(page, back_end, f'{MUG}; {words}')

    def shows(*prompts: Prompt) -> None:
        own = model.segment(scene.rgb, list(prompts)).labels([1]) == 1
        page.wait_for(
            lambda: np.array_equal(page.drawn(MUG)[0], own), what=f'the mask of {prompts}'
        )

    both = model.segment(scene.rgb, [MUG, words]).labels([1, 2])
    alone = model.segment(scene.rgb, [MUG]).labels([1])
    without = model.segment(scene.rgb, [Prompt(MUG), Prompt(words, negative=True)]).labels([1])
    assert len({both.tobytes(), alone.tobytes(), without.tobytes()}) == 3
    on = page.card(words).get_by_label(f'Look for {words}')
    on.uncheck()
    shows(Prompt(MUG))
    assert not page.drawn(words)[0].any()
    on.check()
    page.wait_for(lambda: page.drawn(words)[0].any(), what='its mask')
    open_card(page, words).get_by_label('negative').check()
    page.wait_for(lambda: f'not {words}' in page.card(words).inner_text(), what='what it is now')
    assert not page.card(words).get_by_role('meter').count()
    shows(Prompt(MUG), Prompt(words, negative=True))


def test_words_and_a_picture_are_weighed(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter
) -> None:
    begin(page, back_end, MUG)
    example = scene.rgb[60:180, 80:240]
    drop(page, page.card(MUG), 'example.png', png(example))
    page.wait_for(lambda: card_of(back_end, MUG).example, what='the example')
    slider = open_card(page, MUG).get_by_label("Words' weight")
    masks = []
    for weight in (0.25, 1.0):
        slider.fill(str(weight))
        page.wait_for(lambda weight=weight: card_of(back_end, MUG).weight == weight, what='weight')
        prompt = Prompt(MUG, image=example, weight=weight)
        masks.append(model.segment(scene.rgb, [prompt]).results[0].mask)
        page.wait_for(
            lambda: np.array_equal(page.drawn(MUG)[0], masks[-1]), what=f'the mask at {weight}'
        )
    assert not np.array_equal(*masks)


def test_models_are_compared_and_chosen(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter, other: Segmenter
) -> None:
    begin(page, back_end, MUG)
    own = model.segment(scene.rgb, [MUG]).results[0].mask
    others = other.segment(scene.rgb, [MUG]).results[0].mask
    assert others.any()
    assert overlap(own, others) < 0.99
    page.press('Freeze')
    compare = page.page.locator('.compare')
    compare.get_by_label('Model').select_option(OTHER)
    compare.get_by_role('button', name='Compare').click()
    page.wait_for(lambda: compare.locator('.split').count(), what='the slider')
    compare.locator('.split input').fill('0')
    # But for the line that the slider draws.
    page.wait_for(
        lambda: np.array_equal(page.drawn(MUG)[0][:, 2:], others[:, 2:]), what="the other's mask"
    )
    compare.locator('.split input').fill('1')
    page.wait_for(
        lambda: np.array_equal(page.drawn(MUG)[0][:, :-2], own[:, :-2]), what='the mask of before'
    )
    page.press('Freeze')
    choices = page.page.get_by_label('Model')
    choices.select_option(OTHER)
    page.wait_for(lambda: OTHER in page.page.locator('.figures').inner_text(), 60, 'the model')
    page.wait_for(lambda: np.array_equal(page.drawn(MUG)[0], others), what='its mask')
    choices.select_option('tabletop')
    page.wait_for(lambda: np.array_equal(page.drawn(MUG)[0], own), 60, 'the mask of before')


def test_why_the_console_refuses_is_said(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = page.context.browser
    tokens = iter(['first', 'look', 'second', 'look', 'first', 'look'])
    monkeypatch.setattr('clipseg_ros.console.app.new_token', lambda: next(tokens))
    with served(StandIn(), token=True) as (client, lines):
        port = client.port
        made = Page(browser, lines[0].partition(': ')[2])
    try:
        made.wait_for(lambda: 'does not answer' in made.health(), what='that it has ended')
        with served(StandIn(), token=True, port=port):
            made.wait_for(lambda: 'The token is missing or wrong' in made.health(), what='why')
        made.wait_for(lambda: 'does not answer' in made.health(), what='that it has ended')
        with served(StandIn(), token=True, port=port):
            made.wait_for(lambda: made.health() == '', what='the end of it')
            monkeypatch.setattr('clipseg_ros.console.server.MOST_BROWSERS', 1)
            late = browser.new_page()
            late.goto(lines[0].partition(': ')[2])
            late.get_by_text('1 browsers look already').wait_for()
            late.close()
    finally:
        made.close()
