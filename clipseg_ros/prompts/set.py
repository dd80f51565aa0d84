"""What is searched for now, under ids that keep their meaning.

Consumers of a label image remember that 3 is the grass. So an id belongs to a name for as long as
the node lives: other prompts come and go without changing it, and a name that comes back gets its
old id again. Only when all 254 ids have been given out does a new name take over the id that has
been out of use for longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from clipseg_model.errors import PromptError
from clipseg_model.prompts import MAX_PROMPTS, Prompt, parse_prompts

EXAMPLE = 'example'
"""Name of the prompt that a picture makes where nobody gives it another."""


@dataclass(frozen=True)
class ActivePrompt:
    """A prompt under its id.

    Attributes:
        id: 1…254, its value in a label image.
        prompt: What is searched for.
        enabled: Whether it takes part.
    """

    id: int
    prompt: Prompt
    enabled: bool = True

    @property
    def name(self) -> str:
        """What consumers match."""
        return self.prompt.label


@dataclass(frozen=True)
class PromptRequest:
    """A prompt that shall become active.

    Attributes:
        prompt: What to search for.
        enabled: Whether it takes part.
        id: The id it shall have; 0 where that does not matter.
    """

    prompt: Prompt
    enabled: bool = True
    id: int = 0


def read_prompts(value: str | Sequence[str]) -> list[Prompt]:
    """Reads prompts from a text, or from several of them.

    Args:
        value: ``mug; grass: short green grass``, or a list of such texts.

    Returns:
        The prompts in order; none for blank text.

    Raises:
        PromptError: As :func:`clipseg_model.prompts.parse_prompts`.
    """
    return parse_prompts(value if isinstance(value, str) else '\n'.join(value))


def write_prompts(prompts: Iterable[Prompt]) -> str:
    """Returns the text that :func:`read_prompts` reads as these prompts (those with words)."""
    parts = []
    for prompt in prompts:
        if prompt.text is not None:
            named = prompt.name is not None and prompt.name != prompt.text
            written = f'{prompt.name}: {prompt.text}' if named else prompt.text
            parts.append(f'!{written}' if prompt.negative else written)
    return '; '.join(parts)


def check_written(name: str, phrase: str) -> tuple[str | None, str | None]:
    """Makes sure that a name and a phrase, written as text, are read as they went in.

    Args:
        name: Blank for none.
        phrase: Blank for none.

    Returns:
        Name and phrase, None for blank ones.

    Raises:
        PromptError: They hold something that separates prompts or names, or are too long.
    """
    for mark in (';', '\n', '\r'):
        if mark in name or mark in phrase:
            written = name if mark in name else phrase
            raise PromptError(f'{written[:60]!r} holds {mark!r}, which separates prompts')
    own, words = ' '.join(name.split()) or None, ' '.join(phrase.split()) or None
    # A picture has no words: any stand in for them.
    parsed = read_prompts(f'{own}: {words or "a"}' if own else words or 'a')
    wanted = (own, words or 'a', False)
    if [(p.name, p.text, p.negative) for p in parsed] != [wanted]:
        raise PromptError(
            f'prompt with name {name[:60]!r} and phrase {phrase[:60]!r}: a colon stands between '
            'name and phrase only, and "!" begins neither (the field negative rules out)'
        )
    return own, words


class PromptSet:
    """The active prompts.

    Attributes:
        active: Ordered by id. The tuple is replaced as a whole and never changed, so another
            thread may read it at any time.
    """

    def __init__(self) -> None:
        self.active: tuple[ActivePrompt, ...] = ()
        # Name (letter case aside) → id, those out of use for longest first.
        self._ids: dict[str, int] = {}

    @property
    def enabled(self) -> tuple[ActivePrompt, ...]:
        """Those that take part, ordered by id."""
        return tuple(entry for entry in self.active if entry.enabled)

    @property
    def reported(self) -> tuple[ActivePrompt, ...]:
        """Those that take part and are not negative, ordered by id."""
        return reported(self.enabled)

    @property
    def pictures(self) -> dict[str, Prompt]:
        """The prompts that have a picture, by :func:`key_of` their names."""
        return {
            key_of(entry.name): entry.prompt
            for entry in self.active
            if entry.prompt.image is not None
        }

    def replace(self, requests: Sequence[PromptRequest]) -> tuple[ActivePrompt, ...]:
        """Makes these prompts the active ones, or raises and changes nothing.

        Args:
            requests: At most 254, of different names; none stops.

        Returns:
            What is active now.

        Raises:
            PromptError: Too many prompts, two of one name, or an id that another name has.
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
        """Returns the id that each name would get, by :func:`key_of`; changes nothing.

        Raises:
            PromptError: As :meth:`replace`.
        """
        if len(requests) > MAX_PROMPTS:
            raise PromptError(
                f'{len(requests)} prompts at once, and at most {MAX_PROMPTS} are possible '
                '(ids of a label image go from 1 to 254): send fewer'
            )
        return self._assign(requests)

    def _assign(self, requests: Sequence[PromptRequest]) -> dict[str, int]:
        """The id of every requested name; what stays and what is asked for comes first."""
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
        """Ids never given out, ascending; then those out of use, the longest first."""
        given = set(self._ids.values())
        fresh = (n for n in range(1, MAX_PROMPTS + 1) if n not in given and n not in taken)
        retired = (n for n in self._ids.values() if n not in taken)
        yield from fresh
        yield from retired


def reported(prompts: Iterable[ActivePrompt]) -> tuple[ActivePrompt, ...]:
    """Returns those of some prompts that are not negative."""
    return tuple(entry for entry in prompts if not entry.prompt.negative)


def key_of(name: str) -> str:
    """Returns what names are compared by: letter case does not matter."""
    return name.casefold()
