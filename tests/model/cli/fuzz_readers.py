"""Reads damaged files, in a process of its own with bounds on memory and time.

``python fuzz_readers.py KIND SAMPLES SCRATCH SEED COUNT`` mutates the samples of a folder and reads
each. Success and an error of ours are the only outcomes with exit status 0; a signal ends the
process where a file takes too long or crashes a decoder. The last line that was printed tells of
the file, which is left in the scratch folder, and at the end how many were read and refused.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from clipseg_model.cli.file_runner import find_files
from clipseg_model.cli.video_files import OverlayWriter, Video, count_frames
from clipseg_model.errors import ClipsegError
from clipseg_model.images import check_image, read_image, read_mask
from clipseg_model.weights.checkpoints import load_card

MEMORY = 3 << 30
SECONDS = 20
FRAMES = 40


def mutate(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """Damage a file as disks, transfers and ill will do; headers more often than the rest."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        reach = len(data) if dice.random() < 0.5 else min(len(data), 400)
        place = dice.randrange(max(1, reach))
        length = dice.choice((1, 2, 4, 8, 64, max(1, len(data) // 5)))
        match dice.randrange(8):
            case 0:
                data[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                size = dice.choice((1, 2, 4, 8))
                value = dice.choice((0, 1, -1, 0x7F, 0x7FFF, 0x7FFFFFFF, 0x7FFFFFFFFFFFFFFF))
                value &= (1 << 8 * size) - 1
                data[place : place + size] = value.to_bytes(size, dice.choice(('big', 'little')))
            case 2:
                del data[place:]
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[place : place + length]
            case 5:
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 6:
                other = dice.choice(others)
                start = dice.randrange(len(other))
                data[place : place + length] = other[start : start + length]
            case 7:
                data[place : place + length] = dice.randbytes(length)
    return bytes(data)


def read_picture(path: Path, scratch: Path) -> None:
    find_files([path])
    image = read_image(path)
    check_image(image)
    read_mask(path)


def read_video(path: Path, scratch: Path) -> None:
    count_frames(path)
    with closing(Video(path)) as video:
        target = scratch / 'out' / 'overlay.mp4'
        last, found = -1.0, 0
        with closing(OverlayWriter(target, video.rate, video.regular)) as overlay:
            for seconds, frame in video.frames():
                assert seconds > last, 'times grow'
                last, found = seconds, found + 1
                overlay.write(seconds, frame)
                if found == FRAMES:  # A damaged header may make endless ones.
                    break
        target.unlink(missing_ok=True)


def read_manifest(path: Path, scratch: Path) -> None:
    from clipseg_model.runtime.export_files import read_variant

    manifest = path.replace(scratch / 'variant' / 'manifest.json')
    read_variant(manifest.parent, 'a' * 64, {'torch': '2'})


def read_card(path: Path, scratch: Path) -> None:
    load_card(path)


KINDS: dict[str, Callable[[Path, Path], None]] = {
    'pictures': read_picture,
    'videos': read_video,
    'manifests': read_manifest,
    'cards': read_card,
}


def main(kind: str, samples: Path, scratch: Path, seed: int, count: int) -> None:
    files = sorted(path for path in samples.iterdir() if path.is_file())
    contents = [path.read_bytes() for path in files]
    for folder in ('out', 'variant'):
        (scratch / folder).mkdir(exist_ok=True)
    # What libraries reserve before the first file is not counted.
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = MEMORY + pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    dice = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        chosen = number % len(files)
        path = scratch / f'{number}{files[chosen].suffix}'
        path.write_bytes(mutate(contents[chosen], contents, dice))
        print(path.name, flush=True)
        signal.alarm(SECONDS)
        try:
            KINDS[kind](path, scratch)
        except ClipsegError as error:
            outcomes['refused' if len(str(error)) > 20 else 'refused without a reason'] += 1
        else:
            outcomes['read'] += 1
        signal.alarm(0)
        path.unlink(missing_ok=True)
    # Not ru_maxrss, which begins with that of the process that started this one.
    status = Path('/proc/self/status').read_text()
    peak = int(status.partition('VmHWM:')[2].split()[0])
    print(json.dumps({**outcomes, 'peak_kb': peak}))


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
