"""Train the models of the papers, on any data set: the recipe of CLIPSeg's supplement.

    python -m training.train training/configs/clipseg_pc_plus.yaml
    python -m training.train training/configs/clsclip.yaml --set data.fold=1
    python -m training.train training/configs/own.yaml --init-from clipseg-rd64-refined
    torchrun --nproc_per_node 8 -m training.train training/configs/clipseg_pc_plus.yaml

The decoder is trained and the towers are frozen: AdamW, binary cross-entropy, a cosine. A run
writes a folder: settings, git commit and environment, ``log.jsonl``, TensorBoard's events,
``last.pt`` from which ``--resume`` goes on, ``best.pt``, and at its end ``model.safetensors``,
which :func:`clipseg_model.create_model` reads. SIGTERM makes it write ``last.pt`` and stop.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts
from tqdm import tqdm

from clipseg_model.errors import ClipsegError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.weights.checkpoints import save_checkpoint
from training.console import write_figures
from training.datasets.sources import open_source, tell_left_out
from training.loop.activations import CachedActivations
from training.loop.feeding import Drawn, DrawnPictures, Load, Order, feed
from training.loop.learner import Learner, begin_model, follow_card, ground_name
from training.loop.log import Log
from training.loop.processes import begin_accelerator
from training.loop.run_folder import (
    RunError,
    RunFolder,
    environment,
    frozen_fingerprint,
    git_commit,
)
from training.loop.run_state import Run, load_state, put
from training.loop.settings import Settings, load_settings
from training.loop.stopping import EXIT_CODE, RunStopped, StopRequest
from training.loop.streaming import Shards, ShardStream, feed_stream
from training.loop.validation import Measured, Validator, better

#: Share of the picture above which the user is told what to do about answers to absent things.
ABSENT_AREA = 0.01


def train(settings: Settings, output: Path, resume: bool = False, moved: bool = False) -> Path:
    """Run, or go on with, a training, and return the checkpoint that came out.

    Args:
        settings: What to train, on what, and how.
        output: Folder of the run.
        resume: Go on from ``last.pt`` there, if there is one yet.
        moved: On resume, data and weights may lie elsewhere than they did.

    Raises:
        RunStopped: It was asked to stop by SIGTERM, and can go on from ``last.pt``.
        RunError: The folder holds another run or is in use, the loss is not finite, or the disk
            refuses.
        ClipsegError: Data, weights or settings are not usable.
    """
    accelerator = begin_accelerator(settings.mixed_precision)
    folder = RunFolder(output)
    claim = folder.claimed() if accelerator.is_main_process else contextlib.nullcontext()
    with claim, StopRequest().heard() as asked:
        return _train(settings, folder, accelerator, asked, resume, moved)


def _train(
    settings: Settings,
    folder: RunFolder,
    accelerator: Accelerator,
    asked: StopRequest,
    resume: bool,
    moved: bool,
) -> Path:
    settings = follow_card(settings)
    state = load_state(folder, settings, resume, moved)
    torch.manual_seed(settings.seed)
    model, card = begin_model(settings)
    learner = Learner(model)
    frozen = frozen_fingerprint(model)
    drawn, samples = open_data(settings, model, frozen)
    order = Order(
        samples,
        settings.seed,
        settings.batch_size,
        settings.accumulate,
        accelerator.process_index,
        accelerator.num_processes,
    )
    validator = open_validator(settings, order.part)
    if accelerator.is_main_process:
        if isinstance(drawn, DrawnPictures):
            tell_left_out(drawn.source)
        if validator is not None:
            tell_left_out(validator.source, 'records of validation')
    optimizer = torch.optim.AdamW(
        learner.trained().values(), lr=settings.schedule.rate, weight_decay=settings.weight_decay
    )
    # A fall over the whole run is a single cycle.
    schedule = CosineAnnealingWarmRestarts(
        optimizer, settings.cycle(samples), eta_min=settings.schedule.final_rate
    )
    module, optimizer = accelerator.prepare(learner, optimizer)
    run = Run(settings, folder, accelerator, learner, optimizer, samples, frozen, asked=asked)
    if state is not None:
        run.restore(state)
    elif isinstance(drawn, DrawnPictures):
        run.skipped.update(drawn.source.problems.opening)
    length = settings.length(samples)
    with Log(run, length) as log:
        accelerator.wait_for_everyone()
        learner.train()
        if run.unmeasured and validator is not None:
            measure(run, validator, log)
        for parts in open_loads(drawn, order, run.step, length, settings):
            # Told the step, so that the rate is a function of it and no state.
            schedule.step(run.step)
            loss = step(module, run, parts)
            run.step += 1
            log.add(loss, float(schedule.get_last_lr()[0]))
            last = run.step == length
            if validator is not None and (last or run.step % validator.settings.every == 0):
                measure(run, validator, log)
            if last or run.stopping or run.step % settings.save_every == 0:
                save(run)
            if run.stopping and not last:
                stop(run)
    if accelerator.is_main_process:
        finish(run, card)
    accelerator.wait_for_everyone()
    return folder.model


def open_data(
    settings: Settings, model: SegmentationModel, frozen: str
) -> tuple[Drawn | Shards, int]:
    """Open pictures, shards, or activations of these towers, and count the samples."""
    if settings.activations is not None:
        where = settings.activations
        cached = Shards.at(where) if settings.stream else CachedActivations(Path(where))
        cached.check(settings, model.config(), frozen)
        return cached, cached.samples
    if settings.shards is not None:
        packed = Shards.at(settings.shards, settings.prompts)
        packed.check(settings, model.config(), frozen)
        return packed, packed.samples
    source = open_source(settings.data)
    return DrawnPictures(source, settings.prompts, settings.drawn_by), len(source)


def open_loads(
    drawn: Drawn | Shards, order: Order, start: int, length: int, settings: Settings
) -> Iterator[list[Load]]:
    """Begin to load what the steps of this process train on, from one of them on."""
    pin = torch.cuda.is_available()
    if not isinstance(drawn, Shards):
        return feed(drawn, order, start, length, settings.workers, pin)
    stream = ShardStream(drawn, settings.seed, order.part, order.rank, order.processes)
    return feed_stream(stream, start, length, order.accumulate, settings.workers, pin)


def open_validator(settings: Settings, batch: int) -> Validator | None:
    """Open the split that is measured on, if there is one."""
    if settings.validation is None:
        return None
    return Validator(settings.validation, settings.prompts, batch, settings.workers, settings.seed)


def step(module: nn.Module, run: Run, parts: list[Load]) -> Tensor:
    """Learn from one batch, in parts, and return this process's share of the loss, a scalar.

    The loss is the mean over the pixels that count in all parts of all processes; the shares have
    it as their mean.

    Raises:
        RunError: The loss is not finite. The places and keys of the samples are in a file.
    """
    accelerator, settings = run.accelerator, run.settings
    total = torch.zeros((), device=accelerator.device)
    # Parts differ in how many pixels count, so a mean of their means would depend on the division.
    # Gradients of several processes are averaged, hence their number.
    counted = run.agree(sum(int(part.batch.valid.sum()) for part in parts))
    weight = accelerator.num_processes / counted
    for number, load in enumerate(parts):
        run.skipped.update(load.skipped)
        for kind, example in load.examples.items():
            if run.skipped[kind] == load.skipped[kind]:
                tqdm.write(f'skipped, {kind}: {example}', file=sys.stderr)
        last = number == len(parts) - 1
        # Gradients of several processes are averaged once a step.
        with contextlib.nullcontext() if last else accelerator.no_sync(module):
            loss, _ = module(load)
            if not torch.isfinite(loss.detach()):
                raise not_finite(run, load)
            accelerator.backward(loss * weight)
        total += loss.detach() * weight
    if settings.clip_norm is not None:
        accelerator.clip_grad_norm_(run.learner.trained().values(), settings.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return total


def not_finite(run: Run, load: Load) -> RunError:
    """Write down which samples made a loss that is not finite."""
    path = run.folder.path / f'non_finite_{run.step:06d}_{run.accelerator.process_index}.json'
    samples = [
        {'key': key, 'epoch': epoch, 'index': index, 'text': text}
        for key, (epoch, index), text in zip(
            load.batch.keys, load.places, load.batch.texts, strict=True
        )
    ]
    write_figures(path, {'iteration': run.step, 'samples': samples})
    shown = ', '.join(load.batch.keys[:5]) + (' …' if len(samples) > 5 else '')
    return RunError(
        f'the loss is not finite at iteration {run.step}, on the samples {shown} (all of them, '
        f'with their epochs: {path}). {run.folder.last.name} is of before. Look at these samples; '
        'else lower schedule.rate, set clip_norm, or use mixed_precision bf16 or no'
    )


def measure(run: Run, validator: Validator, log: Log) -> None:
    """Validate, unless a process is asked to stop meanwhile: then write a checkpoint and stop."""
    run.unmeasured = True
    # Asked during the step: there may be no time for a validation.
    measured = None
    if not run.stopping:
        measured = validator.validate(
            run.learner, run.accelerator, run.settings.pictures, run.asked
        )
    if measured is None:
        save(run)
        stop(run)
    run.unmeasured = False
    keep(run, measured, log)


def save(run: Run) -> None:
    """Write the checkpoint that a resumed run goes on from, in the main process."""
    if run.accelerator.is_main_process:
        run.folder.save(run.folder.last, run.snapshot())


def stop(run: Run) -> NoReturn:
    """End the run as it was asked to, with a checkpoint on disk; raises RunStopped."""
    run.accelerator.wait_for_everyone()
    raise RunStopped(
        f'asked to stop: {run.folder.last} is of iteration {run.step}; go on with --resume'
    )


def keep(run: Run, measured: Measured, log: Log) -> None:
    """Write a validation down, and the weights if it is the best so far."""
    assert run.settings.validation is not None
    is_best, score = better(measured, run.best, run.settings.validation.best_by)
    log.add_validation(measured, is_best)
    if not is_best:
        return
    run.best = score
    if run.accelerator.is_main_process:
        best = {'step': run.step, 'trained': run.weights(), 'measured': measured.scalars()}
        run.folder.save(run.folder.best, best)


def finish(run: Run, card: ModelCard | None) -> None:
    """Write the model that came out, the best by validation if there was one, and its card."""
    folder, settings, learner = run.folder, run.settings, run.learner
    prompts = settings.prompts
    details: dict[str, Any] = {
        'run': settings.model_dump(mode='json'),
        'commit': git_commit(),
        'environment': environment(),
        'iterations': run.step,
        'samples': run.samples,
    }
    fields: dict[str, Any] = {
        'name': settings.name,
        'input_size': prompts.size,
        'resize': 'square' if prompts.fit == 'squeeze' else 'aspect',
        'prompt_ground': ground_name(prompts, tuple(learner.model.backbone.mean)),
        'visual_method': prompts.method,
        'licence': settings.licence,
        'source': 'trained by you',
        'description': f'{learner.model.config()["architecture"]} trained on '
        f'{settings.data["dataset"]}.',
        'details': details,
    }
    if card is not None:
        fields['template'] = card.template
        details['init_from'] = {'name': card.name, 'licence': card.licence, 'source': card.source}
    if run.best is not None:
        best = folder.load(folder.best)
        put(best['trained'], learner.trained())
        details['best'] = {'iteration': best['step'], **best['measured']}
        warn_of_absent(best['measured'].get('absent_area', 0.0), folder)
        fields['threshold'] = best['measured']['threshold']
        assert settings.validation is not None
        split = settings.validation.data
        named = filter(None, [split['dataset'], split.get('split') or split.get('folder')])
        details['calibrated_on'] = f'{" ".join(map(str, named))}, squares of {prompts.size} px'
    if run.skipped:
        details['skipped'] = dict(run.skipped)
        counts = ', '.join(f'{count} {kind}' for kind, count in sorted(run.skipped.items()))
        print(f'broken records that were skipped: {counts}', file=sys.stderr)
    save_checkpoint(folder.model, learner.model, fields)
    print(f'{folder.model}: use it with clipseg segment --model {folder.model}')


def warn_of_absent(area: float, folder: RunFolder) -> None:
    """Say what helps where prompts for absent things are answered with much of the picture."""
    if area > ABSENT_AREA:
        print(
            f'prompts for things that are absent light up {area:.1%} of the picture: '
            f'python -m training.export {folder.path} OUTPUT --calibrate --empty 0.9 adds a '
            'threshold of presence, with which nine of ten of them light up nothing',
            file=sys.stderr,
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='YAML file of the run; see training/configs/')
    parser.add_argument('--output', type=Path, help='folder of the run (default: runs/train/NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint')
    parser.add_argument(
        '--moved',
        action='store_true',
        help='with --resume: the same data and weights lie at other paths now',
    )
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
    if args.moved and not args.resume:
        parser.error('--moved belongs to --resume: give both')
    try:
        settings = load_settings(args.config, args.set, init_from=args.init_from)
        output = args.output or Path('runs/train') / settings.name
        train(settings, output, args.resume, args.moved)
    except RunStopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(EXIT_CODE) from stopped
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
