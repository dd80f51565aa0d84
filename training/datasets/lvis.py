"""LVIS (Gupta et al. 2019), and CLIPSeg's generalised prompts made of it.

Read are ``lvis_v1_train.json`` and ``lvis_v1_val.json`` beside COCO 2017's pictures. CLIPSeg
(section 5.5 and supplement, "Object-mapping for affordances and attributes") asks for what things
can do, or have, instead of their names; the truth is then the union of the things listed here.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from training.datasets.coco import Coco, CocoSettings
from training.datasets.samples import BadRecord, DataError, field

_SEATS = (
    'armchair', 'sofa', 'loveseat', 'deck_chair', 'rocking_chair', 'highchair', 'folding_chair',
    'chair', 'recliner', 'wheelchair',
)  # fmt: skip
_BIRDS = ('eagle', 'bird', 'duck', 'gull', 'owl', 'seabird', 'pigeon', 'goose', 'parakeet')
_ROAD = ('minivan', 'bus_(vehicle)', 'cab_(taxi)', 'jeep', 'ambulance', 'car_(automobile)')
#: Names in LVIS of what each phrase is true of, by kind of phrase: the supplement's lists.
PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    'affordances': {
        'sit on': _SEATS,
        'drink from': ('bottle', 'beer_bottle', 'water_bottle', 'wine_bottle', 'thermos_bottle'),
        'ride on': ('horse', 'pony', 'motorcycle'),
    },
    'attributes': {
        'can fly': (*_BIRDS, 'jet_plane', 'airplane', 'fighter_jet'),
        'can be driven': _ROAD,
        'can swim': ('duck', 'duckling', 'water_scooter', 'penguin', 'boat', 'kayak', 'canoe'),
    },
    'meronymy': {
        'has wheels': (*_ROAD, 'dirt_bike', 'wheelchair', 'motorcycle', 'bicycle'),
        'has legs': (
            *_SEATS, *_BIRDS, 'horse', 'pony', 'dog', 'cat', 'flamingo', 'penguin', 'cow', 'puppy',
            'sheep', 'black_sheep', 'ostrich', 'ram_(animal)', 'chicken_(animal)', 'person',
        ),
    },
}  # fmt: skip


class LvisSettings(CocoSettings):
    """A file of LVIS."""

    images: Path = Field(description="COCO 2017's folder, with train2017 and val2017")
    phrases: Literal['names', 'affordances', 'attributes', 'meronymy'] = Field(
        'names', description='names of things, or what they can do or have'
    )

    @model_validator(mode='after')
    def _no_negatives_of_phrases(self) -> LvisSettings:
        if self.negatives and self.phrases != 'names':
            raise ValueError(
                f'negatives of {self.phrases}: LVIS labels a picture for some classes only, so '
                'what is absent from it is not known of a phrase'
            )
        return self


class Lvis(Coco):
    """Names of LVIS, or generalised prompts; negatives are of the classes known to be absent.

    Raises:
        DataError: The file is missing or not LVIS's, or has nothing of what a phrase lists.
        BadRecord: A record is broken, and ``settings.bad_records`` is ``raise``.
    """

    settings: LvisSettings

    def absent(self, picture: int) -> Collection[int]:
        """Return the asked classes that were looked for in a picture and not found."""
        looked_for = self.images[picture].get('neg_category_ids', [])
        return sorted(set(looked_for) & set(self._asked) - self._all_shown[picture])

    def _file_name(self, record: Any, where: str) -> str:
        # LVIS 1 has no file names but the addresses at COCO, whose last two parts are the path.
        if isinstance(record, dict) and 'file_name' in record:
            return super()._file_name(record, where)
        parts = urlsplit(str(field(record, 'coco_url', str, where))).path.split('/')
        if len(parts) < 3:
            raise BadRecord('malformed record', f'{where} has the address {record["coco_url"]!r}')
        return '/'.join(parts[-2:])

    def _prepared(self, data: dict[str, Any]) -> dict[str, Any]:
        if self.settings.phrases == 'names':
            return data
        phrases = PHRASES[self.settings.phrases]
        numbers = {category['name']: category['id'] for category in data['categories']}
        phrases_of: dict[int, list[int]] = {}
        for number, (phrase, names) in enumerate(phrases.items()):
            known = [name for name in names if name in numbers]
            if not known:
                raise DataError(f'{self.path} has no class for {phrase!r}, none of {names}')
            for name in set(names) - set(known):
                self.problems.note('unknown class', f'{self.path} has no {name!r} for {phrase!r}')
            for name in known:
                phrases_of.setdefault(numbers[name], []).append(number)
        annotations = [
            {**record, 'category_id': number}
            for record in data['annotations']
            for number in phrases_of.get(record.get('category_id'), [])
        ]
        categories = [{'id': number, 'name': phrase} for number, phrase in enumerate(phrases)]
        return {**data, 'annotations': annotations, 'categories': categories}
