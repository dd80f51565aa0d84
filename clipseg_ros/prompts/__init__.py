"""How prompts reach the node ``segment``, are kept, and are announced."""
