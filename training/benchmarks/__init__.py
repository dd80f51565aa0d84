"""Benchmarks of models and of the node."""
