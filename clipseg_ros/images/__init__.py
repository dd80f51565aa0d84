"""ROS image messages as numpy arrays, and back."""
