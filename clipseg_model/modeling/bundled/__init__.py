"""The towers of the bundled models: small, and made to run on a CPU."""
