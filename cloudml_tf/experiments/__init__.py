"""Whole trainings: one run, cross-validation, grids and searches."""
