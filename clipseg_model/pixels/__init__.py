"""From images to what a model takes: resizing and normalisation, on numpy."""
