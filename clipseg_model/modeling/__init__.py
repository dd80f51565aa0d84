"""The networks: CLIPSeg, its baselines, and the towers they stand on."""
