"""Benchmarks: speed of models, of their growth, of the node, and the tables of the papers.

python -m training.benchmark                 the bundled model, 4 prompts, 640 × 480
python -m training.benchmark --table clipseg/3     a paper's table, beside the published numbers
python -m training.benchmark --table list
python -m training.benchmark speed --help
python -m training.benchmark growth --help
python -m training.benchmark node --help
"""

from __future__ import annotations

import argparse
import importlib
import sys

from training.benchmarks import growth as benchmark_growth
from training.benchmarks import speed as benchmark_speed


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; without a subcommand, ``speed``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ['node']:
        # It starts processes with ROS: imported where it is wanted only.
        importlib.import_module('training.benchmarks.node').main(words[1:])
        return
    if words[:1] == ['table'] or any(word.split('=')[0] == '--table' for word in words):
        # It needs the packages for training.
        table = importlib.import_module('training.papers.table')
        table.main(words[1:] if words[:1] == ['table'] else words)
        return
    if words[:1] == ['growth']:
        benchmark_growth.main(words[1:])
        return
    if words[:1] == ['speed']:
        words = words[1:]
    parser = argparse.ArgumentParser(
        prog='python -m training.benchmark [speed|growth|node|table]',
        description=benchmark_speed.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    benchmark_speed.add_arguments(parser)
    benchmark_speed.run(parser.parse_args(words))


if __name__ == '__main__':
    main()
