"""Trains the models of the papers, on any data set: the recipe of CLIPSeg's supplement.

    python -m training.train training/configs/clipseg_pc_plus.yaml
    python -m training.train training/configs/clsclip.yaml --set data.fold=1
    python -m training.train training/configs/own.yaml --init-from clipseg-rd64-refined
    torchrun --nproc_per_node 8 -m training.train training/configs/clipseg_pc_plus.yaml

The decoder is trained and the towers are frozen: AdamW, binary cross-entropy, a cosine. A run
writes a folder: settings, git commit and environment, ``log.jsonl``, TensorBoard's events,
``last.pt`` from which ``--resume`` goes on, ``best.pt``, and at its end ``model.safetensors``,
which :func:`clipseg_model.create_model` reads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from clipseg_model.errors import ClipsegError
from clipseg_model.model_card import ModelCard
from clipseg_model.weights.checkpoints import save_checkpoint
from training.datasets.sources import open_source
from training.loop.activations import CachedActivations
from training.loop.feeding import Drawn, DrawnPictures, Load, Order, feed
from training.loop.learner import Learner, begin_model, follow_card, ground_name
from training.loop.processes import begin_accelerator
from training.loop.run_folder import (
    RunError,
    RunFolder,
    environment,
    frozen_fingerprint,
    git_commit,
)
from training.loop.run_state import Progress, load_state, put, restore, snapshot
from training.loop.settings import Settings, Validation, load_settings
from training.loop.streaming import ActivationStream, Shards, feed_stream
from training.loop.validation import Measured, Validator, better


def train(settings: Settings, output: Path, resume: bool = False) -> Path:
    """Runs, or goes on with, a training.

    Args:
        settings: What to train, on what, and how.
        output: Folder of the run.
        resume: Go on from ``last.pt`` there, if there is one yet.

    Returns:
        The checkpoint that came out.

    Raises:
        RunError: The folder holds another run, the loss is not finite, or a file cannot be
            written.
        ClipsegError: Data, weights or settings are not usable.
    """
    accelerator = begin_accelerator(settings.mixed_precision)
    settings = follow_card(settings)
    folder = RunFolder(output)
    state = load_state(folder, settings, resume)
    torch.manual_seed(settings.seed)
    model, card = begin_model(settings)
    learner = Learner(model)
    drawn, samples = open_data(settings, learner)
    order = Order(
        samples,
        settings.seed,
        settings.batch_size,
        settings.accumulate,
        accelerator.process_index,
        accelerator.num_processes,
    )
    validator = open_validator(settings, order.part)
    trained = learner.trained()
    optimizer = torch.optim.AdamW(
        trained.values(), lr=settings.schedule.rate, weight_decay=settings.weight_decay
    )
    frozen = frozen_fingerprint(model)
    module, optimizer = accelerator.prepare(learner, optimizer)
    done = Progress(0, None, Counter())
    if state is not None:
        done = restore(state, frozen, samples, trained, optimizer, accelerator)
    length = settings.length(samples)
    writer = None
    if accelerator.is_main_process:
        folder.begin(settings.model_dump(mode='json'), done.step, accelerator.num_processes)
        folder.trim_log(done.step)
        writer = SummaryWriter(str(output / 'tensorboard'), purge_step=done.step)
        count = sum(value.numel() for value in trained.values())
        print(f'{samples} samples, {count:,} weights to train, {length} iterations')
    accelerator.wait_for_everyone()

    def checkpoint() -> None:
        if accelerator.is_main_process:
            state = snapshot(settings, frozen, samples, trained, optimizer, accelerator, done)
            folder.save(folder.last, state)

    learner.train()
    pending: list[Tensor] = []
    began, seen = time.monotonic(), 0
    loads = open_loads(drawn, order, done.step, length, settings)
    bar = tqdm(total=length, initial=done.step, disable=not accelerator.is_main_process, unit='it')
    with bar:
        for parts in loads:
            rate = settings.rate(done.step, samples)
            for group in optimizer.param_groups:
                group['lr'] = rate
            loss = step(module, learner, optimizer, parts, settings, accelerator, folder, done)
            done.step += 1
            pending.append(loss)
            seen += settings.batch_size
            bar.update()
            if done.step % settings.log_every == 0 or done.step == length:
                mean = accelerator.reduce(torch.stack(pending).mean(), 'mean').item()
                pending.clear()
                if writer is not None:
                    speed = seen / (time.monotonic() - began)
                    began, seen = time.monotonic(), 0
                    figures = {'loss': mean, 'rate': rate, 'samples_per_second': round(speed, 2)}
                    folder.log({'iteration': done.step, **figures})
                    for name, value in figures.items():
                        writer.add_scalar(f'train/{name}', value, done.step)
                    bar.set_postfix(loss=f'{mean:.4f}')
            last = done.step == length
            if validator is not None and (last or done.step % validator.settings.every == 0):
                measured = validator.measure(learner, accelerator, settings.pictures)
                keep(measured, validator.settings, folder, writer, done, trained, accelerator)
                began, seen = time.monotonic(), 0
            if last or done.step % settings.save_every == 0:
                checkpoint()
    if writer is not None:
        writer.close()
        finish(folder, settings, learner, card, done, samples)
    accelerator.wait_for_everyone()
    return folder.model


def open_data(settings: Settings, learner: Learner) -> tuple[Drawn | Shards, int]:
    """Opens what is trained on: pictures, or activations that were cached.

    Returns:
        What a loader draws from, and the number of samples.
    """
    if settings.activations is not None:
        where = settings.activations
        cached = Shards.at(where) if settings.stream else CachedActivations(Path(where))
        model = learner.model
        cached.check(settings, model.config(), frozen_fingerprint(model))
        return cached, cached.samples
    source = open_source(settings.data)
    return DrawnPictures(source, settings.prompts, settings.drawn_by), len(source)


def open_loads(
    drawn: Drawn | Shards, order: Order, start: int, length: int, settings: Settings
) -> Iterator[list[Load]]:
    """Begins to load what the steps of this process train on, from one of them on."""
    pin = torch.cuda.is_available()
    if not isinstance(drawn, Shards):
        return feed(drawn, order, start, length, settings.workers, pin)
    stream = ActivationStream(drawn, settings.seed, order.part, order.rank, order.processes)
    return feed_stream(stream, start, length, order.accumulate, settings.workers, pin)


def open_validator(settings: Settings, batch: int) -> Validator | None:
    """Opens the split that is measured on, if there is one."""
    if settings.validation is None:
        return None
    source = open_source(settings.validation.data)
    return Validator(
        settings.validation, source, settings.prompts, batch, settings.workers, settings.seed
    )


def step(
    module: nn.Module,
    learner: Learner,
    optimizer: Any,
    parts: list[Load],
    settings: Settings,
    accelerator: Accelerator,
    folder: RunFolder,
    done: Progress,
) -> Tensor:
    """Learns from one batch, in as many parts as it came.

    Returns:
        The loss of this process, a scalar.

    Raises:
        RunError: The loss is not finite. The places and keys of the samples are in a file.
    """
    total = torch.zeros((), device=accelerator.device)
    for number, load in enumerate(parts):
        done.skipped.update(load.skipped)
        for kind, example in load.examples.items():
            if done.skipped[kind] == load.skipped[kind]:
                tqdm.write(f'skipped, {kind}: {example}', file=sys.stderr)
        last = number == len(parts) - 1
        # Gradients of several processes are averaged once a step.
        with contextlib.nullcontext() if last else accelerator.no_sync(module):
            loss, _ = module(load)
            if not torch.isfinite(loss.detach()):
                raise not_finite(folder, load, done.step, accelerator.process_index)
            accelerator.backward(loss / len(parts))
        total += loss.detach() / len(parts)
    if settings.clip_norm is not None:
        accelerator.clip_grad_norm_(learner.trained().values(), settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def not_finite(folder: RunFolder, load: Load, step: int, rank: int) -> RunError:
    """Writes down which samples made a loss that is not finite."""
    path = folder.path / f'non_finite_{step:06d}_{rank}.json'
    samples = [
        {'key': key, 'epoch': epoch, 'index': index, 'text': text}
        for key, (epoch, index), text in zip(
            load.batch.keys, load.places, load.batch.texts, strict=True
        )
    ]
    path.write_text(json.dumps({'iteration': step, 'samples': samples}, indent=2))
    shown = ', '.join(load.batch.keys[:5]) + (' …' if len(samples) > 5 else '')
    return RunError(
        f'the loss is not finite at iteration {step}, on the samples {shown} (all of them, with '
        f'their epochs: {path}). {folder.last.name} is of before. Look at these samples; else '
        'lower schedule.rate, set clip_norm, or use mixed_precision bf16 or no'
    )


def keep(
    measured: Measured,
    settings: Validation,
    folder: RunFolder,
    writer: SummaryWriter | None,
    done: Progress,
    trained: dict[str, nn.Parameter],
    accelerator: Accelerator,
) -> None:
    """Writes a validation down, and the weights if it is the best so far."""
    is_best, score = better(measured, done.best, settings.best_by)
    if writer is not None:
        scalars = measured.scalars()
        folder.log({'iteration': done.step, 'validation': scalars, 'samples': measured.samples})
        for name, value in scalars.items():
            writer.add_scalar(f'validation/{name}', value, done.step)
        for number, picture in enumerate(measured.pictures):
            writer.add_image(f'validation/{number}', picture, done.step, dataformats='HWC')
        figures = ', '.join(f'{name} {value:.4f}' for name, value in scalars.items())
        tqdm.write(f'iteration {done.step}: {figures}{" (best)" if is_best else ""}')
    if not is_best:
        return
    done.best = score
    if accelerator.is_main_process:
        weights = {name: value.detach().cpu().clone() for name, value in trained.items()}
        best = {'step': done.step, 'trained': weights, 'measured': measured.scalars()}
        folder.save(folder.best, best)


def finish(
    folder: RunFolder,
    settings: Settings,
    learner: Learner,
    card: ModelCard | None,
    done: Progress,
    samples: int,
) -> None:
    """Writes the model that came out, the best by validation if there was one, and its card."""
    trained = learner.trained()
    details: dict[str, Any] = {
        'run': settings.model_dump(mode='json'),
        'commit': git_commit(),
        'environment': environment(),
        'iterations': done.step,
        'samples': samples,
    }
    fields: dict[str, Any] = {}
    if card is not None:
        fields['template'] = card.template
        details['init_from'] = {'name': card.name, 'licence': card.licence, 'source': card.source}
    if done.best is not None:
        best = folder.load(folder.best)
        put(best['trained'], trained)
        details['best'] = {'iteration': best['step'], **best['measured']}
        fields['threshold'] = best['measured']['threshold']
        assert settings.validation is not None
        split = settings.validation.data
        named = filter(None, [split['dataset'], split.get('split') or split.get('folder')])
        size = settings.prompts.size
        details['calibrated_on'] = f'{" ".join(map(str, named))}, squares of {size} px'
    if done.skipped:
        details['skipped'] = dict(done.skipped)
        counts = ', '.join(f'{count} {kind}' for kind, count in sorted(done.skipped.items()))
        print(f'broken records that were skipped: {counts}', file=sys.stderr)
    prompts = settings.prompts
    fields |= {
        'name': settings.name,
        'input_size': prompts.size,
        'resize': 'square' if prompts.fit == 'squeeze' else 'aspect',
        'prompt_ground': ground_name(prompts, tuple(learner.model.backbone.mean)),
        'licence': settings.licence,
        'source': 'trained by you',
        'description': f'{learner.model.config()["architecture"]} trained on '
        f'{settings.data["dataset"]}.',
        'details': details,
    }
    save_checkpoint(folder.model, learner.model, fields)
    print(f'{folder.model}: use it with clipseg segment --model {folder.model}')


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='YAML file of the run; see training/configs/')
    parser.add_argument('--output', type=Path, help='folder of the run (default: runs/train/NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint')
    parser.add_argument(
        '--init-from',
        metavar='MODEL',
        help='fine-tune: a name of `clipseg models`, a checkpoint, or a Hugging Face folder',
    )
    parser.add_argument(
        '--set',
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='change a setting of the file, such as data.fold=1; may be repeated',
    )
    args = parser.parse_args()
    try:
        settings = load_settings(args.config, args.set, init_from=args.init_from)
        train(settings, args.output or Path('runs/train') / settings.name, args.resume)
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
