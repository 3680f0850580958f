"""From files to samples: readers, splits, scaling, augmentation, simulated flights. No Keras here."""
