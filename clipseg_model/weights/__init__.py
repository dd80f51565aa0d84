"""Weights on disk and on the Hugging Face hub, and the published formats they come in."""
