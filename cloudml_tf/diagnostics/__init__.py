"""Checks before a training and diagnoses after it: data, clocks, gains, failed trainings."""
