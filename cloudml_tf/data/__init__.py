"""Flights: from instrument files to sequences that are split and scaled. NumPy and h5py, no Keras."""
