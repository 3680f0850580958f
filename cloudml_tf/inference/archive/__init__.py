"""Prediction of many flights by several workers, each flight once."""
