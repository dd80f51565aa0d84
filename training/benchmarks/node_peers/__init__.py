"""The processes that the benchmark of the node starts."""
