"""PhraseCut's files: their records, checked, and an index of them that processes share."""
