"""Datasets, one file each, each reading its publisher's own format."""
