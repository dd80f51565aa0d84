from __future__ import annotations

import pytest

from clipseg_model.errors import PromptError
from clipseg_model.prompting.templates import TEMPLATES, find_captions


class TestTemplates:
    def test_all_have_one_place(self) -> None:
        for templates in TEMPLATES.values():
            assert all(template.count('{}') == 1 for template in templates)
        assert len(TEMPLATES['shuffle+']) == 9

    @pytest.mark.parametrize(
        ('template', 'count', 'first'),
        [
            ('none', 1, '{}'),
            ('plain', 1, '{}'),
            ('fixed', 1, 'a photo of a {}.'),
            ('shuffle', 4, 'a photo of a {}.'),
            ('shuffle+', 9, 'a photo of a {}.'),
            ('ensemble', 9, 'a photo of a {}.'),
            ('{} on the table', 1, '{} on the table'),
        ],
    )
    def test_by_name_or_in_full(self, template: str, count: int, first: str) -> None:
        captions = find_captions(template)
        assert (len(captions), captions[0]) == (count, first)
        assert len(set(captions)) == count

    @pytest.mark.parametrize('template', ['enssemble', '{} and {}', '', None, ['{}']])
    def test_neither_a_name_nor_a_caption(self, template: object) -> None:
        with pytest.raises(PromptError, match=r'no template.*none, ensemble.*\{\} exactly once'):
            find_captions(template)  # type: ignore[arg-type]
