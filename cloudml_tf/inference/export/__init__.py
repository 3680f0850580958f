"""Exports: SavedModel, ONNX, LiteRT, their comparison with Keras, and the model card."""
