"""The demo: a simulated camera, the node, prompts, and a check of the masks."""
