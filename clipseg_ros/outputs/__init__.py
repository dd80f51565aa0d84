"""The messages that the node ``segment`` publishes, and its services for masks."""
