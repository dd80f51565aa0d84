"""The page without ROS, for the tests of a module; modules may have a `back_end` of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from alone_page import drop, png
from console_server import served
from page_driver import Page, running_browser

from clipseg_model import create_model
from clipseg_model.segmenter import Segmenter
from clipseg_ros.console.back_ends.alone import AloneBackEnd
from clipseg_ros.demo.scenes import DemoScene, make_scene


@pytest.fixture(scope='module')
def scene() -> DemoScene:
    return make_scene(1, 320, 240)


@pytest.fixture(scope='module')
def model() -> Segmenter:
    return create_model('tabletop', 'cpu', 1)


@pytest.fixture(scope='module')
def back_end() -> AloneBackEnd:
    return AloneBackEnd([], 'tabletop', 'cpu', 1)


@pytest.fixture(scope='module')
def page(back_end: AloneBackEnd, scene: DemoScene) -> Iterator[Page]:
    with running_browser() as browser, served(back_end) as (client, _):
        made = Page(browser, f'http://{client.host}/')
        made.context.grant_permissions(['clipboard-read', 'clipboard-write'])
        made.only_tint()
        drop(made, made.page.locator('.picture'), 'scene.png', png(scene.rgb))
        made.wait_for(lambda: 'scene.png is looked at' in made.message(), what='the picture')
        yield made
        assert not made.faults
        assert not made.foreign()
        assert made.unnamed() == []
        made.close()
