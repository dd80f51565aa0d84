"""The page in Chromium, against the real node, over real topics."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from console_server import served
from numpy.typing import NDArray
from page_driver import PATIENCE, Page, overlap, running_browser
from ros_peers import NodeProcess, Peer, stamp_of
from scene_camera import SceneCamera
from sensor_msgs.msg import Image

from clipseg_ros.console import cards as editing
from clipseg_ros.console.back_ends.ros import RosBackEnd
from clipseg_ros.demo.scenes import DemoScene, make_scene
from clipseg_ros.images.conversion import image_to_array
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import sensor_input

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240 * PATIENCE)]

MUG, PLATE = 'the mug', 'yellow plate'


def start_node(environment: dict[str, str], namespace: str = '/') -> NodeProcess:
    parameters = {'model': 'tabletop', 'threads': 1}
    remapped = ['-r', f'__ns:={namespace}']
    node = NodeProcess('clipseg_ros.segment_node', parameters, remapped, environment=environment)
    node.wait_for('active: tabletop', 60.0 * PATIENCE)
    return node


def mask_of(masks: list[Image], stamp: float) -> NDArray[np.bool_] | None:
    for message in list(masks):
        seconds, nanoseconds = stamp_of(message)
        if abs(seconds + nanoseconds / 1e9 - stamp) < 2e-6:
            return image_to_array(message) > 0
    return None


class Robot:
    """The node and its camera, the console on them, and its addresses."""

    def __init__(
        self, environment: dict[str, str], camera: SceneCamera, back_end: RosBackEnd
    ) -> None:
        self.environment, self.camera, self.back_end = environment, camera, back_end
        self.node = start_node(environment)
        self.address = self.view_address = ''
        self.masks: list[Image] = []

    def mask_of(self, stamp: float) -> NDArray[np.bool_] | None:
        return mask_of(self.masks, stamp)


@pytest.fixture(scope='module')
def scene() -> DemoScene:
    return make_scene(1, 640, 480)


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    with running_browser() as made:
        yield made


@pytest.fixture(scope='module')
def robot(
    browser: Any, scene: DemoScene, own_domain: int, built: dict[str, str]
) -> Iterator[Robot]:
    if load_interfaces() is None:
        pytest.skip('the messages of clipseg_ros are not built (make interfaces)')
    environment = {**built, 'ROS_DOMAIN_ID': str(own_domain)}
    with ExitStack() as stack:
        peer = Peer(own_domain)
        stack.callback(peer.close)
        camera = SceneCamera(peer, scene.rgb)
        stack.callback(camera.close)
        made = Robot(environment, camera, RosBackEnd(['/clipseg'], domain_id=own_domain))
        stack.callback(lambda: made.node.stop(patience=40.0 * PATIENCE))
        _, lines = stack.enter_context(served(made.back_end, token=True))
        made.address, made.view_address = (line.partition(': ')[2] for line in lines)
        peer.node.create_subscription(Image, '/clipseg/mask', made.masks.append, sensor_input())
        yield made


@pytest.fixture(scope='module')
def page(browser: Any, robot: Robot) -> Iterator[Page]:
    made = Page(browser, robot.address)
    made.only_tint()
    yield made
    assert not made.faults
    assert not made.foreign()
    made.close()


@pytest.fixture
def mug(page: Page, robot: Robot) -> Page:
    """The page with the one prompt, live."""
    freeze = page.page.get_by_role('button', name='Freeze')
    if freeze.get_attribute('aria-pressed') == 'true':
        freeze.click()
    if [card.name for card in robot.back_end.cards] != [MUG]:
        robot.back_end.change(editing.added((), MUG))
    page.wait_for(lambda: page.names() == [MUG], what='the one prompt')
    # Not a picture of before, in which other prompts compete with it.
    page.wait_for(lambda: is_all_of_it(page, robot), 30.0 * PATIENCE, 'its mask, and no other')
    return page


def is_all_of_it(page: Page, robot: Robot) -> bool:
    """Whether what is drawn of the mug is every pixel of the node's mask of this very picture."""
    drawn, shot = page.drawn(MUG)
    own = robot.mask_of(shot['stamp'])
    return own is not None and bool(own.any()) and np.array_equal(drawn, own)


def truth_of(scene: DemoScene, text: str) -> NDArray[np.bool_]:
    return next(question.truth for question in scene.questions if question.text == text)


def inside(truth: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel (x, y) of a thing that is farthest from its border."""
    distance = cv2.distanceTransform(truth.view(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(x), int(y)


def test_a_typed_prompt_changes_what_is_seen(page: Page, robot: Robot, scene: DemoScene) -> None:
    page.wait_for(lambda: 'no prompt' in page.health(), what='a word on the missing prompt')
    page.add(MUG)
    page.wait_for(lambda: page.names() == [MUG], what='the card')
    page.wait_for(lambda: is_all_of_it(page, robot), what="the node's own mask, pixel by pixel")
    drawn, _ = page.drawn(MUG)
    assert overlap(drawn, truth_of(scene, MUG)) > 0.7
    page.wait_for(lambda: 'no prompt' not in page.health(), what='no word on a missing prompt')


def test_a_threshold_slider_changes_the_area(mug: Page, robot: Robot) -> None:
    page = mug
    before = int(page.drawn(MUG)[0].sum())
    assert before
    page.slide(MUG, 'Threshold', 0.97)

    def smaller() -> bool:
        drawn, shot = page.drawn(MUG)
        own = robot.mask_of(shot['stamp'])
        return own is not None and np.array_equal(drawn, own) and 0 < drawn.sum() < 0.97 * before

    page.wait_for(smaller, what='a smaller mask')
    page.card(MUG).get_by_label('Threshold: take the one of all').click()
    page.wait_for(lambda: page.drawn(MUG)[0].sum() == before, what='the mask of before')


def test_a_click_picks_the_thing_under_it(mug: Page, robot: Robot, scene: DemoScene) -> None:
    page = mug
    truth = truth_of(scene, PLATE)
    assert robot.back_end.cards
    page.page.get_by_placeholder('name (optional)').fill('dish')
    page.click(*inside(truth))
    page.wait_for(lambda: 'dish' in page.names(), what='the example')
    card = next(card for card in robot.back_end.cards if card.name == 'dish')
    assert card.example is not None
    assert card.example.mask is not None
    assert np.array_equal(card.example.image, scene.rgb)
    assert overlap(card.example.mask, truth) >= 0.7
    image = page.card('dish').locator('img.thumb')
    page.wait_for(lambda: image.evaluate('one => one.naturalWidth') > 20, what='its cut-out')
    # The node looks for it.
    page.wait_for(
        lambda: overlap(page.drawn('dish')[0], truth) > 0.6, what='what the example finds'
    )


def test_a_box_and_a_click_on_a_mask(mug: Page, robot: Robot, scene: DemoScene) -> None:
    page = mug
    truth = truth_of(scene, MUG)
    page.click(*inside(page.drawn(MUG)[0]))
    page.wait_for(lambda: 'example' in page.names(), what='an example')
    card = next(card for card in robot.back_end.cards if card.name == 'example')
    assert card.example is not None
    assert card.example.mask is not None
    assert overlap(card.example.mask, truth) >= 0.7
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
    page.drag(*box)
    page.wait_for(lambda: 'example 2' in page.names(), what='an example by a box')
    card = next(card for card in robot.back_end.cards if card.name == 'example 2')
    assert card.example is not None
    assert card.example.mask is not None
    x, y, width, height = cv2.boundingRect(card.example.mask.view(np.uint8))
    assert np.allclose((x, y, x + width, y + height), box, atol=4)
    for name in ('example', 'example 2'):
        page.card(name).get_by_label(f'Remove {name}').click()
        page.wait_for(lambda name=name: name not in page.names(), what='its removal')


def test_a_frozen_picture_is_compared(mug: Page) -> None:
    page = mug
    page.page.get_by_role('button', name='Freeze').click()
    page.page.get_by_label('Threshold', exact=True).last.wait_for()
    number = page.drawn(MUG)[1]['number']
    whole = page.drawn(MUG)[0]
    compare = page.page.locator('.compare')
    compare.locator('input[type=number]').fill('0.97')
    compare.get_by_role('button', name='Compare').click()
    page.wait_for(lambda: compare.locator('.split').count(), what='the slider')
    slider = compare.locator('.split input')
    slider.fill('0')
    page.wait_for(lambda: page.drawn(MUG)[0].sum() < 0.97 * whole.sum(), what='a smaller mask')
    right = page.drawn(MUG)[0]
    assert right.any()
    slider.fill('1')
    # It is drawn with the browser's next frame.
    page.wait_for(lambda: page.drawn(MUG)[0][:, :-4].sum() > right.sum(), what='the larger mask')
    assert page.drawn(MUG)[1]['number'] == number
    page.page.get_by_role('button', name='Freeze').click()
    page.wait_for(lambda: page.drawn(MUG)[1]['number'] > number, what='a newer picture')


def test_two_browsers_agree_and_one_may_only_look(mug: Page, browser: Any, robot: Robot) -> None:
    page = mug
    other = Page(browser, robot.view_address, 390, 844)
    try:
        other.wait_for(lambda: other.names() == page.names() == [MUG], what='the same prompts')
        page.add('the mug; a bowl: bowl')
        other.wait_for(lambda: other.names() == [MUG, 'a bowl'], what='the new prompt')
        colour = 'one => { one.value = "#0a0b0c"; one.dispatchEvent(new Event("input")); }'
        page.card(MUG).locator('input[type=color]').evaluate(colour)
        other.wait_for(
            lambda: other.card(MUG).locator('input[type=color]').input_value() == '#0a0b0c',
            what='the new colour',
        )
        # Whatever it tries: by the page, and past it.
        assert other.page.locator('#text').is_disabled()
        assert other.card(MUG).get_by_label('Threshold', exact=True).is_disabled()
        other.click(100, 100)
        statuses = other.page.evaluate("""async () => Promise.all(
            ['do/clear', 'do/remove', 'do/values', 'example', 'mask', 'picture', 'compare'].map(
                async (path) => (await fetch(path, {method: 'POST', body: '{}'})).status))""")
        assert set(statuses) == {403}
        assert page.names() == [MUG, 'a bowl']
        # A phone shows everything without scrolling aside, and all of it has a name.
        width = other.page.evaluate('document.scrollingElement.scrollWidth')
        assert width <= 390
        for one in (page, other):
            assert one.unnamed() == []
        page.card('a bowl').get_by_label('Remove a bowl').click()
        other.wait_for(lambda: other.names() == [MUG], what='its removal')
        assert not other.foreign()
        assert not other.faults
    finally:
        other.close()


def test_what_the_keyboard_does(mug: Page, robot: Robot, scene: DemoScene) -> None:
    page = mug
    canvas = page.page.locator('.picture canvas')
    canvas.focus()
    x, y = inside(page.drawn(MUG)[0])
    steps = {'ArrowRight': round((x - 320) / 10), 'ArrowDown': round((y - 240) / 10)}
    back = {'ArrowRight': 'ArrowLeft', 'ArrowDown': 'ArrowUp'}
    for key, count in steps.items():
        for _ in range(abs(count)):
            page.page.keyboard.press(key if count > 0 else back[key])
    page.page.keyboard.press('Enter')
    page.wait_for(lambda: 'example' in page.names(), what='an example by keys')
    page.page.keyboard.press('Escape')
    remove = page.card('example').get_by_label('Remove example')
    remove.focus()
    page.page.keyboard.press('Enter')
    page.wait_for(lambda: page.names() == [MUG], what='its removal')


def test_an_upload_that_is_no_picture_is_refused_in_words(mug: Page, tmp_path: Path) -> None:
    page = mug
    file = tmp_path / 'words.png'
    file.write_text('no picture')
    card = page.card(MUG)
    card.locator('summary').click()
    card.locator('input[type=file]').set_input_files(file)
    page.wait_for(
        lambda: 'words.png cannot be read as an image' in page.message(),
        what='the reason',
    )
    page.add('x' * 1200)
    page.wait_for(lambda: '1000' in page.message(), what='the reason')
    assert page.names() == [MUG]
    page.page.fill('#text', '')


def test_why_no_pictures_come_is_said_within_3_seconds(page: Page, robot: Robot) -> None:
    robot.camera.sends.clear()
    stopped = robot.camera.last
    page.wait_for(lambda: 'no image on /image' in page.health(), 3.0, 'the reason')
    assert time.monotonic() - stopped < 3.5
    figures = page.page.locator('.figures')
    page.wait_for(
        lambda: re.search(r'frames\s0\.\d/s\s+age\s\d+\.\d s', figures.inner_text()),
        what='how old the picture is by now',
    )
    robot.camera.sends.set()
    page.wait_for(lambda: 'no image on' not in page.health(), what='the end of it')


def test_what_is_clicked_in_the_drawing_of_the_node(
    mug: Page, robot: Robot, scene: DemoScene
) -> None:
    page = mug
    drawing = page.page.get_by_role('button', name="Node's drawing")
    drawing.click()
    try:
        seen: set[int] = set()

        def drawn() -> bool:
            seen.update(
                page.page.evaluate("""async () => {
                    const {shown} = await import('/page/stream.js');
                    return shown.shot.own ? [shown.shot.number] : [];
                }""")
            )
            # Not only of images whose pictures came before.
            return len(seen) > 3

        page.wait_for(drawn, what='the drawing')
        page.page.get_by_placeholder('name (optional)').fill('drawn')
        page.click(*inside(truth_of(scene, MUG)))
        page.wait_for(lambda: 'drawn' in page.names(), what='the example')
        example = next(card for card in robot.back_end.cards if card.name == 'drawn').example
        assert example is not None
        assert np.array_equal(example.image, scene.rgb)
        page.card('drawn').get_by_label('Remove drawn').click()
        page.wait_for(lambda: page.names() == [MUG], what='its removal')
        page.page.get_by_role('button', name='Freeze').click()
        # What is frozen follows the threshold, so the page draws it itself.
        page.wait_for(lambda: page.drawn(MUG)[0].any(), what='its mask')
        page.press('Instances')
        page.wait_for(
            lambda: page.page.evaluate("""async () => {
                const {shown} = await import('/page/stream.js');
                return new Set(shown.shot.instances).size > 1;
            }"""),
            what='its things',
        )
        page.press('Instances')
        page.press('Heat')
        page.wait_for(lambda: 'heat of live pictures alone' in page.message(), what='why not')
        page.press('Heat')
        page.page.get_by_role('button', name='Freeze').click()
        robot.camera.sends.clear()
        stopped = robot.camera.last
        page.wait_for(lambda: 'no image on /image' in page.health(), 3.0, 'the reason')
        assert time.monotonic() - stopped < 3.5
    finally:
        robot.camera.sends.set()
        drawing.click()
    page.wait_for(lambda: 'no image on' not in page.health(), what='the end of it')


@pytest.mark.slow
def test_another_camera_is_chosen(mug: Page, robot: Robot, own_domain: int) -> None:
    page, cameras = mug, mug.page.get_by_label('Camera')
    masks: list[Image] = []
    with ExitStack() as stack:
        peer = Peer(own_domain)
        stack.callback(peer.close)
        left = SceneCamera(peer, make_scene(2, 320, 240).rgb, topic='/left/image')
        stack.callback(left.close)
        node = start_node(robot.environment, '/left')
        stack.callback(lambda: node.stop(patience=40.0 * PATIENCE))
        peer.node.create_subscription(Image, '/left/clipseg/mask', masks.append, sensor_input())
        page.wait_for(lambda: '/left/clipseg' in cameras.inner_text(), what='the choice')
        cameras.select_option('/left/clipseg')
        page.wait_for(lambda: page.names() == [], what='no prompt: this node has none')
        page.add(PLATE)
        page.wait_for(lambda: page.names() == [PLATE], what='the card')

        def shown() -> bool:
            drawn, shot = page.drawn(PLATE)
            own = mask_of(masks, shot['stamp'])
            return own is not None and drawn.shape == (240, 320) and np.array_equal(drawn, own)

        page.wait_for(shown, 30.0 * PATIENCE, "the other node's mask on the other camera's picture")
        cameras.select_option('/clipseg')
        page.wait_for(lambda: page.names() == [MUG], what="the first node's prompt, untouched")
        page.wait_for(lambda: is_all_of_it(page, robot), 30.0 * PATIENCE, 'its mask')
    page.wait_for(
        lambda: '/left/clipseg' not in cameras.inner_text(), 20.0 * PATIENCE, 'no such choice'
    )


def test_a_node_that_dies_and_comes_back(page: Page, robot: Robot) -> None:
    page.page.evaluate('globalThis.sameePage = 1')
    assert robot.node.stop((signal.SIGINT,), 40.0 * PATIENCE) == 0
    page.wait_for(
        lambda: 'the node /clipseg has ended' in page.health(), 8.0 * PATIENCE, 'the reason'
    )
    robot.node = start_node(robot.environment)
    page.wait_for(lambda: 'has ended' not in page.health(), 30.0 * PATIENCE, 'the end of it')
    page.add(MUG)

    def seen() -> bool:
        if MUG not in page.names():
            return False
        drawn, shot = page.drawn(MUG)
        own = robot.mask_of(shot['stamp'])
        return own is not None and bool(own.any()) and np.array_equal(drawn, own)

    page.wait_for(seen, 30.0 * PATIENCE, 'the mask of the new node')
    assert page.page.evaluate('globalThis.sameePage') == 1
