"""A peer that speaks the package's own messages; prints what it saw as JSON.

python interface_peer.py DOMAIN
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ros_peers import Peer, picture, wait_until
from sensor_msgs.msg import Image

from clipseg_ros.msg import Prompt, PromptArray, SegmentArray
from clipseg_ros.qos import image_output, latched_output
from clipseg_ros.srv import SetPrompts


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
    seen['stopped'] = ask()
    seen['parameter stopped'] = peer.get_parameter('/clipseg', 'prompt')
    peer.close()
    print(json.dumps(seen))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
