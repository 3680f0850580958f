"""The full-size network and its training step in Keras on JAX, plainly written and tuned; see `benchmarks/gpu_step.py`.

What bounds the plain one is the traffic of its large maps, and pooling, whose gradient XLA scatters element by element.
The tuned one is the same function:

- Pooling is the maximum of four strided maps, which XLA joins with the normalisation into one pass each way.
- The first convolution, of one channel, becomes a product of matrices: the 16 pixels around each cell of 2 x 2 give all
  four answers of that cell. Its batch statistics follow from the 16 x 16 moments of those pixels, so no pass over its
  largest map is needed for them, and the normalisation is folded into the kernel.
"""

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
from keras import layers, ops

SLOPE, EPSILON, MOMENTUM = 0.1, 1e-5, 0.9
EPSILON_ADAM = 1e-10  # Keras and PyTorch place it differently; so small, it is the same


class BatchStatistics(layers.Layer):
    """What batch normalisation keeps: scale and shift of `channels`, and running moments."""

    def add_statistics(self, channels: int) -> None:
        """Called by `build`."""
        whole = {"shape": (channels,), "autocast": False}  # float32 also where the maps are bfloat16
        self.gamma = self.add_weight(initializer="ones", name="gamma", **whole)
        self.beta = self.add_weight(initializer="zeros", name="beta", **whole)
        self.moving_mean = self.add_weight(initializer="zeros", name="moving_mean", trainable=False, **whole)
        self.moving_variance = self.add_weight(initializer="ones", name="moving_variance", trainable=False, **whole)

    def affine(self, moments: Callable[[], tuple[Any, Any]], training: bool | None) -> tuple[Any, Any]:
        """(scale, shift) in float32. `moments` gives mean and variance of the batch, (C) each."""
        mean, variance = moments() if training else (self.moving_mean.value, self.moving_variance.value)
        if training:
            for kept, seen in ((self.moving_mean, mean), (self.moving_variance, variance)):
                kept.assign(MOMENTUM * kept.value + (1.0 - MOMENTUM) * ops.stop_gradient(seen))
        scale = self.gamma.value * ops.rsqrt(variance + EPSILON)
        return scale, self.beta.value - scale * mean


class NormalizePool(BatchStatistics):
    """Batch normalisation, maximum over cells of 2 x 2, leaky ReLU. (N,H,W,C) -> (N,H/2,W/2,C)."""

    def build(self, input_shape: Any) -> None:
        """Statistics only."""
        self.add_statistics(input_shape[-1])

    def call(self, x: Any, training: bool | None = None) -> Any:
        """One pass for the moments, one for the rest."""

        def moments() -> tuple[Any, Any]:
            wide = ops.cast(x, "float32")
            mean = ops.mean(wide, axis=(0, 1, 2))
            return mean, ops.mean(wide * wide, axis=(0, 1, 2)) - mean * mean

        scale, shift = self.affine(moments, training)
        x = ops.cast(ops.cast(x, "float32") * scale + shift, self.compute_dtype)
        cells = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return ops.leaky_relu(highest(cells), SLOPE)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Half the rows and columns."""
        return (input_shape[0], input_shape[1] // 2, input_shape[2] // 2, input_shape[3])


class FirstBlock(BatchStatistics):
    """3 x 3 convolution of one channel, batch normalisation, maximum over 2 x 2, leaky ReLU. Sides must be even."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        taps = np.zeros((4, 4, 4, 9), "float32")  # pixel of the patch (4,4), pixel of the cell, tap
        for cell in range(4):
            for tap in range(9):
                taps[cell // 2 + tap // 3, cell % 2 + tap % 3, cell, tap] = 1.0
        self.taps = taps.reshape(16, 4, 9)

    def build(self, input_shape: Any) -> None:
        """The kernel of a plain convolution."""
        self.kernel = self.add_weight(shape=(3, 3, 1, self.channels), autocast=False, name="kernel")
        self.add_statistics(self.channels)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(N,H,W,1) -> (N,H/2,W/2,C)."""
        height, width = x.shape[1:3]
        padded = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        pixels = [padded[:, r : r + height : 2, c : c + width : 2] for r in range(4) for c in range(4)]
        patches = ops.concatenate(pixels, axis=-1)  # (N,H/2,W/2,16)
        kernel = ops.reshape(self.kernel.value, (9, self.channels))
        wide = ops.einsum("pct,tk->pck", ops.convert_to_tensor(self.taps), kernel)  # (16,4,C)
        scale, shift = self.affine(lambda: self._moments(patches, wide), training)
        folded = ops.cast(ops.reshape(wide * scale, (16, 4 * self.channels)), self.compute_dtype)
        y = ops.matmul(patches, folded)  # (N,H/2,W/2,4·C)
        y = highest([y[..., i * self.channels : (i + 1) * self.channels] for i in range(4)])
        return ops.leaky_relu(y + ops.cast(shift, self.compute_dtype), SLOPE)

    @staticmethod
    def _moments(patches: Any, wide: Any) -> tuple[Any, Any]:
        """Mean and variance of all that the kernel gives, from the moments of the pixels; (C) each, float32."""
        flat = ops.cast(ops.reshape(patches, (-1, 16)), "float32")
        count = flat.shape[0] if flat.shape[0] is not None else ops.shape(flat)[0]
        first, second = ops.mean(flat, axis=0), ops.matmul(ops.transpose(flat), flat) / count
        mean = ops.mean(ops.einsum("p,pck->ck", first, wide), axis=0)
        square = ops.mean(ops.einsum("pck,pq,qck->ck", wide, second, wide), axis=0)
        return mean, square - mean * mean

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Half the rows and columns."""
        return (input_shape[0], input_shape[1] // 2, input_shape[2] // 2, self.channels)


def highest(maps: list[Any]) -> Any:
    """The maximum of four maps."""
    return ops.maximum(ops.maximum(maps[0], maps[1]), ops.maximum(maps[2], maps[3]))


def build(shape: tuple[int, ...], widths: tuple[int, ...], heads: int, units: int, tuned: bool) -> keras.Model:
    """Frames (B,T,H,W,1) to (B,1); B is fixed by `shape`."""
    batch, time, height, width, _ = shape
    frames = keras.Input(batch_shape=shape)
    x = ops.reshape(frames, (batch * time, height, width, 1))
    for i, channels in enumerate(widths):
        if tuned and i == 0:
            x = FirstBlock(channels)(x)
            continue
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
        if tuned:
            x = NormalizePool()(x)
        else:
            x = layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)(x)
            x = layers.MaxPooling2D(2)(layers.LeakyReLU(SLOPE)(x))
    x = ops.reshape(layers.GlobalAveragePooling2D()(x), (batch, time, widths[-1]))
    x = x + layers.MultiHeadAttention(heads, widths[-1] // heads, flash_attention=False)(x, x)
    x = layers.LeakyReLU(SLOPE)(layers.Dense(units)(layers.GlobalAveragePooling1D()(x)))
    return keras.Model(frames, layers.Dense(1, dtype="float32")(x))


def make_step(
    weights: list[np.ndarray], frames: np.ndarray, target: np.ndarray, heads: int, half: bool, tuned: bool
) -> tuple[Callable[[], Any], Callable[[], None]]:
    """A training step on one batch, compiled whole, its state given over to the next; and what waits for the device."""
    keras.config.set_dtype_policy("mixed_bfloat16" if half else "float32")
    widths = tuple(w.shape[-1] for w in weights if w.ndim == 4)
    model = build(frames.shape, widths, heads, weights[-2].shape[0], tuned)
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value.reshape(variable.shape))
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=1e-4, epsilon=EPSILON_ADAM)
    optimizer.build(model.trainable_variables)
    images, truth = jax.device_put(frames), jax.device_put(target)

    def loss_of(trained: Any, other: Any) -> tuple[Any, Any]:
        prediction, other = model.stateless_call(trained, other, images, training=True)
        return ops.mean(ops.square(prediction - truth)), other

    def one(state: Any) -> tuple[Any, Any]:
        trained, other, slots = state
        (loss, other), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, other)
        trained, slots = optimizer.stateless_apply(slots, gradients, trained)
        return loss, (trained, other, slots)

    compiled = jax.jit(one, donate_argnums=0)
    held = [
        jax.tree.map(
            lambda v: v.value.copy(),
            (list(model.trainable_variables), list(model.non_trainable_variables), list(optimizer.variables)),
        )
    ]

    def step() -> Any:
        loss, held[0] = compiled(held[0])
        return loss

    return step, lambda: jax.block_until_ready(held[0])
