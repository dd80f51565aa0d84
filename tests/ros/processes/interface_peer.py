"""A peer that speaks the package's own messages; prints what it saw as JSON.

python interface_peer.py DOMAIN
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ros_peers import Peer, picture, wait_until
from sensor_msgs.msg import Image

from clipseg_ros.msg import Prompt, PromptArray, SegmentArray
from clipseg_ros.ros.qos import image_output, latched_output
from clipseg_ros.srv import PickPrompt, SetPrompts


def pictures(peer: Peer, ask: Callable[..., Any]) -> dict[str, Any]:
    """Prompts with pictures, and what has none."""
    rgb, mask = peer.stamped(picture(40, 60)), np.zeros((40, 60), np.uint8)
    mask[5:20, 5:20] = 255
    marked = peer.stamped(mask, 'mono8')
    small = peer.stamped(mask[:20], 'mono8')
    seen = {
        'set': ask(
            Prompt(name='mine', image=rgb, mask=marked, presence_threshold=0.25),
            Prompt(name='mix', phrase='a mug', image=rgb, weight=0.25),
            Prompt(phrase='red bowl', negative=True),
        ),
        # By name, without the pixels again; and with the words changed.
        'again': ask(
            Prompt(name='mine', weight=0.0, enabled=False),
            Prompt(name='mix', phrase='a chair', weight=0.75),
        ),
        'none': ask(Prompt(name='other')),
        'weight 1': ask(Prompt(phrase='a mug', image=rgb)),
        'mask alone': ask(Prompt(phrase='a mug', mask=marked, weight=0.5)),
        'mask size': ask(Prompt(name='mine', image=rgb, mask=small)),
        'bang': ask(Prompt(phrase='!mug')),
        'presence': ask(Prompt(phrase='mug', presence_threshold=1.5)),
    }
    rgb.encoding = 'nonsense'
    return {**seen, 'encoding': ask(Prompt(name='mine', image=rgb))}


def picked(peer: Peer) -> dict[str, Any]:
    """The service for "that one there"."""

    def pick(**fields: Any) -> Any:
        answer = peer.call(PickPrompt, '/clipseg/pick', PickPrompt.Request(**fields))
        box, prompt = answer.box, answer.prompt
        return [
            answer.success,
            answer.message,
            [prompt.id, prompt.name, prompt.phrase, round(prompt.weight, 3)],
            [box.x_offset, box.y_offset, box.width, box.height],
        ]

    return {
        'box': pick(name='that', x=20, y=10, width=30, height=40),
        'mixed': pick(phrase='a mug', weight=0.25, x=130, y=90, width=30, height=40),
        'outside': pick(x=140, y=5),
        'weight': pick(phrase='a mug', weight=1.5, x=5, y=5),
        'name': pick(name='a;b', x=5, y=5),
    }


def main() -> int:
    peer = Peer(int(sys.argv[1]), 'interface_peer')
    seen: dict[str, Any] = {}

    def prompts_of(message: Any) -> list[list[Any]]:
        return [
            [p.id, p.name, p.phrase, round(p.threshold, 3), p.enabled, p.weight]
            for p in message.prompts
        ]

    def ask(*prompts: Prompt) -> Any:
        answer = peer.call(
            SetPrompts, '/clipseg/set_prompts', SetPrompts.Request(prompts=list(prompts))
        )
        return [answer.success, answer.message, prompts_of(answer)]

    # Late, so what is latched is what it gets.
    latched = peer.collect(PromptArray, '/clipseg/prompts', latched_output())
    wait_until(lambda: latched, 20)
    seen['at start'] = prompts_of(latched[-1])
    seen['model'] = latched[-1].model

    masks = peer.collect(Image, '/clipseg/labels', image_output())
    segments = peer.collect(SegmentArray, '/clipseg/segments', image_output())
    images = peer.publisher(Image, '/image', image_output())
    image = peer.stamped(picture(100, 140, seed=3), frame='lens')

    def both() -> bool:
        images.publish(image)
        time.sleep(0.05)
        return bool(segments and masks)

    wait_until(both)
    message = segments[-1]
    seen['header'] = message.header == image.header
    seen['size'] = [message.height, message.width]
    seen['segments'] = [
        [s.id, s.name, s.score, s.presence, s.area,
         [s.box.x_offset, s.box.y_offset, s.box.width, s.box.height, s.box.do_rectify],
         [s.centroid.x, s.centroid.y, s.centroid.z]]
        for s in message.segments
    ]  # fmt: skip

    seen['set'] = ask(
        Prompt(phrase='red bowl', threshold=0.7),
        Prompt(name='seat', phrase='a chair', id=9, enabled=False),
    )
    wait_until(lambda: len(latched) > 1)
    seen['latched after'] = prompts_of(latched[-1])
    seen['parameter after'] = peer.get_parameter('/clipseg', 'prompt')
    del segments[:]
    wait_until(lambda: images.publish(image) or time.sleep(0.05) or segments)
    seen['names after'] = [s.name for s in segments[-1].segments]
    refused = {
        'blank': [Prompt(phrase=' ')],
        'separator': [Prompt(phrase='mug; bowl')],
        'colon': [Prompt(phrase='mug: bowl')],
        'name': [Prompt(name='a:b', phrase='mug')],
        'threshold': [Prompt(phrase='mug', threshold=2.0)],
        'not a number': [Prompt(phrase='mug', threshold=float('nan'))],
        'taken id': [Prompt(phrase='mug', id=9)],
        'weight': [Prompt(phrase='mug', weight=0.5)],
        'script': [Prompt(phrase='чашка')],
        'twice': [Prompt(phrase='mug'), Prompt(phrase='a mug', name='Mug')],
        'many': [Prompt(phrase=f'mug {n}') for n in range(255)],
    }
    seen['refused'] = {name: ask(*prompts)[:2] for name, prompts in refused.items()}
    seen['parameter still'] = peer.get_parameter('/clipseg', 'prompt')
    seen['pictures'] = pictures(peer, ask)
    seen['picked'] = picked(peer)
    seen['latched picked'] = [[p.id, p.name, p.weight] for p in latched[-1].prompts]
    seen['stopped'] = ask()
    seen['parameter stopped'] = peer.get_parameter('/clipseg', 'prompt')
    peer.close()
    print(json.dumps(seen))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
