"""The findings of `check`: data, split, baselines, ceiling, and a probe of the network."""
