"""Inner parts of networks, losses and metrics. Keras and NumPy only."""
