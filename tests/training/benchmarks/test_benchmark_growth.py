from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch

from clipseg_model import Segmenter, create_model
from training import benchmark
from training.benchmarks import growth as benchmark_growth
from training.benchmarks.growth import straight_line
from training.benchmarks.plot import Line, line_chart

SVG = '{http://www.w3.org/2000/svg}'


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundled model's growth in a few small steps writes."""
    folder = tmp_path_factory.mktemp('growth')
    words = ['growth', '--prompts', '1', '3', '--sizes', '96x64', '128x96', '--cameras', '1', '2']
    words += ['--frames', '2', '--warm', '0', '--threads', str(torch.get_num_threads())]
    benchmark.main([*words, '--output', str(folder)])
    return folder


def test_every_axis_is_measured(written: Path) -> None:
    report = json.loads((written / 'growth.json').read_text())
    growth = report['growth']
    assert list(growth) == ['prompts', 'pixels', 'cameras']
    assert list(growth['prompts']) == ['eager-fp32']
    assert list(growth['prompts']['eager-fp32']['ms']) == ['1', '3']
    assert list(growth['pixels']['eager-fp32']['ms']) == ['6144', '12288']
    assert list(growth['cameras']) == ['eager-fp32, turns', 'eager-fp32, batch']
    for found in growth.values():
        for one in found.values():
            first, last = one['ms'].values()
            assert all(
                0 < times['low'] <= times['median'] <= times['high'] for times in (first, last)
            )
            assert one['ratio'] == pytest.approx(last['median'] / first['median'])
    assert report['machine']['versions']['torch'] == torch.__version__.split('+')[0]


def test_the_tables(written: Path) -> None:
    text = (written / 'growth.md').read_text()
    assert text.startswith('Model `tabletop`; ')
    for line in ('| prompts | eager-fp32 |', '| cameras | eager-fp32, turns | eager-fp32, batch |'):
        assert line in text
    assert '| 128 × 96 | ' in text
    assert text.count('| last to first | ') == text.count('| once + each ') == 3


def test_the_charts(written: Path) -> None:
    assert sorted(path.name for path in written.glob('*.svg')) == [
        'growth_cameras.svg',
        'growth_pixels.svg',
        'growth_prompts.svg',
    ]
    root = ET.fromstring((written / 'growth_cameras.svg').read_text())
    words = [text.text for text in root.iter(f'{SVG}text')]
    assert 'tabletop: time against cameras' in words
    assert {'eager-fp32, turns', 'eager-fp32, batch'} <= set(words)
    markers = root.findall(f'.//{SVG}g[@id="eager-fp32, batch"]//{SVG}use')
    assert len(markers) == 2


def steps_of(axis: str, **options: Any) -> tuple[dict[str, dict[int, Any]], list[tuple[int, int]]]:
    """The steps of an axis, and what goes through the encoder: images, then prompts decoded."""
    words = [word for name, values in options.items() for word in (f'--{name}', *values)]
    args = benchmark_growth.make_parser().parse_args(words)
    model = create_model('tabletop', 'cpu', runtime='eager')
    calls: list[tuple[int, int]] = []
    runtime: Any = model.runtime
    encode, decode = runtime.encode_image, runtime.decode

    def encode_image(pixels: torch.Tensor) -> Any:
        calls.append((len(pixels), 0))
        return encode(pixels)

    def decode_prompts(features: Any, prompts: Any) -> torch.Tensor:
        calls.append((calls.pop()[0], len(prompts)))
        return decode(features, prompts)

    runtime.encode_image, runtime.decode = encode_image, decode_prompts
    make = getattr(benchmark_growth, f'{axis}_steps')
    return make({'eager-fp32': model}, args), calls


def test_what_a_step_of_prompts_and_of_pixels_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    segment = Segmenter.segment

    def spy(self: Segmenter, image: Any, *words: Any) -> Any:
        found = segment(self, image, *words)
        assert all(result.can_be_on for result in found.results)
        seen.append(image.shape[:2])
        return found

    monkeypatch.setattr(Segmenter, 'segment', spy)
    steps, calls = steps_of('prompt', prompts=['1', '5'])
    for step in steps['eager-fp32'].values():
        step(0)
    assert calls == [(1, 1), (1, 5)]
    steps, calls = steps_of('pixel', sizes=['40x30', '64x32'])
    for step in steps['eager-fp32'].values():
        step(1)
    assert calls == [(1, 4), (1, 4)]
    assert seen == [(480, 640), (480, 640), (30, 40), (32, 64)]


def test_cameras_take_turns_or_are_one_batch() -> None:
    steps, calls = steps_of('camera', cameras=['1', '3'])
    assert len(steps['eager-fp32, turns'][3](0)) == 3
    assert calls == [(1, 4)] * 3
    calls.clear()
    assert len(steps['eager-fp32, batch'][3](0)) == 3
    assert calls == [(3, 4)]


def test_a_straight_line() -> None:
    line = straight_line([1, 2, 4], [7.0, 9.0, 13.0])
    assert line == pytest.approx((5.0, 2.0))
    assert straight_line([4], [13.0]) is None


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--axes', 'voxels'], 'invalid choice'),
        (['--prompts', '65'], '1 to 64'),
        (['--sizes', '640'], 'WIDTHxHEIGHT'),
        (['--cameras', '0'], 'cameras are 1 to 64'),
    ],
)
def test_arguments_that_are_wrong(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(['growth', *words])
    assert message in capsys.readouterr().err


def test_a_chart_puts_values_where_they_belong() -> None:
    chart = line_chart('a < b', 'x', 'ms', [Line('one', [0, 5, 10], [0, 10, 0], [0] * 3, [20] * 3)])
    root = ET.fromstring(chart)
    assert {'a < b', 'x', 'ms', 'one'} <= {text.text for text in root.iter(f'{SVG}text')}
    (line,) = root.iterfind(f'.//{SVG}g[@id="one"]/{SVG}path')
    places = [tuple(map(float, pair.split())) for pair in re.split('[ML]', line.attrib['d'])[1:]]
    (left, bottom), (middle, top), (right, end) = places
    assert middle - left == pytest.approx(right - middle)
    assert end == bottom > top
