"""The process of a node: its start, what it was told, its run to a clean end, what it leaves."""
