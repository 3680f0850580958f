"""What `check` and `diagnose` look at: data, clocks, gains, trainings that failed."""
