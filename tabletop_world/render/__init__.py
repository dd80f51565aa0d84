"""Pictures of scenes with exact truth for every pixel."""
