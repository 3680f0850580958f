"""Masked reconstruction: the frame encoder learns from frames without a label.

    frames (B,T,H,W,C) ─ chosen frames ─ Standardize ─ patches hidden ─ LocalContrast ─ encoder's maps ─ decoder
                                              ├──────── loss on the hidden patches only ───────────────────┘
                                              └─ LocalContrast ─ encoder's vector ─ painter ─ the window around nadir

Hidden patches teach the maps what clouds look like. They teach the vector little, and the lidar's pixel is hidden more
often than not; so the vector has a task of its own: to encode, from a whole frame, what lies around nadir.

The encoder is that of the regressor (`introspection.frame_encoder_of`), so a transfer is a copy of its weights. The
decoder and the painter are discarded. Everything is plain arguments and `keras.ops`: `compile("adam")`, then
`fit(frames)`.

Masked image modelling: He et al. 2022 (arXiv 2111.06377); with convolutions: Xie et al. 2022 (arXiv 2111.09886).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from cloudml_tf.nn.arguments import number, whole, with_plain_numbers
from cloudml_tf.nn.backend import replica_count
from cloudml_tf.nn.nan_guard import NotFinite
from cloudml_tf.nn.saved import register

Frames = Literal["all", "middle", "random", "first"]
WINDOW = "nadir_window"  # the encoder's layer that cuts the pixels around nadir out of a frame
# Nothing else limits the vector's size: a painter reads large numbers as well as small ones, but a regressor's head
# is initialised for numbers near one.
VECTOR_PENALTY = 0.01
REMEDY = "Lower the learning rate, clip the gradient's norm, or look for NaN and extreme values in the frames."


def patch_mask(count: int, height: int, width: int, patch: int, ratio: float, seed: Any) -> Any:
    """A random mask (count, H, W, 1): 1 where a pixel is hidden, in the same number of `patch` x `patch` squares a
    frame.

    `seed` is an integer (the same mask at each call) or a `keras.random.SeedGenerator`. Where `patch` does not divide a
    side, the last squares are cut.
    """
    rows, columns = -(-height // patch), -(-width // patch)
    if rows * columns < 2:
        raise ValueError(f"a frame of {height} x {width} has one square of {patch} pixels; at least two are needed")
    hidden = min(max(round(ratio * rows * columns), 1), rows * columns - 1)
    noise = keras.random.uniform((count, rows * columns), seed=seed)
    rank = ops.argsort(ops.argsort(noise, axis=1), axis=1)
    squares = ops.reshape(ops.cast(rank < hidden, "float32"), (-1, rows, columns, 1))
    pixels = ops.repeat(ops.repeat(squares, patch, axis=1), patch, axis=2)
    return pixels[:, :height, :width]


def masked_error(target: Any, painted: Any, mask: Any) -> Any:
    """Mean squared error over the hidden pixels and channels of (n,H,W,C) frames, mask (n,H,W,1)."""
    return ops.sum(ops.square(painted - target) * mask) / (ops.sum(mask) * target.shape[-1] + 1e-8)


def unexplained(target: Any, painted: Any, weight: Any) -> Any:
    """Share of each channel's variance in a batch (n,H,W,C) that the painter misses, averaged over channels.

    Contrasts are small beside radiances; as shares of their own variance both count alike. `weight` is (H,W,1).
    """
    weight = ops.convert_to_tensor(weight)
    mean = ops.mean(target, axis=(0, 1, 2), keepdims=True)
    error = ops.sum(weight * ops.square(painted - target), axis=(0, 1, 2))
    return ops.mean(error / (ops.sum(weight * ops.square(target - mean), axis=(0, 1, 2)) + 1e-6))


@dataclass(frozen=True)
class Recipe:
    """How a decoder or a painter was built around an encoder, whose layers it shares.

    Two models that share layers cannot be kept apart from each other in a file: each would come back with layers of its
    own. So a file has the encoder, once, and what was built around it. (A dataclass: Keras looks into lists and
    dictionaries for layers, and would count the encoder's twice.)
    """

    build: Any
    encoder: keras.Model
    options: tuple[tuple[str, int], ...]
    policy: str

    @classmethod
    def of(cls, build: Any, encoder: keras.Model, **options: int) -> "Recipe":
        """The recipe of a model that is being built, under the dtype policy of this moment."""
        return cls(build, encoder, tuple(options.items()), keras.config.dtype_policy().name)

    @staticmethod
    def repeated(build: Any, encoder: keras.Model, options: dict[str, int], policy: str) -> keras.Model:
        """Build it again."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return build(encoder, **options)
        finally:
            keras.config.set_dtype_policy(before)


@with_plain_numbers
def build_decoder(encoder: keras.Model, channels: int, width: int = 32) -> keras.Model:
    """Join the encoder and a new decoder: a frame with hidden patches (H,W,C') -> its reconstruction (H,W,`channels`).

    The encoder's context maps return at their own resolution (Ronneberger et al. 2015) and its nadir convolutions run
    over the whole frame.
    """
    frame = keras.Input(encoder.inputs[0].shape[1:], name="frame")
    names = sorted(layer.name for layer in encoder.layers if layer.name.startswith("context_"))
    found = keras.Model(encoder.inputs[0], [encoder.get_layer(name).output for name in names])(frame)
    maps = found if isinstance(found, list) else [found]
    x = layers.Conv2D(width, 3, padding="same")(maps[-1])
    for finer in [*maps[-2::-1], _fine_maps(encoder, frame)]:
        factors = [-(-wanted // now) for wanted, now in zip(finer.shape[1:3], x.shape[1:3], strict=True)]
        x = layers.UpSampling2D(factors)(layers.Activation("gelu")(x))[:, : finer.shape[1], : finer.shape[2]]
        x = layers.Conv2D(width, 3, padding="same")(layers.Concatenate()([x, finer]))
    x = layers.Conv2D(width, 3, padding="same", activation="gelu")(layers.Activation("gelu")(x))
    made = keras.Model(frame, layers.Conv2D(channels, 1, dtype="float32", name="painted")(x), name="autoencoder")
    made.recipe = Recipe.of(build_decoder, encoder, channels=int(channels), width=int(width))
    return made


def build_painter(encoder: keras.Model) -> keras.Model | None:
    """Map a whole frame (H,W,C') to the encoder's `vector`, the `window` around nadir, and `painted`, the painter's
    reconstruction of that window from the vector alone (h,w,C'). None for an encoder without such a window."""
    if all(layer.name != WINDOW for layer in encoder.layers):
        return None
    window = encoder.get_layer(WINDOW).output
    shape = tuple(window.shape[1:])
    flat = layers.Dense(shape[0] * shape[1] * shape[2], dtype="float32", name="painter")(encoder.output)
    painted = layers.Reshape(shape, dtype="float32")(flat)
    outputs = {"vector": encoder.output, "window": window, "painted": painted}
    made = keras.Model(encoder.inputs[0], outputs, name="window_painter")
    made.recipe = Recipe.of(build_painter, encoder)
    return made


def nadir_weight(rows: int, columns: int, focus: float) -> np.ndarray:
    """A bell (rows,columns,1) of `focus` pixels around the middle pixel, 1 on average."""
    y, x = np.arange(rows) - rows // 2, np.arange(columns) - columns // 2
    bell = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * focus**2))
    return (bell / bell.mean())[..., None].astype("float32")


def _fine_maps(encoder: keras.Model, frame: Any) -> Any:
    """The frame, concatenated with the encoder's full-resolution convolutions where it has them. (B,H,W,·)"""
    near = sorted(layer.name for layer in encoder.layers if layer.name.startswith("near_"))
    if not near:
        return frame
    x = layers.ZeroPadding2D(len(near))(frame)  # valid convolutions of 3: each loses a border of 1
    for name in near:
        x = encoder.get_layer(name)(x)
    return layers.Concatenate()([frame, x])


@register
class MaskedReconstruction(keras.Model):
    """Hides patches of frames and learns to paint them back. It takes frames (B,T,H,W,C) as recorded, without targets.

    A call returns a dictionary: `frame`, `target` (both standardised) and `mask` (1 where hidden), each (B·T',H,W,·)
    with T' the chosen frames of each sequence; with a painter also `vector` (B·T',D), `window` and `painted`
    (B·T',h,w,C'). Outside of training the mask is fixed, and "random" means the middle frame, so that losses can be
    compared.

    Args:
        autoencoder: standardised frames (H,W,C') to their reconstruction (H,W,C); see `build_decoder`.
        painter: whole frames to the window around nadir and its painting, see `build_painter`; None leaves it out.
        scaler: a `Standardize` layer, or None for frames that are standardised already.
        contrast: a `LocalContrast` layer, or None. It sees hidden patches as hidden.
        patch: side of a hidden square, pixels.
        mask_ratio: share of the squares that is hidden, in (0, 1).
        frames: "all" of a sequence; "middle"; "random", one of each sequence; "first", which leaves the others unseen.
        focus: how far from nadir the window counts, pixels (a standard deviation).
        patch_weight: weight of the hidden patches relative to the window.
        seed: seed of the masks.
    """

    def __init__(
        self,
        autoencoder: keras.Model,
        painter: keras.Model | None = None,
        scaler: layers.Layer | None = None,
        contrast: layers.Layer | None = None,
        patch: int = 4,
        mask_ratio: float = 0.6,
        frames: Frames = "all",
        focus: float = 3.0,
        patch_weight: float = 1.0,
        seed: int = 1,
        **kwargs: Any,
    ) -> None:
        if frames not in ("all", "middle", "random", "first"):
            raise ValueError(f"frames must be all, middle, random or first. Received: {frames!r}")
        super().__init__(**kwargs)
        self.autoencoder, self.painter, self.scaler, self.contrast = autoencoder, painter, scaler, contrast
        who, between = type(self).__name__, "in (0, 1)"
        self.patch, self.seed, self.frames = whole(who, "patch", patch, 1), whole(who, "seed", seed, 0), frames
        self.mask_ratio = float(number(who, "mask_ratio", mask_ratio, lambda n: 0 < n < 1, between))
        self.focus = float(number(who, "focus", focus, lambda n: n > 0, "above 0"))
        self.patch_weight = float(number(who, "patch_weight", patch_weight, lambda n: n > 0, "above 0"))
        rows, columns = (1, 1) if painter is None else painter.output["window"].shape[1:3]
        self.weight = nadir_weight(rows, columns, self.focus)
        self.random = keras.random.SeedGenerator(self.seed)

    def call(self, frames: Any, training: bool = False) -> dict[str, Any]:
        """Choose frames, hide patches, reconstruct."""
        x = self._chosen(frames, training)  # (B·T',H,W,C)
        target = ops.cast(x if self.scaler is None else self.scaler(x), "float32")
        height, width = target.shape[1:3]
        seed = self.random if training else self.seed
        mask = patch_mask(ops.shape(target)[0], height, width, self.patch, self.mask_ratio, seed)
        seen = target * (1.0 - mask)  # 0 is the training mean
        found = {"frame": self.autoencoder(self._contrasted(seen), training=training), "target": target, "mask": mask}
        if self.painter is not None:
            around = self.painter(self._contrasted(target), training=training)
            found |= {name: ops.cast(value, "float32") for name, value in around.items()}
        return found

    def _contrasted(self, frames: Any) -> Any:
        """(n,H,W,C) -> (n,H,W,C')."""
        return frames if self.contrast is None else self.contrast(frames[:, None])[:, 0]

    def _chosen(self, frames: Any, training: bool) -> Any:
        """(B,T,H,W,C) -> (B·T',H,W,C)."""
        count = frames.shape[1]
        if self.frames == "first":
            return frames[:, 0]
        if self.frames == "middle" or (self.frames == "random" and not training):
            return frames[:, count // 2]
        if self.frames == "random":
            batch = ops.shape(frames)[0]
            chosen = ops.cast(keras.random.uniform((batch, 1, 1, 1, 1), maxval=count, seed=self.random), "int32")
            steps = ops.reshape(ops.arange(count, dtype="int32"), (1, count, 1, 1, 1))
            return ops.sum(ops.where(steps == chosen, frames, 0.0), axis=1)
        return ops.reshape(frames, (-1, *frames.shape[2:]))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean squared error over hidden pixels, in training standard deviations; with a painter, plus the share of the
        window's variance that it leaves unexplained and a small penalty on the vector's size."""
        loss = self.patch_weight * masked_error(y_pred["target"], y_pred["frame"], y_pred["mask"])
        if self.painter is not None:
            loss += unexplained(y_pred["window"], y_pred["painted"], self.weight)
            loss += VECTOR_PENALTY * ops.mean(ops.square(y_pred["vector"]))
        return loss / replica_count()  # a scalar is summed over replicas, not averaged

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As in every Keras model. Raises `ValueError` where frames are NaN or infinite: the weights would follow them.

        Arrays are looked at first. Where other data make the loss NaN, the training stops, with the weights that it
        had at the start of that epoch.
        """
        check_pixels(x, batch_size or 32)
        validation = kwargs.get("validation_data")
        check_pixels(validation[0] if isinstance(validation, tuple | list) and validation else validation, 0)
        train = partial(super().fit, x, y, batch_size, epochs, verbose, **kwargs)
        given = [] if callbacks is None else callbacks
        if isinstance(given, keras.callbacks.CallbackList) or any(isinstance(one, NotFinite) for one in given):
            return train(callbacks=given)
        if getattr(self, "optimizer", None) is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)  # what the guard repeats must find all variables
        guard = NotFinite(x if isinstance(x, keras.utils.PyDataset) else None, verbose=0, remedy=REMEDY)
        history = train(callbacks=[guard, *given])
        if guard.message:
            raise ValueError(guard.message)
        return history

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild it. Raises `ValueError` for sub-models that share layers in a way of their own."""
        keep = keras.saving.serialize_keras_object
        names = ("patch", "mask_ratio", "frames", "focus", "patch_weight", "seed")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        config |= {"scaler": keep(self.scaler), "contrast": keep(self.contrast)}
        parts = {"autoencoder": self.autoencoder} | ({} if self.painter is None else {"painter": self.painter})
        recipes = [getattr(part, "recipe", None) for part in parts.values()]
        encoders = [recipe.encoder for recipe in recipes if recipe is not None]
        if len(encoders) == len(parts) and all(encoder is encoders[0] for encoder in encoders):
            made = [{"options": dict(recipe.options), "policy": recipe.policy} for recipe in recipes if recipe]
            return {**config, "encoder": keep(encoders[0]), "made": dict(zip(parts, made, strict=True))}
        weights = [{id(weight) for weight in part.weights} for part in parts.values()]
        if len(weights) == 2 and weights[0] & weights[1]:
            raise ValueError(
                "MaskedReconstruction can be kept in a file where its autoencoder and its painter come from "
                "build_decoder and build_painter of one encoder, or share no weights. Received: models that share "
                "weights otherwise. Keep its weights with save_weights."
            )
        return {**config, **{name: keep(part) for name, part in parts.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MaskedReconstruction":
        """Rebuild it; sub-models that shared an encoder share the new one."""
        config = dict(config)
        made, encoder = config.pop("made", None), config.pop("encoder", None)
        for name in ("autoencoder", "painter", "scaler", "contrast"):
            config[name] = keras.saving.deserialize_keras_object(config.get(name), custom_objects)
        if made is not None:
            shared = keras.saving.deserialize_keras_object(encoder, custom_objects)
            builders = {"autoencoder": build_decoder, "painter": build_painter}
            config |= {name: Recipe.repeated(builders[name], shared, **recipe) for name, recipe in made.items()}
        return cls(**config)


def check_pixels(frames: Any, batch_size: int) -> None:
    """Refuse an array of frames with pixels that are NaN or infinite. Raises `ValueError`, which names them.

    With `batch_size` 0 no batch is named. What is no array is let through.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype.kind != "f" or not frames.size:
        return
    bad = np.array([not np.isfinite(sequence).all() for sequence in frames])
    if not bad.any():
        return
    first = np.flatnonzero(bad)
    batch = f" (batch {first[0] // batch_size + 1} in their order)" if batch_size else ""
    lost = int(sum((~np.isfinite(frames[n])).sum() for n in first))
    raise ValueError(
        "MaskedReconstruction needs frames whose pixels are finite. "
        f"Received: {lost:,} of {frames.size:,} values ({lost / frames.size:.2%}) are NaN or infinite, in "
        f"{len(first):,} of {len(frames):,} sequences, the first of them number {first[0]}{batch}. "
        "Leave these sequences out, or fill their pixels."
    )


@dataclass(frozen=True)
class Convergence:
    """Whether a pretraining learned anything, from its validation losses."""

    converged: bool
    best_epoch: int  # 1-based; 0 where no epoch gave a number
    text: str


def convergence(val_loss: Sequence[float], error: float, reference: float, least_fall: float = 0.01) -> Convergence:
    """Check that the validation loss fell by a hundredth from the first epoch to the best, and `error` is under
    `reference`.

    `error` is the error on the hidden patches with the best weights; `reference` that of painting every hidden pixel
    with the mean of the visible ones.
    """
    losses = np.asarray(val_loss, "float64")
    if not np.isfinite(losses).any():
        return Convergence(False, 0, "diverged: no epoch has a finite validation loss")
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    first, lowest = losses[0], losses[best]
    fall = f"validation loss {first:.4f} in epoch 1, {lowest:.4f} in epoch {best + 1}"
    if np.isfinite(first) and lowest > (1.0 - least_fall) * first:
        return Convergence(False, best + 1, f"did not converge: the validation loss did not fall ({fall})")
    if not error < reference:
        text = f"did not converge: error {error:.4f}, no better than the mean of what is visible, {reference:.4f}"
        return Convergence(False, best + 1, text)
    return Convergence(True, best + 1, f"converged: {fall}")


def hand_over(weights: Sequence[np.ndarray], encoder: keras.Model) -> int:
    """Transfer a pretrained encoder's weights to another of the same build; return how many tensors changed.

    Raises `ValueError` where number or shapes differ, a weight is not finite, or none changed.
    """
    wanted = encoder.weights
    shapes = [tuple(w.shape) for w in weights], [tuple(w.shape) for w in wanted]
    if shapes[0] != shapes[1]:
        differing = [f"{w.path} {t}, given {s}" for w, s, t in zip(wanted, *shapes, strict=False) if s != t]
        raise ValueError(
            f"{len(weights)} tensors for an encoder of {len(wanted)}"
            + (f"; {len(differing)} differ in shape: {'; '.join(differing[:3])}" if differing else "")
        )
    if not all(np.isfinite(w).all() for w in weights):
        raise ValueError("some weights are not finite: the pretraining diverged. Lower its learning rate.")
    before = encoder.get_weights()
    encoder.set_weights(list(weights))
    after = encoder.get_weights()
    changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
    if not any(changed):
        raise ValueError("no weight changed: the encoder holds these weights already.")
    return sum(changed)
