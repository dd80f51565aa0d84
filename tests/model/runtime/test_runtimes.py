"""Every installed runtime gives eager's answers, within its own tolerance, or says why not."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image
from tiny_models import CARD, make_small_clip
from typer.testing import CliRunner

from clipseg_model import runtime as runtimes
from clipseg_model.cli.app import app
from clipseg_model.errors import (
    DeviceError,
    DeviceMemoryError,
    ExportError,
    PrecisionError,
    RuntimeMissingError,
)
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.modeling.clsclip import ClsCLIP
from clipseg_model.prompts import Prompt
from clipseg_model.quantization import export_int8, mask_agreement
from clipseg_model.registry import create_model, load_model
from clipseg_model.runtime import RUNTIMES, Runtime, base, create_runtime, runtime_class
from clipseg_model.runtime.compiled import prompt_buckets
from clipseg_model.runtime.eager import EagerRuntime
from clipseg_model.runtime.export_files import exports_folder, read_variant, weights_digest
from clipseg_model.runtime.exported import ONNX
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.weights.checkpoints import save_checkpoint

SMALL = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 64, 'layers': 3, 'width': 128, 'patch_size': 16},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1},
}
DEMO = Path(__file__).parents[3] / 'docs' / 'images' / 'demo.png'
PROMPTS = ['a mug', 'the red cup', 'something to sit on', 'a chair', 'a drink']

#: An export takes half a minute on one core.
NEEDS_EXPORT = [pytest.mark.slow, pytest.mark.ci]

#: Runtime, precision, device, and the tolerance against fp32 eager: in fp32 of the largest error of
#: a logit (as a share of the largest logit where that is above 1); in 16 bits of the root mean
#: square error, as a share of the logits' standard deviation.
RUNS = [
    ('eager', 'fp32', 'cpu', 0.0),
    ('eager', 'bf16', 'cpu', 0.15),
    ('compile', 'fp32', 'cpu', 1e-4),
    ('compile', 'bf16', 'cpu', 0.15),
    ('onnxruntime', 'fp32', 'cpu', 1e-4),
    ('openvino', 'fp32', 'cpu', 1e-4),
    ('openvino', 'bf16', 'cpu', 0.15),
    ('eager', 'fp32', 'cuda', 1e-4),
    ('eager', 'fp16', 'cuda', 0.01),
    ('eager', 'bf16', 'cuda', 0.15),
    ('compile', 'fp32', 'cuda', 1e-4),
    ('compile', 'fp16', 'cuda', 0.01),
    ('onnxruntime', 'fp32', 'cuda', 1e-4),
    ('onnxruntime', 'fp16', 'cuda', 0.02),
    ('tensorrt', 'fp32', 'cuda', 1e-4),
    ('tensorrt', 'fp16', 'cuda', 0.02),
]


def as_parameter(run: tuple[str, str, str, float]) -> Any:
    name, precision, device, _ = run
    marks: list[Any] = []
    if device == 'cuda':
        marks.append(pytest.mark.gpu)
        marks.append(
            pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
        )
    if name == 'compile':
        marks.append(pytest.mark.slow)  # the compiler takes half a minute
    elif name != 'eager':
        marks += NEEDS_EXPORT
    return pytest.param(*run, marks=marks, id=f'{name}-{precision}-{device}')


def make_vit(seed: int = 0) -> CLIPSeg:
    """CLIPSeg on a tiny ViT of open_clip, whose logits differ between prompts and pixels."""
    torch.manual_seed(seed)
    towers = OpenClipBackbone(overrides=SMALL)
    model = CLIPSeg(towers, [0, 2], dim=16, num_heads=4, feedforward=32, head='refined')
    with torch.no_grad():
        model.decoder.head.deconv2.weight *= 20
    return model.eval()


@pytest.fixture(scope='session')
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of exports that all tests share: an export takes seconds."""
    return tmp_path_factory.mktemp('exports')


@pytest.fixture(autouse=True)
def _own_cache(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CLIPSEG_EXPORTS', str(exports))


@pytest.fixture(scope='session')
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('vit') / 'vit.safetensors'
    save_checkpoint(path, make_vit(), CARD)
    return path


@pytest.fixture(scope='session')
def exported(vit: Path, exports: Path) -> Path:
    """The folder that holds the ONNX files of :func:`vit`, and OpenVINO's if that is here."""
    for package, name in (('onnxruntime', 'onnxruntime'), ('openvino', 'openvino')):
        pytest.importorskip(package)
        model, card = load_model(vit)
        digest = weights_digest(model)
        root = exports_folder(card, digest)
        kind: Any = runtime_class(name)
        kind.export(model, card, digest, exports / root.name, torch.device('cpu'), 'fp32')
    return exports / root.name


def start(
    path: Path | str, name: str, precision: str, device: str = 'cpu', **more: Any
) -> Segmenter:
    """A segmenter, or a skip that says which package is missing."""
    package = runtime_class(name).package
    if package is not None and find_spec(package) is None:
        pytest.skip(f'{package} is not installed')
    return create_model(path, device, runtime=name, precision=precision, **more)


def error_of(found: NDArray[Any], expected: NDArray[Any], precision: str) -> float:
    """What a tolerance of :data:`RUNS` bounds."""
    difference = np.abs(found.astype(np.float64) - expected)
    if precision == 'fp32':
        return float(difference.max()) / max(1.0, float(np.abs(expected).max()))
    return float(np.sqrt((difference**2).mean()) / expected.std())


def assert_agrees(reference: Segmenter, other: Segmenter, picture: Any, tolerance: float) -> None:
    for count in (1, len(PROMPTS)):
        found = other.segment(picture, PROMPTS[:count])
        wanted = reference.segment(picture, PROMPTS[:count])
        assert_same(found, wanted, other.runtime.precision, tolerance)


def assert_same(
    found: Segmentation, wanted: Segmentation, precision: str, tolerance: float
) -> None:
    logits, expected = (
        np.stack([result.logits for result in answer.results]) for answer in (found, wanted)
    )
    assert logits.dtype == np.float32
    assert error_of(logits, expected, precision) <= tolerance


@pytest.mark.parametrize(
    ('name', 'precision', 'device', 'tolerance'), list(map(as_parameter, RUNS))
)
class TestAgreement:
    def test_tiny_vit(
        self,
        name: str,
        precision: str,
        device: str,
        tolerance: float,
        vit: Path,
        image: NDArray[np.uint8],
    ) -> None:
        other = start(vit, name, precision, device)
        assert other.runtime.name == name
        assert other.runtime.precision == precision
        assert f'{name} {precision} on {device}' in other.runtime.describe()
        assert_agrees(create_model(vit, 'cpu'), other, image, tolerance)

    @pytest.mark.slow
    def test_bundled_model_at_sizes_of_a_camera(
        self, name: str, precision: str, device: str, tolerance: float
    ) -> None:
        other = start('tabletop', name, precision, device)
        reference = create_model('tabletop', 'cpu')
        # A scene as the model knows them: its 16-bit errors on noise say nothing.
        scene = Image.open(DEMO).convert('RGB').crop((6, 6, 286, 215))
        for height, width in ((240, 320), (200, 200)):
            picture = np.asarray(scene.resize((width, height)))
            assert_agrees(reference, other, picture, tolerance)

    def test_in_one_thread_after_another(
        self,
        name: str,
        precision: str,
        device: str,
        tolerance: float,
        vit: Path,
        image: NDArray[np.uint8],
    ) -> None:
        """As nodes do: a worker each time that one is activated; more prompts may come there."""
        other, reference = start(vit, name, precision, device), create_model(vit, 'cpu')
        for count in (2, 5):
            with ThreadPoolExecutor(1) as pool:
                found = pool.submit(other.segment, image, PROMPTS[:count]).result()
            assert_same(found, reference.segment(image, PROMPTS[:count]), precision, tolerance)

    def test_several_images_at_once(
        self,
        name: str,
        precision: str,
        device: str,
        tolerance: float,
        vit: Path,
    ) -> None:
        runtime = start(vit, name, precision, device).runtime
        model = make_vit()
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(3, 3, 64, 96, generator=generator)
        condition = torch.randn(3, 5, 16, generator=generator)
        with torch.inference_mode():
            expected = model(pixels, condition)
            features = runtime.encode_image(pixels.to(runtime.device))
            found = runtime.decode(features, condition.to(runtime.device)).cpu()
            assert found.shape == (3, 5, 64, 96)
            assert error_of(found.numpy(), expected.numpy(), precision) <= tolerance
            with pytest.raises(ValueError, match='3'):
                runtime.decode(features, condition[0].to(runtime.device))


class TestEager:
    def test_text_stays_in_float32(self, vit: Path) -> None:
        exact = create_model(vit, 'cpu').embed(PROMPTS)
        found = create_model(vit, 'cpu', precision='bf16').embed(PROMPTS)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0, atol=0)

    @pytest.mark.parametrize('method', ['crop_blur_10', 'attention_cls', 'attention_all'])
    def test_example_images_in_16_bits(
        self, method: str, vit: Path, image: NDArray[np.uint8]
    ) -> None:
        mask = np.zeros(image.shape[:2], bool)
        mask[20:60, 30:80] = True
        prompts = [Prompt(image=image, mask=mask), Prompt(text='a mug', image=image, weight=0.4)]
        found = []
        for precision in ('fp32', 'bf16'):
            segmenter = create_model(vit, 'cpu', precision=precision)
            segmenter.visual_method = method
            found.append((segmenter.embed(prompts), segmenter.segment(image, prompts)))
        (exact, expected), (vectors, masks) = found
        assert vectors.dtype == torch.float32
        assert 0 < float((vectors - exact).abs().max()) < 0.05 * float(exact.abs().max())
        for ours, its in zip(masks.results, expected.results, strict=True):
            scale = max(1.0, float(np.abs(its.logits).max()))
            assert float(np.abs(ours.logits - its.logits).max()) < 0.1 * scale

    def test_weights_are_cast_once(self) -> None:
        runtime = EagerRuntime(make_vit(), torch.device('cpu'), 'bf16')
        types = {p.dtype for p in runtime.model.decoder.blocks[0].linear1.parameters()}
        assert types == {torch.bfloat16}


@pytest.mark.slow
class TestOnnxText:
    @pytest.mark.parametrize('kind', [pytest.param('open_clip', marks=pytest.mark.ci), 'small'])
    def test_is_the_text_tower(self, kind: str, exported: Path, tmp_path: Path) -> None:
        ort = pytest.importorskip('onnxruntime')
        folder, model = exported / ONNX, make_vit()
        inputs: dict[str, Any] = {}
        if kind == 'small':
            from clipseg_model.runtime.split import write_onnx

            folder = tmp_path
            model = CLIPSeg(make_small_clip(), [0, 2], dim=16, feedforward=32)
            write_onnx(model.eval(), folder)
            texts = ['a mug', 'the red cup to drink from', 'something']
            tokens, mask = model.backbone.text.tokenize(texts)
            inputs = {'tokens': tokens.numpy(), 'mask': mask.numpy()}
        else:
            texts = PROMPTS
            tokens = model.backbone._tokenizer(texts)[:, :9]
            inputs = {'tokens': tokens.numpy()}
        session = ort.InferenceSession(folder / 'text.onnx', providers=['CPUExecutionProvider'])
        (found,) = session.run(None, inputs)
        with torch.inference_mode():
            expected = model.embed_texts(texts)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.ci
class TestExports:
    @pytest.fixture
    def folder(self, exported: Path, tmp_path: Path) -> Path:
        """A folder that the user chose, with good exports."""
        return Path(shutil.copytree(exported, tmp_path / 'chosen'))

    @pytest.mark.parametrize(('name', 'variant'), [('onnxruntime', ONNX), ('openvino', 'openvino')])
    @pytest.mark.parametrize(
        ('damage', 'words'),
        [
            (lambda f: (f / 'manifest.json').write_text('{"format": '), 'damaged'),
            (lambda f: (f / 'manifest.json').write_text('[]'), 'no manifest'),
            (lambda f: (f / 'manifest.json').unlink(), 'no export'),
            (lambda f: truncate(next(iter(sorted(f.glob('encoder.*'))))), 'truncated'),
            (lambda f: next(iter(sorted(f.glob('decoder.*')))).unlink(), 'missing'),
            (lambda f: edit(f, version=99), 'version 99'),
            (lambda f: edit(f, files={'../x': '0'}), 'missing'),
            (lambda f: edit(f, versions=None), 'damaged'),
        ],
    )
    def test_what_is_damaged_is_refused_in_a_folder_of_the_users(
        self, name: str, variant: str, damage: Any, words: str, vit: Path, folder: Path
    ) -> None:
        start(vit, name, 'fp32', exports=folder)
        damage(folder / variant)
        before = sorted(folder.rglob('*'))
        with pytest.raises(ExportError, match=words) as caught:
            start(vit, name, 'fp32', exports=folder)
        assert f'clipseg export tiny {folder} --runtime {name}' in str(caught.value)
        assert sorted(folder.rglob('*')) == before

    def test_what_is_damaged_is_made_anew_in_the_cache(
        self,
        vit: Path,
        folder: Path,
        image: NDArray[np.uint8],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cache = folder.parent / 'cache'
        monkeypatch.setenv('CLIPSEG_EXPORTS', str(cache))
        model, card = load_model(vit)
        shutil.copytree(folder, exports_folder(card, weights_digest(model)))
        truncate(exports_folder(card, weights_digest(model)) / 'openvino' / 'encoder.bin')
        with caplog.at_level('INFO'):
            made = start(vit, 'openvino', 'fp32')
        assert 'truncated' in caplog.text
        assert 'Exporting' in caplog.text
        assert_agrees(create_model(vit, 'cpu'), made, image, 1e-4)
        caplog.clear()
        with caplog.at_level('INFO'):
            start(vit, 'openvino', 'fp32')
        assert 'Exporting' not in caplog.text

    @pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
    def test_of_another_checkpoint(self, name: str, folder: Path, tmp_path: Path) -> None:
        other = tmp_path / 'other.safetensors'
        save_checkpoint(other, make_vit(seed=1), CARD)
        with pytest.raises(ExportError, match='other weights'):
            start(other, name, 'fp32', exports=folder)

    def test_of_another_input_size(
        self, vit: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert start(vit, 'onnxruntime', 'fp32', exports=folder, input_size=96)
        # As of an engine of TensorRT, which is built for one size.
        monkeypatch.setattr(runtime_class('onnxruntime'), 'fixed_size', True)
        assert start(vit, 'onnxruntime', 'fp32', exports=folder)
        with pytest.raises(ExportError, match='input size 64, and 96 is asked for'):
            start(vit, 'onnxruntime', 'fp32', exports=folder, input_size=96)

    def test_manifest_says_what_it_was_made_of(self, folder: Path, vit: Path) -> None:
        model, _ = load_model(vit)
        manifest = read_variant(folder / ONNX, weights_digest(model), {})
        assert manifest['model'] == 'tiny'
        assert manifest['input_size'] == 64
        assert manifest['weights_sha256'] == weights_digest(model)
        assert manifest['versions']['torch'] == torch.__version__.split('+')[0]
        assert set(manifest['files']) == {'encoder.onnx', 'decoder.onnx', 'text.onnx'}
        assert manifest['parts']['text.onnx'] == {'inputs': ['tokens'], 'outputs': ['condition']}
        with pytest.raises(ExportError, match='made for torch'):
            read_variant(folder / ONNX, weights_digest(model), {'torch': '1.0'})


class TestWithoutExport:
    def test_digest_changes_with_one_weight_and_the_configuration(self) -> None:
        model, other = make_vit(), make_vit()
        assert weights_digest(model) == weights_digest(other)
        with torch.no_grad():
            other.decoder.film_add.bias[0] += 1e-3
        assert weights_digest(model) != weights_digest(other)
        taps = make_vit()
        taps.layers = (1, 2)
        assert weights_digest(model) != weights_digest(taps)

    def test_a_model_that_cannot_be_split(self) -> None:
        towers = make_small_clip()
        model = ClsCLIP(towers, (1, 2), num_heads=4, dim=16, feedforward=32)
        card = ModelCard.from_stored(CARD, model.config(), Path('x.safetensors'))
        with pytest.raises(ExportError, match='eager or compile'):
            create_runtime(model, card, 'cpu', 'onnxruntime')


class TestInt8:
    @pytest.fixture
    def pictures(self) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
        return [np.kron(each, np.ones((16, 16, 1), np.uint8)) for each in coarse]

    def test_is_not_made_without_images(self, vit: Path) -> None:
        with pytest.raises(ExportError, match='--precision int8 --calibration'):
            start(vit, 'openvino', 'int8')

    @pytest.mark.slow
    @pytest.mark.ci
    def test_is_written_where_masks_agree(
        self, vit: Path, exported: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]
    ) -> None:
        pytest.importorskip('nncf')
        folder = Path(shutil.copytree(exported, tmp_path / 'chosen'))
        model, card = load_model(vit)
        digest = weights_digest(model)
        with pytest.raises(PrecisionError, match=r'agree with those of fp32 at IoU 0\.'):
            export_int8(model, card, digest, folder, pictures, PROMPTS, least_iou=0.99999)
        assert not (folder / 'openvino-int8').exists()
        agreement = export_int8(model, card, digest, folder, pictures, PROMPTS, least_iou=0.5)
        other = start(vit, 'openvino', 'int8', exports=folder)
        reference = create_model(vit, 'cpu')
        again = mask_agreement(reference, other, pictures, [PROMPTS] * len(pictures))
        assert 0.5 <= agreement.iou < 1
        assert again.iou == pytest.approx(agreement.iou, abs=1e-3)
        manifest = json.loads((folder / 'openvino-int8' / 'manifest.json').read_text())
        assert manifest['calibration']['iou'] == pytest.approx(agreement.iou, abs=1e-4)

    def test_needs_enough_images(
        self, vit: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]
    ) -> None:
        pytest.importorskip('nncf')
        model, card = load_model(vit)
        with pytest.raises(ExportError, match='at least 8 images, and there are 2'):
            export_int8(model, card, 'digest', tmp_path, pictures[:2], PROMPTS)

    def test_agreement_counts_pixels(self, vit: Path, pictures: list[NDArray[np.uint8]]) -> None:
        reference, other = create_model(vit, 'cpu'), create_model(vit, 'cpu')
        same = mask_agreement(reference, other, pictures[:2], [PROMPTS] * 2)
        assert same.iou == 1.0
        assert same.correlation == pytest.approx(1.0)
        with torch.no_grad():
            other.model.decoder.head.deconv2.bias += 0.3
        moved = mask_agreement(reference, other, pictures[:2], [PROMPTS] * 2)
        assert same.share_on == moved.share_on
        assert 0.3 < moved.iou < 0.99
        with torch.no_grad():
            reference.model.decoder.head.deconv2.bias -= 1e4
        with pytest.raises(PrecisionError, match='None of the prompts'):
            mask_agreement(reference, other, pictures[:2], [PROMPTS] * 2)


class TestChoice:
    def test_unknown_name(self, vit: Path) -> None:
        with pytest.raises(RuntimeMissingError, match=r"'tensorflow'.*auto, eager, compile"):
            create_model(vit, 'cpu', runtime='tensorflow')

    @pytest.mark.parametrize(
        ('name', 'precision', 'words'),
        [
            ('eager', 'int8', 'fp32, bf16, fp16'),
            ('eager', 'fp16', 'bf16 or fp32, or a CUDA device'),
            ('onnxruntime', 'bf16', 'fp32, fp16'),
            ('openvino', 'fp16', 'fp32, bf16, int8'),
            ('openvino', 'half', 'fp32, bf16, int8'),
        ],
    )
    def test_unsupported_precision(self, name: str, precision: str, words: str, vit: Path) -> None:
        with pytest.raises(PrecisionError, match=words):
            create_model(vit, 'cpu', runtime=name, precision=precision)

    @pytest.mark.parametrize('name', ['eager', 'openvino'])
    def test_bf16_on_a_cpu_without_it(
        self, name: str, vit: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, 'cpu_flags', lambda: frozenset({'avx512f'}))
        with pytest.raises(PrecisionError, match='AVX512_BF16'):
            create_model(vit, 'cpu', runtime=name, precision='bf16')

    @pytest.mark.parametrize(('name', 'extra'), [('onnxruntime', 'onnx'), ('openvino', 'openvino')])
    def test_package_that_is_not_installed(
        self, name: str, extra: str, vit: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = runtime_class(name).package
        assert package is not None
        # What makes Python refuse an import.
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(RuntimeMissingError, match=rf'pip install "clipseg_ros\[{extra}\]"'):
            create_model(vit, 'cpu', runtime=name)

    @pytest.mark.parametrize('name', ['openvino', 'tensorrt'])
    def test_device_that_the_runtime_does_not_know(self, name: str, vit: Path) -> None:
        device = torch.device('cuda' if name == 'openvino' else 'cpu')
        with pytest.raises(DeviceError, match=f'{name!r} works on'):
            runtime_class(name).check(device, 'fp32')

    @pytest.mark.slow
    @pytest.mark.ci
    def test_auto_takes_what_is_installed_and_says_so(
        self, vit: Path, exported: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level('INFO'):
            chosen = create_model(vit, 'cpu', runtime='auto')
        assert chosen.runtime.name == 'openvino'
        assert 'Runtime auto: openvino' in caplog.text
        assert 'Runtime: openvino fp32 on cpu' in caplog.text

    def test_auto_passes_over_what_is_missing_or_cannot(
        self, vit: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level('INFO'):
            monkeypatch.setattr(runtimes, 'find_spec', lambda package: None)
            assert create_model(vit, 'cpu', runtime='auto').runtime.name == 'eager'
            monkeypatch.undo()
            model = ClsCLIP(make_small_clip(), (1, 2), num_heads=4, dim=16, feedforward=32)
            card = ModelCard.from_stored(CARD, model.config(), Path('x.safetensors'))
            assert create_runtime(model, card, 'cpu', 'auto').name == 'eager'
        assert 'passes over openvino: A ClsCLIP cannot be exported' in caplog.text

    def test_every_name_has_its_class(self) -> None:
        for name in RUNTIMES:
            kind = runtime_class(name)
            assert issubclass(kind, Runtime)
            assert kind.name == name


class TestMemory:
    @pytest.mark.parametrize(
        'error',
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            Exception('[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer'),
        ],
    )
    def test_running_out_is_told(
        self, error: Exception, vit: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segmenter = create_model(vit, 'cpu')

        def fail(*args: Any) -> None:
            raise error

        monkeypatch.setattr(segmenter.model, 'encode_image', fail)
        with pytest.raises(DeviceMemoryError, match=r'eager fp32 on cpu.*smaller model'):
            segmenter.segment(image, ['a mug'])
        with pytest.raises(DeviceMemoryError) as caught, base.memory_guard(segmenter.runtime):
            segmenter.segment(image, ['a mug'])
        assert str(caught.value).count('There is not enough memory') == 1, 'told once'

    @pytest.mark.parametrize('name', ['embed_texts', 'embed_images'])
    def test_running_out_over_a_prompt_is_told(
        self, name: str, vit: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segmenter = create_model(vit, 'cpu')

        def fail(*args: Any) -> None:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')

        monkeypatch.setattr(segmenter.model, name, fail)
        with pytest.raises(DeviceMemoryError, match='eager fp32 on cpu'):
            segmenter.segment(image, [Prompt('a mug', image=image)])

    def test_other_errors_stay_what_they_are(
        self, vit: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segmenter = create_model(vit, 'cpu')

        def fail(*args: Any) -> None:
            raise RuntimeError('shapes differ')

        monkeypatch.setattr(segmenter.model, 'encode_image', fail)
        with pytest.raises(RuntimeError, match='shapes differ'):
            segmenter.segment(image, ['a mug'])


def clipseg(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


class TestCommands:
    @pytest.fixture
    def photos(self, tmp_path: Path, image: NDArray[np.uint8]) -> Path:
        folder = tmp_path / 'photos'
        folder.mkdir()
        for number in range(8):
            Image.fromarray(np.roll(image, 9 * number, 1)).save(folder / f'{number}.png')
        return folder

    @pytest.mark.slow
    @pytest.mark.ci
    def test_export_then_segment(self, vit: Path, photos: Path, tmp_path: Path) -> None:
        pytest.importorskip('nncf')
        folder, out = tmp_path / 'exports', tmp_path / 'out'
        arguments = ['export', vit, folder, '--runtime', 'openvino', '--precision', 'int8']
        more = ['--calibration', photos, '-p', 'a mug; a chair', '--least-iou', '0.2']
        made = clipseg(*arguments, *more)
        assert made.exit_code == 0, made.output
        assert 'Masks agree with fp32 at IoU' in made.output
        assert 'over 8 images' in made.output
        segment = ['segment', photos / '0.png', '-p', 'a mug', '--model', vit, '-o', out]
        done = clipseg(
            *segment, '--runtime', 'openvino', '--precision', 'int8', '--exports', folder
        )
        assert done.exit_code == 0, done.output
        assert 'Runtime: openvino int8 on cpu' in done.output
        assert (out / '0.json').is_file()

    @pytest.mark.parametrize(
        ('arguments', 'words'),
        [
            (['--runtime', 'eager'], 'runs the checkpoint itself'),
            (['--runtime', 'openvino', '--precision', 'fp16'], 'fp32, bf16, int8'),
            (['--runtime', 'openvino', '--precision', 'int8'], 'give --calibration FOLDER'),
            (['--runtime', 'openvino', '--least-iou', '0.5'], 'belong to --precision int8'),
            (['--runtime', 'tensorrt', '--device', 'cpu'], "'tensorrt' works on cuda"),
            (['--runtime', 'onnx'], "no runtime 'onnx'"),
        ],
    )
    def test_what_export_refuses(
        self, arguments: list[str], words: str, vit: Path, tmp_path: Path
    ) -> None:
        result = clipseg('export', vit, tmp_path / 'exports', *arguments)
        assert result.exit_code == 1
        assert words in ' '.join(result.output.split())
        assert not (tmp_path / 'exports').exists()

    def test_segment_refuses_a_precision(self, vit: Path, photos: Path) -> None:
        result = clipseg(
            'segment', photos / '0.png', '-p', 'x', '--model', vit, '--precision', 'int8'
        )
        assert result.exit_code == 1
        assert 'fp32, bf16, fp16' in ' '.join(result.output.split())


@pytest.mark.parametrize(
    ('prompts', 'most', 'runs'),
    [
        (1, 4, [(1, 1)]),
        (3, 4, [(3, 4)]),
        (4, 4, [(4, 4)]),
        (9, 4, [(4, 4), (4, 4), (1, 1)]),
        (70, 64, [(64, 64), (6, 8)]),
    ],
)
def test_prompt_buckets(prompts: int, most: int, runs: list[tuple[int, int]]) -> None:
    assert prompt_buckets(prompts, most) == runs


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / 'manifest.json').read_text())
    (folder / 'manifest.json').write_text(json.dumps({**manifest, **changes}))
