"""The original's third recipe in plain Keras: nothing here is ours but the arrays.

A convolutional encoder for each of seven frames, attention over them, one output of N(0, 0.1); Huber loss, AdamW with
weight decay 0.04 and a long warm-up, dropout 0.25 and 0.5, batches of 20, at most 50 epochs, stopped on validation
loss. What the document leaves open (widths, learning rate) is as in the product.
"""

import keras
from keras import layers


def encoder(frame_shape: tuple[int, int, int], dropout: float) -> keras.Model:
    """A frame (H,W,C) to a vector (64)."""
    frame = keras.Input(frame_shape)
    x = frame
    for width in (16, 24, 32):
        x = layers.MaxPooling2D()(layers.Conv2D(width, 3, padding="same", activation="relu")(x))
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(frame, layers.Dense(64, activation="relu")(x))


def network(frame_shape: tuple[int, int, int], frames: int = 7) -> keras.Model:
    """Standardised sequences (B,T,H,W,C) and sun vectors (B,T,4) to (B,1)."""
    sequence, sun = keras.Input((frames, *frame_shape)), keras.Input((frames, 4))
    x = layers.TimeDistributed(encoder(frame_shape, 0.25))(sequence)
    x = layers.Dense(64, activation="relu")(layers.Concatenate()([x, sun]))
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(4, 16, dropout=0.25)(x, x)]))
    x = layers.Dense(64, activation="relu")(layers.GlobalAveragePooling1D()(x))
    x = layers.Dropout(0.5)(x)
    kernel = keras.initializers.RandomNormal(stddev=0.1)
    return keras.Model([sequence, sun], layers.Dense(1, kernel_initializer=kernel)(x))


def compiled(model: keras.Model, rate: float = 0.002, warmup: int = 2000) -> keras.Model:
    """With the recipe's loss and optimizer."""
    warming = keras.optimizers.schedules.PolynomialDecay(0.0, warmup, rate)
    model.compile(optimizer=keras.optimizers.AdamW(warming, weight_decay=0.04), loss=keras.losses.Huber())
    return model
