"""Measure a model on any data set, and single properties of it."""
