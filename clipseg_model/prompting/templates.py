"""Captions that phrases are put into before they are embedded."""

from __future__ import annotations

from clipseg_model.errors import PromptError

TEMPLATES: dict[str, tuple[str, ...]] = {
    'plain': ('{}',),
    'fixed': ('a photo of a {}.',),
    'shuffle': ('a photo of a {}.', 'a photograph of a {}.', 'an image of a {}.', '{}.'),
    'shuffle+': (
        'a photo of a {}.',
        'a photograph of a {}.',
        'an image of a {}.',
        '{}.',
        'a cropped photo of a {}.',
        'a good photo of a {}.',
        'a photo of one {}.',
        'a bad photo of a {}.',
        'a photo of the {}.',
    ),
}
"""Captions that phrases may be put into, by the names of the paper's published configurations.

Training draws one of ``shuffle+``, the paper's nine, for each phrase; both public implementations
then infer with ``plain``. Where a :class:`~clipseg_model.segmenter.Segmenter` is given several, a
phrase's conditional vector is the average over them (an ensemble, as CLIP's authors do)."""

TEMPLATES['none'] = TEMPLATES['plain']
TEMPLATES['ensemble'] = TEMPLATES['shuffle+']


def find_captions(template: str) -> tuple[str, ...]:
    """Return the captions of a key of :data:`TEMPLATES`, or a caption of one's own with one ``{}``.

    Raises PromptError if it is neither.
    """
    if isinstance(template, str) and template in TEMPLATES:
        return TEMPLATES[template]
    if not isinstance(template, str) or template.count('{}') != 1:
        raise PromptError(
            f'There is no template {template!r}; there are {", ".join(TEMPLATES)}, or give a '
            "caption that holds {} exactly once, such as 'a photo of a {}.'"
        )
    return (template,)
