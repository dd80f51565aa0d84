"""Prompts that are saved and restored while the node runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prompt_bench import Bench, close, support
from ros_peers import (
    NodeProcess,
    Peer,
    ros_arguments,
)
from std_srvs.srv import Trigger


def test_prompts_are_saved_and_restored(bench: Bench, prompt_file: Path) -> None:
    def call(name: str) -> Any:
        return bench.peer.call(Trigger, f'/live/clipseg/{name}', Trigger.Request())

    assert 'cannot be read' in call('load_prompts').message
    image, marked, _, _ = support(bench.peer, stamp=8)
    bench.prompt('seat: a chair; !the mug')
    bench.send('prompt_image', image, "'example'")
    bench.send('prompt_mask', marked, "'example'")
    before = bench.show()['probability']
    assert call('save_prompts').success
    bench.prompt('')
    bench.prompt('red bowl')
    answer = call('load_prompts')
    assert answer.success, answer.message
    for words in ("'seat'", "1 'the mug' (negative)", "'example' (picture)"):
        assert words in answer.message
    assert bench.peer.get_parameter('/live/clipseg', 'prompt') == ';!the mug; seat:a chair'
    assert close(bench.show()['probability'], before)
    prompt_file.write_text('version: 1\nprompts:\n- phrase: чашка\n')
    answer = call('load_prompts')
    assert not answer.success
    assert 'no word' in answer.message
    assert close(bench.show()['probability'], before), 'nothing has changed'


@pytest.mark.parametrize('name', ['prompt_file', 'exports'])
def test_no_peer_chooses_a_file(bench: Bench, prompt_file: Path, tmp_path: Path, name: str) -> None:
    """Paths are settled at start: a peer that could set them might replace and read any file."""
    secret = tmp_path / 'secret'
    secret.write_text('password: hunter2')
    before = bench.peer.get_parameter('/live/clipseg', name)
    answer = bench.peer.set_parameter('/live/clipseg', name, str(secret))
    assert not answer.successful
    assert 'read-only' in answer.reason
    assert bench.peer.get_parameter('/live/clipseg', name) == before
    for service in ('load_prompts', 'save_prompts'):
        message = bench.peer.call(Trigger, f'/live/clipseg/{service}', Trigger.Request()).message
        assert 'hunter2' not in message
    assert secret.read_text() == 'password: hunter2'


def test_prompts_are_restored_at_configuring(
    seeing_model: Path, peer: Peer, tmp_path: Path
) -> None:
    good, bad = tmp_path / 'good.yaml', tmp_path / 'bad.yaml'
    bad.write_text('version: 1\nprompts:\n- {id: 7, phrase: red bowl}\n- {phrase: чашка}\n')
    good.write_text('version: 1\nprompts:\n- {id: 7, phrase: red bowl, enabled: false}\n')
    files = {'good': good, 'bad': bad, 'none': tmp_path / 'none.yaml'}
    options = {'model': seeing_model, 'device': 'cpu', 'prompt': "'the mug'"}
    nodes = {name: ros_arguments({**options, 'prompt_file': path}) for name, path in files.items()}
    host = str(Path(__file__).parents[1] / 'processes' / 'node_host.py')
    process = NodeProcess(host, script=[json.dumps(nodes)])
    try:
        for name in nodes:
            process.wait_for(f'[{name}.clipseg]: active: tiny')
        expected = {'good': 'red bowl', 'bad': 'the mug', 'none': 'the mug'}
        for name, text in expected.items():
            assert peer.get_parameter(f'/{name}/clipseg', 'prompt') == text
        assert 'in place of the parameter' in process.wait_for('[good.clipseg]: prompts restored')
        process.wait_for("[good.clipseg]: 1 prompt(s) active: 7 'red bowl' (disabled)")
        line = process.wait_for('[bad.clipseg]: prompts not restored')
        assert 'no word' in line
        assert '[ERROR]' in line
        process.wait_for('none.yaml is not there yet')
        assert 'are disabled' in process.wait_for('[good.clipseg]: nothing to look for')
        assert process.count('no prompt set') == 0
    finally:
        assert process.stop() == 0, process.output
    assert 'Traceback' not in process.output, process.output
