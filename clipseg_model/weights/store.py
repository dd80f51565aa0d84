"""Published weights by name, and where they lie once they are downloaded. Touches no network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipseg_model.errors import CheckpointError
from clipseg_model.files.user_folders import cache_folder

_HUB_NAME = re.compile(r'[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}')

_CLIPSEG_FILES = ('config.json', 'preprocessor_config.json')
WEIGHT_FILES = tuple(
    name
    for stem, kind in (('model', 'safetensors'), ('pytorch_model', 'bin'))
    for variant in ('', '.fp16', '.bf16')
    for name in (f'{stem}{variant}.{kind}', f'{stem}.{kind}.index{variant}.json')
)
"""Files of weights in a folder of transformers, or indices of their parts, the preferred first."""
_LICENCE = 'see the source; not MIT'


@dataclass(frozen=True)
class Source:
    """Weights that somebody published on the Hugging Face hub.

    Attributes:
        repository: ``owner/name`` at the hub.
        files: Needed beside the weights.
        weights: Names that the file of weights may have, the one that is preferred first.
        sha256: Digests of files by name, beside those that the hub states.
        architecture: open_clip's name of towers that come without a configuration.
        parameters: How many values the weights have; None where that is not known.
    """

    name: str
    repository: str
    files: tuple[str, ...] = _CLIPSEG_FILES
    weights: tuple[str, ...] = WEIGHT_FILES
    sha256: Mapping[str, str] = field(default_factory=dict)
    licence: str = ''
    description: str = ''
    architecture: str = ''
    parameters: int | None = None

    @property
    def url(self) -> str:
        """The page that says whose they are and under which terms."""
        return f'https://huggingface.co/{self.repository}'

    @property
    def folder(self) -> Path:
        """Where a download of them lies."""
        return models_folder() / self.repository.replace('/', '--')


TOWERS = {16: 'clip-vit-b-16', 32: 'clip-vit-b-32'}
"""Names of the towers that official decoders (``.pth``) work on, by the side of their patches."""

# Found in public records (docs/models.md), at the commits 999e0328, 977e3dd0 and a6f597a3. None was
# found of clipseg-rd64, of clipseg-rd16, of ViT-L/14, nor of any pytorch_model.bin: the hub vouches
# for them.
_REFINED_SHA256 = {
    'model.safetensors': 'd00ca85d6b859f9d07b7cfb8ef26fe9771cb275b34c9368f2ecf603139307f55',
    'config.json': 'c023375966d31b3b1392764f7bd91df47098ce19f62f11b0263d8eedcf708bcd',
    'preprocessor_config.json': '4fb09ebcfd7651205ca8299b993c30088e5535ef350a72d46c5c4580eeac0440',
}
_TOWERS_SHA256 = (
    '4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f',
    'e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31',
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            'clipseg-rd64-refined',
            'CIDAS/clipseg-rd64-refined',
            sha256=_REFINED_SHA256,
            licence=_LICENCE,
            description='CLIPSeg on CLIP ViT-B/16, D = 64, refined head, taps 3, 6, 9: the one '
            'to use on photographs.',
            parameters=150_747_746,
        ),
        Source(
            'clipseg-rd64',
            'CIDAS/clipseg-rd64',
            licence=_LICENCE,
            description='CLIPSeg on CLIP ViT-B/16, D = 64, plain head, taps 3, 6, 9.',
            parameters=150_693_890,
        ),
        Source(
            'clipseg-rd16',
            'CIDAS/clipseg-rd16',
            licence=_LICENCE,
            description='CLIPSeg on CLIP ViT-B/16, D = 16, plain head, taps 3, 6, 9.',
            parameters=149_884_418,
        ),
        *(
            Source(
                name,
                f'timm/vit_base_patch{patch}_clip_224.openai',
                files=(),
                weights=('open_clip_model.safetensors', 'open_clip_pytorch_model.bin'),
                sha256={'open_clip_model.safetensors': digest},
                licence='see the source',
                description=f"OpenAI's CLIP ViT-B/{patch} as open_clip reads it: the towers that "
                f'official decoders (.pth) for patches of {patch} px need.',
                architecture=f'ViT-B-{patch}-quickgelu',
                parameters=parameters,
            )
            for (patch, name), digest, parameters in zip(
                TOWERS.items(), _TOWERS_SHA256, (149_620_737, 151_277_313), strict=True
            )
        ),
        Source(
            'clip-vit-l-14-336',
            'timm/vit_large_patch14_clip_336.openai',
            files=(),
            weights=('open_clip_model.safetensors', 'open_clip_pytorch_model.bin'),
            licence='see the source',
            description="OpenAI's CLIP ViT-L/14@336px as open_clip reads it: towers to train "
            'clipseg-vit-l-14-336 on (training/configs/clipseg_vit_l_14_336.yaml).',
            architecture='ViT-L-14-336-quickgelu',
            parameters=427_944_193,
        ),
    )
}
"""What ``clipseg download`` knows by name; any other CLIPSeg at the hub goes by owner/name."""


def models_folder() -> Path:
    """Return where downloads lie: ``$CLIPSEG_MODELS``, or ``clipseg`` in the user's cache."""
    return cache_folder('CLIPSEG_MODELS')


def source_of(name: str) -> Source | None:
    """Return the source of a name of this project or the hub (``owner/name``); None for others."""
    if name in SOURCES:
        return SOURCES[name]
    for source in SOURCES.values():
        if source.repository == name:
            return source
    if _HUB_NAME.fullmatch(name):
        return Source(name.partition('/')[2], name, description=f'{name} at the Hugging Face hub.')
    return None


def find_downloaded(source: Source) -> Path | None:
    """Return the file of weights of a source on this machine, or None.

    It is looked for where ``clipseg download`` puts it, then where Hugging Face's own tools do.
    """
    for name in source.weights:
        weights = source.folder / name
        if weights.is_file() and all((source.folder / file).is_file() for file in source.files):
            return weights
    return _find_in_hub_cache(source)


def required(source: Source) -> Path:
    """Return the file of weights of a source on this machine.

    Raises:
        CheckpointError: They are not on this machine.
    """
    weights = find_downloaded(source)
    if weights is None:
        known = source.name in SOURCES
        name = source.name if known else source.repository
        there = '' if known else f'There is no file or folder {name!r}. '
        raise CheckpointError(
            f'{there}The weights of {name!r} are not on this machine, and only a download fetches '
            f'them: run "clipseg download {name}" where there is a network ({source.url} has their '
            'terms), or give the path of a checkpoint in place of the name'
        )
    return weights


def _find_in_hub_cache(source: Source) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> Path | None:
        found = try_to_load_from_cache(source.repository, name)
        return Path(found) if isinstance(found, str) else None

    others = [cached(name) for name in source.files]
    for name in source.weights:
        weights = cached(name)
        # Files of different revisions, one of them half downloaded, do not belong together.
        if weights is not None and all(
            other is not None and other.parent == weights.parent for other in others
        ):
            return weights
    return None
