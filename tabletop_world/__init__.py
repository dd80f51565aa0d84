"""A procedural household world rendered with MuJoCo, with exact truth for every pixel."""
