"""The tables of the papers: published figures, and the same measured here."""
