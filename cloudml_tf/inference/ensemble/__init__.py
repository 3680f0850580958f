"""Several runs as one model with its uncertainty."""
