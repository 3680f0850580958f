"""The findings of `diagnose`: why a run failed, with evidence and a remedy."""
