"""Turn words and example pictures into the vectors that a decoder is conditioned on."""
