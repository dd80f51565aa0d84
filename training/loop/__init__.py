"""Parts of a training run: settings, feeding, the learner, its folder and its state."""
