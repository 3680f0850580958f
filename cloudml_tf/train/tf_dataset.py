"""Feed batches into a Keras model, without a delay at each end."""

import weakref
from typing import Any

import keras
import numpy as np

AHEAD = 6  # batches that are prefetched: with two, one step in three waits where training keeps every core busy


def as_dataset(batches: keras.utils.PyDataset) -> Any:
    """The same batches in the same order, as input of a Keras model.

    On TensorFlow, Keras would wrap them in a `tf.data` pipeline that tunes itself, and whose tuner takes up to a second
    to end: at every epoch, every validation and every prediction. There is nothing to tune here, so this is the same
    pipeline without a tuner. The other backends get the batches unchanged.

    Args:
        batches: of a known length. The first axis of every array may differ from batch to batch, the others not. A
            batch depends on its number alone, so that its `workers`, the threads that draw, change nothing else.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    signature = _signature(batches[0])
    flat = tf.nest.flatten(signature)
    # The default graph keeps the drawing function, often as long as the process: it must not keep the data too.
    source: Any = weakref.ref(batches)

    def draw(number: Any) -> Any:
        drawn = tf.numpy_function(lambda n: tf.nest.flatten(source()[int(n)]), [number], [x.dtype for x in flat])
        for tensor, known in zip(drawn, flat, strict=True):
            tensor.set_shape(known.shape)
        return tf.nest.pack_sequence_as(signature, drawn)

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_warm_start = True
    several = {"num_parallel_calls": batches.workers, "deterministic": True} if batches.workers > 1 else {}
    fed = tf.data.Dataset.range(len(batches)).map(draw, **several).prefetch(AHEAD).with_options(options)
    fed.batches = batches  # the drawing thread keeps `fed` alive
    return fed


def fit_batches(
    model: keras.Model, batches: Any, validation: Any, epochs: int, first_epoch: int, callbacks: list[Any]
) -> None:
    """Train with `model.fit`, which draws the batches as `as_dataset` does and prints nothing."""
    model.fit(
        as_dataset(batches),
        validation_data=as_dataset(validation),
        epochs=epochs,
        initial_epoch=first_epoch,
        callbacks=callbacks,
        shuffle=False,  # Keras would shuffle the batches once more, in an order that no checkpoint knows
        verbose=0,
    )


def _signature(batch: Any) -> Any:
    """The shapes and types of a batch's arrays, for a first axis of any length."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), batch)


def predict_batches(model: keras.Model, batches: keras.utils.PyDataset) -> np.ndarray:
    """Predict all batches, (n,...).

    Like `model.predict`, but without setting up a pipeline for each call: a fifth of the time for a thousand small
    frames.
    """
    if keras.backend.backend() == "tensorflow":
        # Traced once for any length of a batch. A call would trace for the length of the first batch, and again for
        # the next length; and TensorFlow, which counts the calls of all models as those of one, would warn of it.
        model.make_predict_function()
        model.predict_function.get_concrete_function([(_signature(batches[0][0]),)])
    return np.concatenate([model.predict_on_batch(batches[number][0]) for number in range(len(batches))])
