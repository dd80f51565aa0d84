"""What things are good for: affordances and the many ways to ask for them.

Each affordance covers a set of categories; *doubtful* ones keep the phrase from being used while
such a thing is in view, as for names (:mod:`tabletop_world.language.vocabulary`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tabletop_world.yaml_files import read_yaml


@dataclass(frozen=True, slots=True)
class Affordance:
    """A use that things can be put to.

    Attributes:
        key: Short name (``drink_from``).
        categories: Category keys that certainly serve.
        doubtful: Category keys that may or may not serve.
        phrases: Ways to say it, the plainest first.
        max_thickness: Metres; what is thicker than this in every direction is doubtful. 0: no
            limit.
    """

    key: str
    categories: frozenset[str]
    doubtful: frozenset[str]
    phrases: tuple[str, ...]
    max_thickness: float = 0.0


AFFORDANCES: tuple[Affordance, ...] = tuple(
    Affordance(
        key,
        frozenset(use['categories']),
        frozenset(use.get('doubtful', ())),
        tuple(use['phrases']),
        use.get('max_thickness', 0.0),
    )
    for key, use in read_yaml(__package__, 'affordances.yaml').items()
)
