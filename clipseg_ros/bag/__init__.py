"""Segment ROS 2 bags without ROS."""
