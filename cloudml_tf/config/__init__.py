"""The configuration: every number of a run as a typed field, and the run folder that keeps it."""
