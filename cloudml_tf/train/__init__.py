"""Training: batches, network, fit, callbacks, checkpoints, pretraining, several devices."""
