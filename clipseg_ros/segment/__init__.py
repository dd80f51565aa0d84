"""The node ``segment``: from a camera image to its outputs."""
