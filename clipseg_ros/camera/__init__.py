"""Where the node ``camera`` gets its pictures."""
