"""Simulated flights with known truth: clouds, radiance, camera, lidar, files."""
