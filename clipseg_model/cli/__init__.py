"""The command ``clipseg``."""
