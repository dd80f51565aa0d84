"""What a frame of a video takes from the frames before it."""
