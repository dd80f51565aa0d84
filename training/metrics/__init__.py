"""Metrics of the papers, and how their sums are kept."""
