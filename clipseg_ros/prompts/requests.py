"""From what came, and the prompts that are active, to the requests of a change. No ROS in here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from clipseg_model.prompts import Prompt
from clipseg_ros.prompts.set import (
    EXAMPLE,
    ActivePrompt,
    PromptRequest,
    is_mixed,
    key_of,
    pictured,
)
from clipseg_ros.prompts.support_pair import SupportImage


def as_requests(active: Iterable[ActivePrompt]) -> list[PromptRequest]:
    """Return the requests that leave active prompts as they are."""
    return [PromptRequest(entry.prompt, entry.enabled) for entry in active]


def from_text(
    prompts: Sequence[Prompt], active: Iterable[ActivePrompt], text_weight: Callable[[], float]
) -> list[PromptRequest]:
    """Return what a text, read as prompts, asks for.

    A phrase under the name of a prompt with a picture is mixed with that picture, ``text_weight()``
    being the share of the words. Prompts that are pictures alone stay beside the text, and so does
    the picture of ``example``. A blank text stops everything.
    """
    if not prompts:
        return []
    pictures = pictured(active)
    requests = []
    for prompt in prompts:
        entry = pictures.pop(key_of(prompt.label), None)
        if entry is not None:
            old = entry.prompt
            weight = old.weight if old.text == prompt.text else text_weight()
            prompt = replace(prompt, image=old.image, mask=old.mask, weight=weight)
        requests.append(PromptRequest(prompt))
    for key, entry in pictures.items():
        if entry.prompt.text is None or key == EXAMPLE:
            alone = replace(entry.prompt, text=None, name=entry.name)
            requests.append(PromptRequest(alone, entry.enabled))
    return requests


def with_prompt(active: Iterable[ActivePrompt], prompt: Prompt) -> list[PromptRequest]:
    """Return the active prompts with another, in place of one of its name."""
    others = [entry for entry in active if key_of(entry.name) != key_of(prompt.label)]
    return [*as_requests(others), PromptRequest(prompt)]


def with_example(
    active: Sequence[ActivePrompt], example: SupportImage, text_weight: Callable[[], float]
) -> list[PromptRequest]:
    """Return the active prompts with a picture of ``example``, whose words stay."""
    requests = {key_of(entry.name): request
                for entry, request in zip(active, as_requests(active), strict=True)}  # fmt: skip
    old = requests.get(EXAMPLE)
    if old is None:
        made = PromptRequest(Prompt(image=example.image, mask=example.mask, name=EXAMPLE))
    else:
        weight = old.prompt.weight if old.prompt.image is not None else text_weight()
        prompt = replace(old.prompt, image=example.image, mask=example.mask, weight=weight)
        made = replace(old, prompt=prompt)
    return list({**requests, EXAMPLE: made}.values())


def with_text_weight(
    active: Iterable[ActivePrompt], before: float, weight: float
) -> list[PromptRequest]:
    """Return the active prompts with another share of the words, where it was that of before."""
    return [
        replace(request, prompt=replace(request.prompt, weight=weight))
        if is_mixed(request.prompt) and math.isclose(request.prompt.weight, before, abs_tol=1e-6)
        else request
        for request in as_requests(active)
    ]
