"""Stand-ins for publishers' servers: pages can be followed word for word without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from phrasecut_files import COUNTS, write_phrasecut

#: Stands for git, pip and wget: each leaves what the publisher's servers would send.
SENDER = """#!{python}
import shutil, sys
from pathlib import Path
name, words = Path(sys.argv[0]).name, sys.argv[1:]
sent = Path({sent!r})
if name == 'git':
    assert words[:2] == ['clone', 'https://github.com/ChenyunWu/PhraseCutDataset'], words
    shutil.copytree(sent / 'PhraseCutDataset', words[2] if len(words) > 2 else 'PhraseCutDataset')
elif name == 'pip':
    assert words == ['install', 'gdown', 'requests'], words
else:
    for word in words:
        shutil.copy(sent / word.rsplit('/', 1)[1], '.')
"""
#: As the publisher's, it fills data/VGPhraseCut_v0 beside itself, wherever it is started.
DOWNLOADER = """
import shutil
from pathlib import Path
folder = Path(__file__).resolve().parent / 'data/VGPhraseCut_v0'
folder.mkdir(parents=True, exist_ok=True)
shutil.copytree({files!r}, folder, dirs_exist_ok=True)
(folder / 'image_data_split3000.json').rename(folder / 'image_data_split.json')
"""


def put_tools(sent: Path) -> Path:
    """Write the stand-ins, which send what is in a folder, and return where they are."""
    tools = sent / 'bin'
    tools.mkdir()
    for name in ('git', 'pip', 'wget'):
        (tools / name).write_text(SENDER.format(python=sys.executable, sent=str(sent)))
        (tools / name).chmod(0o755)
    # A link would not find the packages of a virtual environment.
    (tools / 'python').write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / 'python').chmod(0o755)
    return tools


def offer_phrasecut(sent: Path) -> None:
    """Offer the repository of PhraseCut, whose downloader brings a miniature."""
    files = write_phrasecut(sent)
    (files / 'name_att_rel_count.json').write_text(json.dumps(COUNTS))
    (sent / 'PhraseCutDataset').mkdir()
    script = DOWNLOADER.format(files=str(files))
    (sent / 'PhraseCutDataset/download_dataset.py').write_text(script)
