"""From depth images and camera calibration to points and positions in space."""
