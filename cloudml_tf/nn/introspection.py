"""Look inside a regressor: its sub-models, its weights, and what its attention looks at.

regressor ─ [MirrorAverage] ─ core ─┬─ frame model ─ frame encoder
                                    └─ [AlongTrack] ─ sequence model
"""

from typing import Any

import keras

from cloudml_tf.nn.layers import FoldedTime, MirrorAverage
from cloudml_tf.nn.nadir import AlongTrack


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy one regressor's weights to another that differs in its offsets, or shares frames. Raises `ValueError`.

    The vectors of locations beside nadir are not copied.
    """
    given, own = (
        {w.path: w for w in model.weights if "seed_generator" not in w.path and not w.path.endswith("/places")}
        for model in (source, target)
    )
    if given.keys() != own.keys():
        raise ValueError(f"regressors differ in {sorted(given.keys() ^ own.keys())}")
    for path, weight in own.items():
        weight.assign(given[path])


def reads_sequences(model: keras.Model) -> bool:
    """Whether it is a regressor of sequences, with a frame model; not a network of scenes."""
    return any(layer.name == "frame_model" for layer in core_of(model).layers)


def copy_trainable(source: keras.Model, target: keras.Model) -> None:
    """Freeze the frame encoder of a regressor where that of another is frozen; other networks have none."""
    if reads_sequences(source):
        frame_encoder_of(target).trainable = frame_encoder_of(source).trainable


def mirror_average(model: keras.Model) -> MirrorAverage | None:
    """The layer that averages over mirror images, if a regressor has one."""
    return next((layer for layer in model.layers if isinstance(layer, MirrorAverage)), None)


def core_of(model: keras.Model) -> keras.Model:
    """The regressor itself, without the average over mirror images."""
    wrapped = mirror_average(model)
    return model if wrapped is None else wrapped.layer


def frame_model_of(model: keras.Model) -> keras.Model:
    """The frame model inside a regressor."""
    return core_of(model).get_layer("frame_model")


def sequence_model_of(model: keras.Model) -> keras.Model:
    """The sequence model inside a regressor."""
    last = last_of(core_of(model))
    return last.layer if isinstance(last, AlongTrack) else last


def last_of(core: keras.Model) -> keras.layers.Layer:
    """The layer after the frame model: the sequence model, or its `AlongTrack` wrapper."""
    return next(layer for layer in core.layers if layer.name in ("sequence_model", "along_track"))


def frame_encoder_of(model: keras.Model) -> keras.Model:
    """The frame encoder (H,W,C') -> (D) inside a regressor: what pretraining trains.

    Of a network of heights it is that of image content, which reads the strip around nadir.
    """
    content = _content_encoder(model)
    return frame_model_of(model).get_layer("encode_frames").layer if content is None else content


def frame_vectors_of(model: keras.Model) -> keras.Model:
    """From a regressor's inputs to the frame encoder's vector of each frame, (n,T,D)."""
    frame_model, content = frame_model_of(model), _content_encoder(model)
    if content is None:
        return keras.Model(frame_model.inputs, frame_model.get_layer("encode_frames").output)
    strip = frame_model.get_layer("level_strip").output
    return keras.Model(frame_model.inputs, FoldedTime(content, name="encode_content")(strip))


def _content_encoder(model: keras.Model) -> keras.Model | None:
    """The frame encoder inside the sequence model of a network of heights; other networks have none there."""
    return next((layer for layer in sequence_model_of(model).layers if layer.name == "frame_encoder"), None)


def attention_weights(model: keras.Model, inputs: dict[str, Any]) -> Any:
    """How much of each frame the attention mixes into the middle one, (n,T), rows sum to 1; None without attention.

    This is the middle frame's row of the attention, averaged over heads and, under `MirrorAverage`, over both images.
    The prediction also uses the mean over all frames, which these weights do not show.
    """
    wrapped = mirror_average(model)
    frame_model, sequence_model = frame_model_of(model), sequence_model_of(model)
    attention = next((layer for layer in sequence_model.layers if layer.name == "attention"), None)  # over time
    if attention is None:
        return None
    attended = keras.Model(sequence_model.inputs, attention.input[0])
    inputs = {name: keras.ops.convert_to_tensor(values) for name, values in inputs.items()}  # Keras mixes no arrays
    images = [inputs] if wrapped is None else [inputs, wrapped.mirrored(inputs)]
    total = 0.0
    for image in images:
        x = attended(frame_model(image, training=False), training=False)
        scores = attention(x, x, return_attention_scores=True, training=False)[1]  # (n,heads,T,T)
        middle = keras.ops.cast(scores[:, :, scores.shape[2] // 2], "float32")  # (n,heads,T)
        total += keras.ops.convert_to_numpy(keras.ops.mean(middle, axis=1))
    return total / len(images)
