"""Trained models in use: prediction of flights, exports, ensembles, archives."""
