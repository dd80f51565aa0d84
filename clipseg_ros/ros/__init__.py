"""What any ROS node of this package needs."""
