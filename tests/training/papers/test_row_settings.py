"""What each row of the tables is trained with, against the published configurations.

The values stand here as CLIPSeg's ``experiments/*.yaml`` and the paper of ClsCLIP have them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from training.datasets.sources import check_source
from training.loop.settings import Settings, load_settings
from training.papers.published import filled, load_published

CONFIGS = Path(__file__).parents[3] / 'training' / 'configs'


def settings_of(table_name: str, row_name: str) -> list[Settings]:
    """The settings of all runs of a row, as the command that trains them says."""
    table = load_published().table(table_name)
    (row,) = (row for row in table.rows if row.name == row_name)
    found = []
    for part in table.parts.values():
        for variant in part.variants():
            changes = [*row.set, *([] if row.whole else part.set)]
            changes = [filled(change, variant) for change in changes]
            found.append(load_settings(CONFIGS / f'{row.config}.yaml', changes))
    return found


#: Table and row: negative_prob, with_visual, mix_text_min … mix_text_max, lr, max_iterations.
PUBLISHED = [
    ('clipseg/3', 'CLIPSeg (PC+)', 0.2, True, (0.0, 0.5), 1e-3, 20_000),  # rd64-uni
    ('clipseg/3', 'CLIPSeg (PC, D = 128)', 0.0, False, None, 1e-3, 20_000),  # rd128-vit16-phrasecut
    ('clipseg/3', 'CLIP-Deconv', 0.0, False, None, 1e-3, 20_000),  # baseline3-vit16-phrasecut
    ('clipseg/3', 'ViTSeg (PC)', 0.0, False, None, 1e-4, 20_000),  # vit64-uni-novis
    ('clipseg/3', 'ViTSeg (PC+)', 0.2, True, (0.0, 0.5), 3e-4, 20_000),  # vit64-uni
    ('clipseg/4', 'CLIPSeg (PC+)', 0.2, True, (0.0, 0.5), 1e-3, 20_000),  # rd64-uni-zs5, -zs2
    ('clipseg/5', 'CLIPSeg (PC+)', 0.2, True, (0.0, 0.5), 1e-3, 20_000),  # rd64-uni-phrasepas5i
    ('clipseg/5', 'CLIPSeg (PC)', 0.0, True, (0.0, 1.0), 1e-3, 20_000),  # rd64-phrasepas5i
    ('clipseg/5', 'CLIP-Deconv (PC+)', 0.0, True, (0.0, 1.0), 1e-3, 20_000),  # bl64-phrasepas5i
    ('clipseg/5', 'ViTSeg (PC+)', 0.2, True, (0.0, 0.5), 1e-4, 20_000),  # vit64-uni-phrasepas5i
    ('clipseg/6', 'CLIPSeg (COCO)', 0.0, True, (0.0, 1.0), 1e-3, 7000),
    ('clipseg/6', 'CLIPSeg (COCO+N)', 0.2, True, (0.0, 1.0), 1e-3, 7000),
    ('clipseg/6', 'CLIP-Deconv (COCO+N)', 0.2, True, (0.0, 1.0), 1e-3, 7000),
    ('clipseg/6', 'ViTSeg (COCO)', 0.0, True, (0.0, 1.0), 1e-4, 7000),
    ('clipseg/9', 'no CLIP pre-training', 0.2, True, (0.0, 0.5), 3e-4, 20_000),
    ('clipseg/9', 'no visual', 0.2, False, None, 1e-3, 20_000),
    ('clipseg/9', 'D = 16', 0.2, True, (0.0, 0.5), 1e-3, 20_000),
    ('clipseg/9', 'only layer 3', 0.2, True, (0.0, 0.5), 1e-3, 20_000),
    ('clipseg/9', 'highlight mask', 0.2, True, (0.0, 0.5), 1e-3, 20_000),
]


@pytest.mark.parametrize(
    ('table', 'row', 'negatives', 'visual', 'weights', 'rate', 'iterations'), PUBLISHED
)
def test_rows_of_clipseg(table, row, negatives, visual, weights, rate, iterations):
    for settings in settings_of(table, row):
        data = check_source(settings.data)
        assert data.negatives == negatives
        assert data.visual is visual
        # Without support images, the weight is that of the text alone.
        assert weights is None or settings.prompts.text_weight == weights
        assert settings.schedule.rate == rate
        assert settings.schedule.final_rate == 1e-4
        assert settings.length(1000) == iterations
        assert settings.batch_size == 64
        method = 'blur_1_50' if row == 'highlight mask' else 'blur_10_crop'
        assert settings.prompts.method == method
        assert settings.prompts.template == 'shuffle+'


def test_tables_5_and_7_are_of_the_same_runs():
    tables = [load_published().table(f'clipseg/{number}') for number in (5, 7)]
    for row in tables[0].rows:
        (other,) = [r for r in tables[1].rows if r.name == row.name] or [row]
        if row.config:
            assert (row.config, row.run, row.set) == (other.config, other.run, other.set)


def test_coco_is_drawn_by_class_in_whole_pictures():
    for row in ('CLIPSeg (COCO)', 'CLIPSeg (COCO+N)', 'CLIP-Deconv (COCO+N)', 'ViTSeg (COCO)'):
        for fold, settings in enumerate(settings_of('clipseg/6', row)):
            data = check_source(settings.data)
            assert (data.crop, data.draw, data.min_pixels) == ('none', 'classes', 2048)
            assert data.coco20i == (fold, 'train')
            assert settings.prompts.fit == 'squeeze'


def test_the_highlighted_prompt_is_asked_as_it_was_trained():
    (row,) = (r for r in load_published().table('clipseg/9').rows if r.name == 'highlight mask')
    assert row.method == 'blur_1_50'


def test_batches_and_epochs_of_clsclip():
    for table, batch in (('clsclip/4a', 64), ('clsclip/5a', 512)):
        found = settings_of(table, 'ClsCLIP')
        assert len(found) == 4
        for settings in found:
            assert (settings.batch_size, settings.epochs) == (batch, 200)
            assert settings.schedule.rate == 1e-3
            assert settings.model['blocks'] == [2, 3, 4]
            assert settings.model['decoder']['num_layers'] == 2
