"""Look closely at parts of an image, for things too small at the model's input size."""
