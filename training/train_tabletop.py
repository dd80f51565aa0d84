"""Trains the bundled model on rendered scenes.

    torchrun --nproc_per_node 2 -m training.train_tabletop training/configs/tabletop.yaml
    accelerate launch --multi_gpu -m training.train_tabletop training/configs/tabletop.yaml

A run writes a folder: its settings, git commit and environment, ``log.jsonl``, and the newest
state, from which ``--resume`` goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from clipseg_model.modeling.clipseg import build_clipseg
from clipseg_model.modeling.preprocessing import input_shape
from training.bundled.losses import JointTraining, noisy_words
from training.bundled.settings import Settings, load_settings
from training.datasets.tabletop import (
    Batch,
    TabletopViews,
    endless_rows,
    make_batch,
    object_share,
    token_classes,
)


def git_commit() -> str:
    """Returns the commit of the checkout, marked where the tree differs; says if there is none."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude', '*']
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else 'not in a git checkout'


def write_atomically(path: Path, write: Any) -> None:
    """Calls ``write(temporary path)``, then renames into place."""
    partial = path.with_name(path.name + '.part')
    write(partial)
    partial.replace(path)


def normalise(images: Tensor, backbone: Any, shape: tuple[int, int]) -> Tensor:
    """Maps uint8 (B, H, W, 3) to normalised float (B, 3, *shape)."""
    pixels = images.permute(0, 3, 1, 2)
    if pixels.shape[-2:] != shape:
        pixels = functional.interpolate(pixels, shape, mode='bilinear', antialias=True)
    mean = torch.tensor(backbone.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(backbone.std, device=images.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def resize_masks(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resizes bool masks (B, P, H, W) to (B, P, *shape), a pixel set where half of it is."""
    if masks.shape[-2:] == shape:
        return masks
    return functional.interpolate(masks.float(), shape, mode='area') >= 0.5


def draw_window(
    side: int, input_size: int, wide_share: float, rng: np.random.Generator
) -> tuple[slice, tuple[int, int]]:
    """Draws the part of a square picture that is shown, and the size it is shown at.

    Cameras are mostly wider than high, so some steps see a 4:3 strip of the pictures, at an
    input of about the same area.

    Returns:
        Rows of the picture, and the input's (height, width), multiples of 16.
    """
    if rng.random() >= wide_share:
        return slice(0, side), (input_size, input_size)
    rows = side * 3 // 4
    top = int(rng.integers(side - rows + 1))
    return slice(top, top + rows), input_shape(3, 4, input_size, 16, 'aspect')


def compute_losses(
    module: nn.Module,
    inner: JointTraining,
    batch: Batch,
    settings: Settings,
    window: tuple[slice, tuple[int, int]],
    generator: torch.Generator,
    device: torch.device,
) -> dict[str, Tensor]:
    """Prepares a batch on the device and runs the module (wrapped for several processes)."""
    backbone = inner.model.backbone
    texts = batch.texts + batch.more_texts + batch.support_texts
    pieces, word_mask = backbone.text.tokenize(texts)
    words = backbone.text.words(pieces.to(device))
    words = noisy_words(words, settings.word_noise, settings.word_dropout, generator)
    rows, shape = window
    share = object_share(batch.ids[:, rows], (shape[0] // 16, shape[1] // 16))
    more_share = batch.more_objects.float() @ share.transpose(1, 2)
    support_shape = (batch.supports.shape[1], batch.supports.shape[2])
    same = torch.tensor([[a == b for b in batch.support_texts] for a in batch.support_texts])
    return module(
        normalise(batch.images[:, rows].to(device), backbone, shape),
        normalise(batch.supports.to(device), backbone, support_shape),
        words,
        word_mask.to(device),
        resize_masks(batch.masks[:, :, rows].to(device), shape),
        batch.known.to(device),
        more_share.to(device),
        token_classes(share, batch.classes).to(device),
        same.to(device),
    )


def build_optimizers(module: JointTraining, settings: Settings) -> list[torch.optim.Optimizer]:
    """Returns Muon for the matrices of the transformer blocks, AdamW for all else.

    Muon (Jordan et al. 2024) learns these towers two to three times faster than AdamW alone; its
    updates are scaled to AdamW's size (Liu et al. 2025), so that one learning rate serves both.
    The stem comes with good weights and learns slowly. Vectors (biases, norms, embeddings of one
    token) are not decayed.
    """
    matrices: list[nn.Parameter] = []
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        stem = name.startswith('model.backbone.stem.')
        if '.blocks.' in name and parameter.dim() == 2:
            matrices.append(parameter)
        else:
            groups.setdefault((stem, parameter.dim() > 1), []).append(parameter)
    adamw = torch.optim.AdamW(
        [
            {
                'params': parameters,
                'relative': settings.stem_rate if stem else 1.0,
                'weight_decay': settings.weight_decay if matrix else 0.0,
            }
            for (stem, matrix), parameters in groups.items()
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
    )
    muon = torch.optim.Muon(
        [{'params': matrices, 'relative': 1.0}],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adjust_lr_fn='match_rms_adamw',
    )
    return [adamw, muon]


class Average:
    """An exponential moving average of a module's trainable weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, iteration: int) -> None:
        """Moves towards the module; early iterations move faster."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        pairs = zip(self.module.parameters(), module.parameters(), strict=True)
        for mine, theirs in pairs:
            if theirs.requires_grad:
                mine.lerp_(theirs, 1 - decay)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('settings', type=Path, help='YAML file of the run')
    parser.add_argument('--output', type=Path, help='folder of the run (default: runs/train/NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the newest state')
    parser.add_argument('--init-from', type=Path, help='state.pt of another run: take its weights')
    args = parser.parse_args()
    settings = load_settings(args.settings)
    output: Path = args.output or Path('runs/train') / settings.name
    state_path = output / 'state.pt'
    if state_path.exists() and not args.resume:
        raise SystemExit(f'{state_path} exists: give --resume to go on, or another --output')

    # Without cpu=True, processes on a machine without a GPU would not find each other.
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision='bf16',
    )
    rank, processes = accelerator.process_index, accelerator.num_processes
    expected = int(os.environ.get('WORLD_SIZE', 1))
    if processes != expected:
        raise SystemExit(f'{expected} processes were started, but {processes} work together')
    set_seed(settings.seed)
    inner = JointTraining(build_clipseg(settings.model))
    frozen = load_file(settings.frozen)
    _, surplus = inner.model.backbone.load_state_dict(frozen, strict=False)
    if surplus:
        raise SystemExit(f'{settings.frozen} does not fit the model: surplus keys {surplus}')
    inner.model.backbone.stem.blocks[settings.stem_from :].requires_grad_(True)
    if args.init_from:
        earlier = torch.load(args.init_from, map_location='cpu', weights_only=True)
        inner.load_state_dict(earlier['module'])
    trainable = [p for p in inner.parameters() if p.requires_grad]
    optimizers = build_optimizers(inner, settings)
    average = Average(inner, settings.average)
    start = 0
    if args.resume:
        state = torch.load(state_path, map_location='cpu', weights_only=True)
        inner.load_state_dict(state['module'])
        average.module.load_state_dict(state['average'])
        for optimizer, saved in zip(optimizers, state['optimizers'], strict=True):
            optimizer.load_state_dict(saved)
        start = state['iteration']
    if settings.compile:
        parts = [inner.model.decoder, inner.model.backbone.stem, *inner.model.backbone.blocks]
        for part in parts:
            part.compile(dynamic=False)
    module, *optimizers = accelerator.prepare(inner, *optimizers)
    average.module.to(accelerator.device)
    views = TabletopViews(settings.data.folder / 'train')

    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        record = {
            'settings': settings.model_dump(mode='json'),
            'commit': git_commit(),
            'torch': torch.__version__,
            'processes': processes,
            'views': len(views),
            'start': start,
            'init_from': str(args.init_from) if args.init_from else None,
        }
        (output / f'run_{start:06d}.json').write_text(json.dumps(record, indent=2))
        print(f'{len(views)} views, {sum(p.numel() for p in trainable):,} trainable parameters')

    rng = np.random.default_rng([settings.seed, rank, start])
    generator = torch.Generator().manual_seed(settings.seed + 1000 * rank + start)
    rows = endless_rows(len(views), rng)
    weights = settings.losses.model_dump()
    log_path = output / 'log.jsonl'
    sums: dict[str, float] = {}
    began = time.monotonic()
    progress = tqdm(
        range(start, settings.iterations),
        initial=start,
        total=settings.iterations,
        disable=not accelerator.is_main_process,
        mininterval=10,
    )
    for iteration in progress:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group['lr'] = group['relative'] * settings.rate(iteration)
        data, stage = settings.data, settings.stage(iteration)
        row = [next(rows) for _ in range(stage.batch)]
        batch = make_batch(
            views,
            row,
            data.texts,
            data.more_texts,
            data.absent_share,
            data.support_size,
            rng,
        )
        window = draw_window(views.size, stage.input_size, data.wide_share, rng)
        with accelerator.autocast():
            losses = compute_losses(
                module,
                inner,
                batch,
                settings,
                window,
                generator,
                accelerator.device,
            )
        total = sum((weights[name] * loss for name, loss in losses.items()), torch.tensor(0.0))
        if not torch.isfinite(total):
            seeds = [views.records[view]['seed'] for view in row]
            (output / f'non_finite_{iteration}_{rank}.json').write_text(json.dumps(seeds))
            raise SystemExit(f'the loss is not finite at iteration {iteration}, scenes {seeds}')
        accelerator.backward(total)
        accelerator.clip_grad_norm_(trainable, settings.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not accelerator.is_main_process:
            continue
        average.update(inner, iteration)
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
        done = iteration + 1
        if done % 50 == 0:
            line = {'iteration': done, 'seconds': round(time.monotonic() - began, 1)}
            line |= {name: round(value / 50, 4) for name, value in sums.items()}
            sums.clear()
            with log_path.open('a') as log:
                log.write(json.dumps(line) + '\n')
            progress.set_postfix({name: line[name] for name in losses})
        if done % settings.save_every == 0 or done == settings.iterations:
            snapshot = {
                'module': inner.state_dict(),
                'average': average.module.state_dict(),
                'optimizers': [optimizer.state_dict() for optimizer in optimizers],
                'iteration': done,
            }
            write_atomically(state_path, lambda path: torch.save(snapshot, path))  # noqa: B023
    accelerator.end_training()


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
