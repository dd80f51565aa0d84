"""The one way in: whatever comes is parsed once, checked, applied, announced, and written last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
import torch
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_peers import picture, wait_until
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger

from clipseg_model.errors import PromptError
from clipseg_model.modeling.masked_attention import check_restrictable
from clipseg_model.prompts import Prompt, parse_prompts
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.prompts import text as prompt_text
from clipseg_ros.prompts.file import save_prompts
from clipseg_ros.prompts.file_server import PromptFiles
from clipseg_ros.prompts.pick_server import PickFrame, PickServer
from clipseg_ros.prompts.requests import with_text_weight
from clipseg_ros.prompts.server import PromptServer
from clipseg_ros.prompts.set import ActivePrompt, PromptRequest
from clipseg_ros.prompts.topics import PromptTopics
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.segment.loading import check_representable
from clipseg_ros.segment.parameters import Settings

ROOT = Path(__file__).parents[3]
RGB = picture(60, 80)


async def frame_as_it_is(masks: bool) -> PickFrame:
    """The frame, without labels: nothing is segmented here."""
    return PickFrame(RGB, 0.1)


class Rig:
    """A node with a prompt server and all entries, which keeps what happens in order."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.events: list[Any] = []
        self.loaded = False
        self.server = PromptServer(node, None, self.check, self.announce)
        node.add_on_set_parameters_callback(self.validate)
        node.declare_parameter('text_weight', 0.5)
        node.declare_parameter('max_pixels', 1_000_000)
        node.declare_parameter('prompt_file', '')
        entry = node, None, self.server, ThrottledLog(node.get_logger())
        self.topics, self.files = PromptTopics(*entry), PromptFiles(*entry)
        self.picks = PickServer(lambda labels: PickFrame(RGB, 0.1), frame_as_it_is, *entry)
        for one in (self.topics, self.files, self.picks):
            one.open(SimpleNamespace(create_subscription=self.subscribe))  # type: ignore[arg-type]

    def start(self, prompt: str = '') -> None:
        """Declare the parameter, as the node does before a model is loaded."""
        descriptor = rclpy.node.ParameterDescriptor(dynamic_typing=True)
        self.node.declare_parameter('prompt', prompt, descriptor)
        self.server.start()
        self.node.add_post_set_parameters_callback(self.apply)

    def load(self) -> None:
        """Go on with a model, which knows all words but one."""
        self.loaded = True
        self.server.resume()
        self.events.clear()

    def subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], *_: Any) -> Any:
        setattr(self, topic.removeprefix('~/'), callback)
        return self.node.create_subscription(kind, topic, callback, 1)

    def validate(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == 'prompt':
                problem = self.server.find_problem(parameter)
                return SetParametersResult(successful=not problem, reason=problem)
        return SetParametersResult(successful=True)

    def apply(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == 'prompt':
                self.server.follow(parameter)
                self.events.append(f'parameter: {parameter.value}')

    def check(self, prompts: Sequence[Prompt]) -> None:
        self.events.append('check')
        for prompt in prompts:
            if self.loaded and prompt.text == 'unreadable':
                raise PromptError('no word of it is known')

    def announce(self) -> None:
        self.events.append('announce')

    def set(self, value: Any) -> SetParametersResult:
        return self.node.set_parameters([Parameter('prompt', value=value)])[0]

    @property
    def parameter(self) -> Any:
        return self.node.get_parameter('prompt').value

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.server.prompts.active]


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context)
    made = rclpy.create_node('clipseg', context=context)
    yield made
    made.destroy_node()
    context.try_shutdown()


@pytest.fixture
def rig(node: Node) -> Rig:
    made = Rig(node)
    made.start()
    made.load()
    return made


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is parsed."""
    texts: list[str] = []

    def parse(text: str) -> list[Prompt]:
        texts.append(text)
        return parse_prompts(text)

    monkeypatch.setattr(prompt_text, 'parse_prompts', parse)
    return texts


def test_texts_are_parsed_in_one_function() -> None:
    calls = [
        (path.name, line)
        for path in sorted((ROOT / 'clipseg_ros').rglob('*.py'))
        for line in path.read_text().splitlines()
        if re.search(r'\bparse_prompts\(', line)
    ]
    assert [name for name, _ in calls] == ['text.py'], calls


def test_a_topic(rig: Rig, parsed: list[str]) -> None:
    rig.prompt(String(data='b mug;  a bowl'))  # type: ignore[attr-defined]
    assert rig.events == ['check', 'announce', 'parameter: b mug;  a bowl']
    assert parsed == ['b mug;  a bowl']
    assert rig.names == ['b mug', 'a bowl']


def test_the_parameter(rig: Rig, parsed: list[str]) -> None:
    assert rig.set(['mug', 'grass: lawn']).successful
    assert rig.events == ['check', 'announce', "parameter: ['mug', 'grass: lawn']"]
    assert parsed == ['mug\ngrass: lawn']
    assert rig.names == ['mug', 'grass']


def test_a_list_of_requests(rig: Rig, parsed: list[str]) -> None:
    rig.server.replace([PromptRequest(Prompt('lawn', name='grass', threshold=0.3))])
    assert rig.events == ['check', 'announce', 'parameter: grass:lawn']
    assert parsed == []
    [entry] = rig.server.prompts.active
    assert entry.prompt.threshold == 0.3, 'the parameter, which cannot say so, is not read back'


def test_the_same_text_from_a_client_is_no_echo(rig: Rig) -> None:
    rig.server.replace([PromptRequest(Prompt('mug', threshold=0.3), enabled=False)])
    assert rig.set(rig.parameter).successful
    assert rig.server.prompts.active == (ActivePrompt(1, Prompt('mug')),)


def test_pictures_leave_the_parameter_alone(rig: Rig) -> None:
    rig.prompt(String(data=' the mug'))  # type: ignore[attr-defined]
    rig.events.clear()
    for seed in (1, 2):
        message = array_to_image(picture(60, 80, seed), 'rgb8', Header())
        rig.server.inbox.settle()
        rig.prompt_image(message)  # type: ignore[attr-defined]
        rig.server.inbox.settle()
    assert rig.events == ['check', 'announce'] * 2
    assert rig.names == ['the mug', 'example']
    assert rig.parameter == ' the mug'


def test_a_pick(rig: Rig, parsed: list[str]) -> None:
    rig.prompt(String(data='!the mug'))  # type: ignore[attr-defined]
    rig.server.inbox.settle()
    rig.pick_box(RegionOfInterest(width=9, height=9))  # type: ignore[attr-defined]
    rig.server.inbox.settle()
    assert rig.names == ['the mug', 'example']
    assert parsed == ['!the mug']
    assert rig.parameter == ';!the mug'


def answered(service: Any) -> Any:
    """The answer of a service that need not wait."""
    coroutine = service.callback(Trigger.Request(), Trigger.Response())
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def test_a_file(rig: Rig, parsed: list[str], tmp_path: Path) -> None:
    path = tmp_path / 'prompts.yaml'
    rig.node.set_parameters([Parameter('prompt_file', value=str(path))])
    rig.prompt(String(data='the mug'))  # type: ignore[attr-defined]
    save, load = (entity for destroy, entity in rig.files._entities)
    assert answered(save).success
    rig.set('')
    rig.events.clear()
    answer = answered(load)
    assert (answer.success, answer.message) == (True, "1 prompt(s) active: 1 'the mug'")
    assert rig.events == ['check', 'announce', 'parameter: the mug']
    path.unlink()
    answer = answered(load)
    assert not answer.success
    assert 'cannot be read' in answer.message
    assert rig.names == ['the mug']


@pytest.mark.parametrize('text', ['unreadable; mug', '!', 'a: mug; a: bowl', 'x' * 1001])
def test_all_or_nothing(rig: Rig, text: str) -> None:
    rig.set('pen')
    rig.events.clear()
    assert not rig.set(text).successful
    rig.prompt(String(data=text))  # type: ignore[attr-defined]
    rig.server.inbox.settle()
    with pytest.raises(PromptError):
        rig.server.replace([PromptRequest(Prompt('mug')), PromptRequest(Prompt('unreadable'))])
    assert 'announce' not in rig.events
    assert rig.parameter == 'pen'
    assert rig.names == ['pen']


def test_active_words_are_not_checked_again(rig: Rig) -> None:
    checked: list[str | None] = []
    rig.server._check_readable = lambda prompts: checked.extend(one.text for one in prompts)
    for text in ('mug; bowl', 'bowl; pen', 'bowl'):
        rig.set(text)
    assert checked == ['mug', 'bowl', 'pen']


@pytest.mark.parametrize(('text', 'names'), [('the mug', ['the mug']), ('unreadable', [])])
def test_what_the_parameter_says_at_start(
    node: Node, parsed: list[str], text: str, names: list[str]
) -> None:
    rig = Rig(node)
    rig.start(text)
    assert rig.names == [], 'nothing before a model is there'
    rig.load()
    assert rig.names == names
    assert rig.parameter == '; '.join(names)
    assert parsed == [text]
    rig.load()
    assert rig.names == names, 'the next model goes on with them'


def test_the_next_model_checks_active_words_of_a_file_too(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / 'prompts.yaml'
    rig.node.set_parameters([Parameter('prompt_file', value=str(path))])
    rig.loaded = False
    rig.set('unreadable')
    save_prompts(path, rig.server.prompts.active)
    rig.loaded = True
    rig.events.clear()
    assert not rig.files.restore()
    assert rig.events == ['check']
    rig.load()
    assert rig.names == []
    save_prompts(path, [ActivePrompt(2, Prompt('the mug'))])
    assert rig.files.restore()
    assert rig.names == ['the mug']
    assert rig.parameter == 'the mug'


@pytest.mark.parametrize('text', ['', 'the mug'])
def test_a_visual_method_that_the_model_cannot_use(node: Node, text: str) -> None:
    settings = Settings(visual_method='attention_cls')
    segmenter: Any = SimpleNamespace(
        card=SimpleNamespace(template='plain'),
        runtime=SimpleNamespace(
            embed_texts=lambda texts: None,
            check_restrictable=lambda: check_restrictable(torch.nn.Identity()),
        ),
    )
    rig = Rig(node)
    rig.start(text)
    rig.server._check_readable = lambda prompts: check_representable(segmenter, prompts, settings)
    rig.load()
    assert rig.names == []
    assert rig.parameter == ''
    with pytest.raises(PromptError, match='cannot be restricted to a mask'):
        rig.server.change(rig.server.read('the mug'))


def test_the_parameter_at_start_stays_as_it_was_typed(node: Node) -> None:
    rig = Rig(node)
    rig.start(' the mug')
    rig.load()
    rig.prompt_image(array_to_image(RGB, 'rgb8', Header()))  # type: ignore[attr-defined]
    assert rig.names == ['the mug', 'example']
    assert rig.parameter == ' the mug'


def test_a_text_weight_is_followed_by_what_was_mixed_with_it(rig: Rig) -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    rig.server.replace(
        [
            PromptRequest(Prompt('mug', image=rgb, name='follows', weight=0.5)),
            PromptRequest(Prompt('mug', image=rgb, name='own', weight=0.7), enabled=False),
            PromptRequest(Prompt('mug', name='words')),
            PromptRequest(Prompt(image=rgb, name='picture')),
        ]
    )
    before = rig.server.prompts.active
    rig.events.clear()
    rig.server.remix(0.5, 0.25)
    assert rig.events == ['check', 'announce']
    after = rig.server.prompts.active
    assert [entry.prompt.weight for entry in after[:2]] == [0.25, 0.7]
    assert after[1:] == before[1:]
    assert [(entry.id, entry.name, entry.enabled) for entry in after] == [
        (entry.id, entry.name, entry.enabled) for entry in before
    ]
    rig.server.remix(0.9, 0.1)
    assert rig.events == ['check', 'announce'], 'nothing follows, nothing is announced'
    assert len(with_text_weight(after, 0.9, 0.1)) == len(after)


def test_prompts_that_change_nothing_are_not_logged(
    rig: Rig, capfd: pytest.CaptureFixture[str]
) -> None:
    def lines() -> int:
        rig.server.inbox.settle()
        return capfd.readouterr().err.count('prompt(s) active')

    rig.prompt(String(data='pen; !the mug'))  # type: ignore[attr-defined]
    assert lines() == 1
    for text in ('pen; !the mug', 'pen;  !the mug', '!the mug\npen'):
        rig.prompt(String(data=text))  # type: ignore[attr-defined]
        assert lines() == 0
        rig.set(text)
    assert lines() == 0
    rig.prompt_image(array_to_image(RGB, 'rgb8', Header()))  # type: ignore[attr-defined]
    assert lines() == 1
    rig.prompt_image(array_to_image(RGB, 'rgb8', Header()))  # type: ignore[attr-defined]
    assert lines() == 0
    other = array_to_image(picture(60, 80, seed=9), 'rgb8', Header())
    rig.prompt_image(other)  # type: ignore[attr-defined]
    # Another picture under the same name; the third line of its kind may have to wait for a second.
    assert wait_until(lines, 5.0) == 1
