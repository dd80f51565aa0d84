"""Offline scripts: data, training, evaluation, benchmarks and export. Run from the checkout."""
