"""The page in Chromium on pictures, without ROS: dropping, painting, ordering, saving, copying."""

from __future__ import annotations

import ast
import io
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from alone_page import MUG, PLATE, begin, card_of, drop, open_card, png
from numpy.typing import NDArray
from page_driver import PATIENCE, Page

from clipseg_model import Prompt
from clipseg_model.segmenter import Segmenter
from clipseg_ros.console import cards as editing
from clipseg_ros.console.back_ends.alone import AloneBackEnd
from clipseg_ros.demo.scenes import DemoScene
from clipseg_ros.prompts.file import load_prompts

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240 * PATIENCE)]


def grey(data: bytes) -> NDArray[Any]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def open_painting(page: Page, name: str) -> Any:
    open_card(page, name)
    page.card(name).get_by_role('button', name='Paint its mask…').click()
    dialog = page.page.locator('dialog')
    canvas = dialog.locator('canvas')
    page.wait_for(lambda: canvas.evaluate('one => one.width') == 320, what='the picture in it')
    return dialog


def mask_of(back_end: AloneBackEnd, name: str) -> NDArray[np.bool_]:
    example = card_of(back_end, name).example
    assert example is not None
    assert example.mask is not None
    return example.mask


def test_a_mask_is_painted_on_a_dropped_picture(
    page: Page, back_end: AloneBackEnd, scene: DemoScene
) -> None:
    begin(page, back_end, MUG)
    drop(page, page.card(MUG), 'example.png', png(scene.rgb))
    page.wait_for(lambda: card_of(back_end, MUG).example, what='the example')
    assert np.array_equal(card_of(back_end, MUG).example.image, scene.rgb)  # type: ignore[union-attr]
    dialog = open_painting(page, MUG)
    canvas = dialog.locator('canvas')
    box = canvas.bounding_box()
    # Not distorted: a pixel of the screen is one of the picture, across and down.
    scale = box['width'] / 320
    assert box['height'] == pytest.approx(240 * scale, abs=1.5)
    dialog.get_by_role('button', name='Clear').click()
    dialog.get_by_role('button', name='Accept').click()
    page.wait_for(lambda: 'mask is empty' in dialog.inner_text(), what='why that is nothing')
    mouse = page.page.mouse
    (x, y), (to_x, to_y) = (60, 50), (260, 190)
    mouse.move(box['x'] + x * scale, box['y'] + y * scale)
    mouse.down()
    mouse.move(box['x'] + to_x * scale, box['y'] + to_y * scale, steps=3)
    mouse.up()
    dialog.get_by_role('button', name='Accept').click()
    page.wait_for(lambda: dialog.count() == 0, what='the end of painting')
    line = np.ones((240, 320), np.uint8)
    cv2.line(line, (x, y), (to_x, to_y), 0)
    expected = cv2.distanceTransform(line, cv2.DIST_L2, 5) <= 12 / scale
    painted = mask_of(back_end, MUG)
    assert (painted & expected).sum() / (painted | expected).sum() > 0.9
    # By keys: some of it is erased, at the middle.
    dialog = open_painting(page, MUG)
    dialog.get_by_role('button', name='Erase').click()
    dialog.locator('canvas').focus()
    for key in ('Space', 'ArrowRight', 'Space', 'ArrowDown'):
        page.page.keyboard.press(key)
    dialog.get_by_role('button', name='Accept').click()
    page.wait_for(lambda: dialog.count() == 0, what='the end of painting')
    left = mask_of(back_end, MUG)
    assert not left[120, 160]
    assert not (left & ~painted).any()
    assert 0.5 * painted.sum() < left.sum() < painted.sum()


def test_the_mask_under_a_click_is_accepted_as_it_is(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter
) -> None:
    begin(page, back_end, MUG)
    own = model.segment(scene.rgb, [MUG]).results[0].mask
    distance = cv2.distanceTransform(own.view(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    page.page.get_by_placeholder('name (optional)').fill('cup')
    page.click(int(x), int(y))
    page.wait_for(lambda: 'cup' in page.names(), what='the example')
    picked = mask_of(back_end, 'cup')
    # The one thing of the model's own mask that is under the click.
    count, parts = cv2.connectedComponents(own.view(np.uint8), connectivity=8)
    assert count > 1
    assert np.array_equal(picked, parts == parts[y, x])
    dialog = open_painting(page, 'cup')
    dialog.get_by_role('button', name='Accept').click()
    page.wait_for(lambda: dialog.count() == 0, what='the end of painting')
    assert mask_of(back_end, 'cup') is not picked
    assert np.array_equal(mask_of(back_end, 'cup'), picked)
    page.wait_for(lambda: page.drawn('cup')[0].any() or page.drawn(MUG)[0].any(), what='masks')


def test_cards_are_dragged_into_another_order(page: Page, back_end: AloneBackEnd) -> None:
    names = begin(page, back_end, f'{MUG}; {PLATE}; a ball')
    ids = {card.name: card.id for card in back_end.cards}

    def ordered(wanted: list[str]) -> None:
        page.wait_for(lambda: page.names() == wanted, what='the order')
        assert {card.name: card.id for card in back_end.cards} == ids
        assert [card.name for card in back_end.cards] == wanted

    page.card(names[0]).locator('.handle').drag_to(page.card(names[2]))
    ordered([names[1], names[2], names[0]])
    page.card(names[2]).locator('.handle').drag_to(page.card(names[1]))
    ordered([names[2], names[1], names[0]])
    # By keys, several times: the button keeps the focus.
    page.card(names[2]).get_by_label(f'Move {names[2]} down').focus()
    page.page.keyboard.press('Enter')
    ordered([names[1], names[2], names[0]])
    page.page.keyboard.press('Enter')
    ordered([names[1], names[0], names[2]])


def test_what_is_typed_into_a_card_stays_while_the_state_changes(
    page: Page, back_end: AloneBackEnd
) -> None:
    begin(page, back_end, f'{MUG}; {PLATE}')
    field = open_card(page, MUG).get_by_label('Words')
    field.fill('')
    for number, letter in enumerate('cup'):
        field.press(letter)
        back_end.set_values({'threshold': 0.4 + number / 50})
        page.wait_for(
            lambda number=number: (
                page.card(PLATE).locator('output').first.inner_text() == f'{0.4 + number / 50:.2f}'
            ),
            what='the new state',
        )
    assert field.input_value() == 'cup'
    page.page.keyboard.press('Enter')
    page.wait_for(lambda: page.names() == ['cup', PLATE], what='the new words')
    # The card stays open, and what is refused can be mended.
    field = page.card('cup').get_by_label('Name')
    field.fill(PLATE)
    page.page.keyboard.press('Enter')
    page.wait_for(lambda: 'choose another name' in page.message(), what='the reason')
    assert field.input_value() == PLATE


def downloaded(page: Page, words: str) -> tuple[str, bytes]:
    with page.page.expect_download() as found:
        page.page.get_by_role('toolbar', name='Save').get_by_role(
            'button', name=words, exact=True
        ).click()
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def copied(page: Page, words: str, says: Callable[[str], bool]) -> str:
    page.page.get_by_role('button', name=words, exact=True).click()
    text = page.wait_for(
        lambda: (
            shown
            if page.page.locator('.copied textarea').count()
            and says(shown := page.page.locator('.copied textarea').input_value())
            else ''
        ),
        what='the text',
    )
    assert page.page.evaluate('navigator.clipboard.readText()') == text
    return str(text)


def test_files_are_those_of_the_model(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, model: Segmenter, tmp_path: Path
) -> None:
    begin(page, back_end, f'{MUG}; dish: {PLATE}')
    back_end.change(editing.edited(back_end.cards, 'dish', {'threshold': 0.3}))
    # Nobody else keeps the threshold of all.
    back_end.set_values({'threshold': 0.42})
    prompts = [Prompt(MUG, threshold=0.42), Prompt(PLATE, name='dish', threshold=0.3)]
    found = model.segment(scene.rgb, prompts)
    labels = found.labels([card.id for card in back_end.cards])
    assert len(np.unique(labels)) == 3
    dish = card_of(back_end, 'dish').id
    page.wait_for(
        lambda: np.array_equal(page.drawn('dish')[0], labels == dish), what='the mask of the dish'
    )
    name, data = downloaded(page, 'Labels')
    assert name.startswith('labels_')
    assert np.array_equal(grey(data), labels)
    name, data = downloaded(page, 'Mask')
    assert name.startswith('mask_')
    mask = grey(data)
    assert np.array_equal(mask if mask.ndim == 2 else mask[..., 0], (labels > 0) * 255)
    name, data = downloaded(page, 'Picture')
    assert name.startswith('picture_')
    picture = grey(data)[..., 2::-1]
    # What is drawn: the colours of masks, and the picture, as good as its JPEG, elsewhere.
    colour = page.card('dish').locator('input[type=color]').input_value()
    assert (picture[labels == dish] == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all()
    rest = np.abs(picture[labels == 0].astype(int) - scene.rgb[labels == 0])
    assert rest.mean() < 6

    name, data = downloaded(page, 'Prompt file')
    (tmp_path / name).write_bytes(data)
    assert name == 'prompts.yaml'
    assert [one.prompt for one in load_prompts(tmp_path / name)] == prompts
    assert copied(page, 'YAML', lambda text: text.startswith('version')).encode() == data
    command = shlex.split(copied(page, 'ros2', lambda text: text.startswith('ros2')))
    assert yaml.safe_load(command[-1])['prompts'] == [
        {'phrase': MUG, 'threshold': 0.42},
        {'phrase': PLATE, 'name': 'dish', 'threshold': 0.3},
    ]
    script = copied(page, 'Python', lambda text: text.startswith('from'))
    names: dict[str, Any] = {}
    picture_file = tmp_path / 'picture.png'
    picture_file.write_bytes(png(scene.rgb))
    assert 'picture.jpg' in script
    exec(script.replace('picture.jpg', str(picture_file)), names)
    areas = [int(result.mask.sum()) for result in names['found'].results]
    assert areas == [int(result.mask.sum()) for result in found.results]


def test_the_prompt_file_has_the_pictures(
    page: Page, back_end: AloneBackEnd, scene: DemoScene, tmp_path: Path
) -> None:
    begin(page, back_end, MUG)
    drop(page, page.card(MUG), 'example.png', png(scene.rgb))
    page.wait_for(lambda: card_of(back_end, MUG).example, what='the example')
    page.wait_for(lambda: page.card(MUG).locator('.thumb').count(), what='the example')
    name, data = downloaded(page, 'Prompt file')
    assert name == 'prompts.zip'
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        packed.extractall(tmp_path)
    [loaded] = load_prompts(tmp_path / 'prompts.yaml')
    assert np.array_equal(loaded.prompt.image, scene.rgb)
    assert loaded.prompt.text == MUG
    ast.parse(copied(page, 'Python', lambda text: 'load_prompts' in text))
