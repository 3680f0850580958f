"""Grids of trainings over settings and seeds."""
