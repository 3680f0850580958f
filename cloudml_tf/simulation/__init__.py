"""A simulator of flights with known truth: clouds, light, camera, lidar, files."""
