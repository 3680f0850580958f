"""What `export` writes and reads: formats, conversion, comparison with Keras, the model card."""
