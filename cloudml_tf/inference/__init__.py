"""Finished models at work: prediction of flights, exports, ensembles, archives."""
