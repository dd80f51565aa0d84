"""The active prompts, under ids that keep their meaning.

Consumers of a label image remember that 3 is the grass. So an id belongs to a name for as long as
the node lives: other prompts do not change it, and a name that comes back gets its old id again.
Only when all 254 ids have been given out does a new name take over the id that has been unused for
longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from clipseg_model.errors import PromptError
from clipseg_model.prompts import MAX_PROMPTS, Prompt

EXAMPLE = 'example'
"""Name of the prompt of a support image that has no other."""


@dataclass(frozen=True)
class ActivePrompt:
    """A prompt and its id, 1…254, which is its value in a label image."""

    id: int
    prompt: Prompt
    enabled: bool = True

    @property
    def name(self) -> str:
        """The name that consumers match."""
        return self.prompt.label


@dataclass(frozen=True)
class PromptRequest:
    """A prompt to activate, and the id to give it; 0 leaves the choice to the node."""

    prompt: Prompt
    enabled: bool = True
    id: int = 0


class PromptSet:
    """The active prompts.

    Attributes:
        active: Ordered by id. The tuple is replaced as a whole and never changed, so any thread
            may read it at any time.
    """

    def __init__(self) -> None:
        self.active: tuple[ActivePrompt, ...] = ()
        # Key of a name → id, the longest unused first.
        self._ids: dict[str, int] = {}

    @property
    def enabled(self) -> tuple[ActivePrompt, ...]:
        """The enabled prompts, ordered by id."""
        return tuple(entry for entry in self.active if entry.enabled)

    @property
    def reported(self) -> tuple[ActivePrompt, ...]:
        """The enabled prompts that are not negative, ordered by id."""
        return reported(self.enabled)

    def replace(self, requests: Sequence[PromptRequest]) -> tuple[ActivePrompt, ...]:
        """Make these the active prompts (an empty list stops), and return them.

        Raises:
            PromptError: Too many prompts, two of one name, or an id that another name has. Nothing
                has changed.
        """
        ids = self.check(requests)
        active = [
            ActivePrompt(ids[key_of(request.prompt.label)], request.prompt, request.enabled)
            for request in requests
        ]
        # Names in use move to the end of the order in which ids are taken over.
        kept = {key: number for key, number in self._ids.items() if key not in ids}
        taken = set(ids.values())
        self._ids = {key: number for key, number in kept.items() if number not in taken} | ids
        self.active = tuple(sorted(active, key=lambda entry: entry.id))
        return self.active

    def check(self, requests: Sequence[PromptRequest]) -> dict[str, int]:
        """Return the id that each name would get, by :func:`key_of`; raises as :meth:`replace`."""
        if len(requests) > MAX_PROMPTS:
            raise PromptError(
                f'{len(requests)} prompts at once, and at most {MAX_PROMPTS} are possible '
                '(ids of a label image go from 1 to 254): send fewer'
            )
        # Known and requested ids are settled before new ones are given out.
        ids: dict[str, int] = {}
        for request in requests:
            key = key_of(request.prompt.label)
            if key in ids:
                raise PromptError(
                    f'two prompts are called {request.prompt.label!r}: give one another name'
                )
            ids[key] = self._wanted(request) or self._ids.get(key, 0)
        by_id: dict[int, str] = {}
        for key, number in ids.items():
            if number and number in by_id:
                raise PromptError(
                    f'prompts {by_id[number]!r} and {key!r} both ask for id {number}: '
                    'leave one of them 0'
                )
            by_id[number] = key
        free = self._free_ids(set(ids.values()))
        return {key: number or next(free) for key, number in ids.items()}

    def _wanted(self, request: PromptRequest) -> int:
        if not 0 <= request.id <= MAX_PROMPTS:
            raise PromptError(
                f'prompt {request.prompt.label!r} asks for id {request.id}: ids go from 1 to '
                f'{MAX_PROMPTS}, and 0 lets the node choose'
            )
        key = key_of(request.prompt.label)
        own = self._ids.get(key, 0)
        if request.id and own and own != request.id:
            raise PromptError(
                f'prompt {request.prompt.label!r} asks for id {request.id} and has had {own} '
                'since it was first used: ids keep their meaning, so leave it 0'
            )
        for other, number in self._ids.items():
            if request.id == number and other != key:
                raise PromptError(
                    f'prompt {request.prompt.label!r} asks for id {request.id}, which belongs to '
                    f'{other!r}: leave it 0 and the node chooses'
                )
        return request.id

    def _free_ids(self, taken: set[int]) -> Iterator[int]:
        """Yield ids never given out, ascending; then unused ones, the longest unused first."""
        used = taken.union(self._ids.values())
        yield from (n for n in range(1, MAX_PROMPTS + 1) if n not in used)
        yield from (n for n in self._ids.values() if n not in taken)


def reported(prompts: Iterable[ActivePrompt]) -> tuple[ActivePrompt, ...]:
    """Return those of some prompts that are not negative."""
    return tuple(entry for entry in prompts if not entry.prompt.negative)


def pictured(prompts: Iterable[ActivePrompt]) -> dict[str, ActivePrompt]:
    """Return those of some prompts that have a picture, by :func:`key_of` of their names."""
    return {key_of(entry.name): entry for entry in prompts if entry.prompt.image is not None}


def key_of(name: str) -> str:
    """Return what names are compared by: letter case does not matter."""
    return name.casefold()


def is_mixed(prompt: Prompt) -> bool:
    """Return whether a prompt has both words and a picture."""
    return prompt.text is not None and prompt.image is not None


def describe(active: Sequence[ActivePrompt]) -> str:
    """Return one line on what is active."""
    if not active:
        return 'no prompt active'
    shown = ', '.join(f'{entry.id} {entry.name!r}{_remark(entry)}' for entry in active[:8])
    more = f' and {len(active) - 8} more' if len(active) > 8 else ''
    return f'{len(active)} prompt(s) active: {shown}{more}'


def _remark(entry: ActivePrompt) -> str:
    remarks = [
        remark
        for remark, holds in (
            ('negative', entry.prompt.negative),
            ('picture', entry.prompt.image is not None and entry.prompt.text is None),
            ('words and picture', is_mixed(entry.prompt)),
            ('disabled', not entry.enabled),
        )
        if holds
    ]
    return f' ({", ".join(remarks)})' if remarks else ''
