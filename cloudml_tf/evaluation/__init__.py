"""Scores, baselines, oracle, comparison, uncertainty: NumPy over one set of sums."""
