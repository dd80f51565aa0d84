"""What a training run is made of: settings, feeding, the learner, its folder and its state."""
