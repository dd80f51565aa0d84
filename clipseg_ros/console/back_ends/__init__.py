"""What the console shows, and of whom: a running node, or a model in this process."""
