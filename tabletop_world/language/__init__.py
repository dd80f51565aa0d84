"""Phrases about what is in view, and what they are true of."""
