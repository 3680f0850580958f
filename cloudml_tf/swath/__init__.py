"""A value for every pixel of a scene: preparing, training, judging, exporting and predicting."""
