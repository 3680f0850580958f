"""Samples to batches for `model.fit`: shuffled by (seed, epoch), so that a resumed run sees the same order."""

from typing import Any

import keras
import numpy as np

from cloudml_tf.data.samples import Samples
from cloudml_tf.data.unlabelled import FrameChunks
from cloudml_tf.settings import Augmentation


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, standardised target[, sample weight]).

    Args:
        samples: the sequences.
        target: (n,) standardised labels.
        batch_size: sequences a batch. A smaller last batch is dropped while shuffling (its variance means little).
        seed: of the order and the augmentation; None keeps one fixed order and augments nothing.
        augmentation: random changes of training sequences.
        frame_std: (C,) the training std of raw radiance, the unit of `augmentation.noise_std`.
        across_track_axis: "rows" or "columns" of the image.
        neighbours: keep neighbours in time in one batch, and mix the batches only.
    """

    def __init__(
        self,
        samples: Samples,
        target: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        frame_std: np.ndarray | None = None,
        across_track_axis: str = "rows",
        neighbours: bool = False,
    ) -> None:
        super().__init__(workers=1)
        self.samples, self.target, self.batch_size = samples, target, batch_size
        self.neighbours = neighbours
        self.seed, self.augmentation, self.frame_std = seed, augmentation, frame_std
        self.across_track_axis = across_track_axis
        self.weighted = bool(np.any(samples.weight != 1.0)) and seed is not None
        self.set_epoch(0)

    def variance(self) -> float:
        """Variance of the targets as the loss weighs them."""
        weight = self.samples.weight if self.weighted else np.ones(len(self.samples))
        mean = np.average(self.target, weights=weight)
        return float(np.average((self.target - mean) ** 2, weights=weight))

    def set_epoch(self, epoch: int) -> None:
        """Put the order of that epoch in place."""
        self.epoch = epoch
        key = [0, 0] if self.seed is None else [self.seed, epoch]
        # Also without a seed the order is mixed: a batch of neighbouring frames has next to no variance.
        rng = np.random.default_rng(key)
        self.order = self._batchwise(rng) if self.neighbours else rng.permutation(len(self.samples))

    def _batchwise(self, rng: np.random.Generator) -> np.ndarray:
        """Samples in their own order within a batch, the batches mixed; a rest that fills no batch comes last."""
        whole = len(self.samples) // self.batch_size * self.batch_size
        batches = np.arange(whole).reshape(-1, self.batch_size)
        return np.concatenate([rng.permutation(batches).ravel(), np.arange(whole, len(self.samples))])

    def probe(self, size: int = 64) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """A fixed batch, spread evenly over the samples and not augmented, to look into a network with."""
        chosen = np.linspace(0, len(self.samples) - 1, min(size, len(self.samples))).astype(int)
        return self.samples.inputs(chosen), self.target[chosen][:, None]

    def __len__(self) -> int:
        whole, rest = divmod(len(self.samples), self.batch_size)
        return max(whole, 1) if self.seed is not None else whole + bool(rest)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        inputs = self.samples.inputs(chosen)
        if self.augmentation is not None and self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch, number])
            inputs = augment(inputs, self.augmentation, rng, self.samples.nadir, self.frame_std, self.across_track_axis)
        target = self.target[chosen][:, None]
        return (inputs, target, self.samples.weight[chosen]) if self.weighted else (inputs, target)


class Inputs(keras.utils.PyDataset):
    """The inputs of samples in their order, for `model.predict`.

    Args:
        samples: the sequences.
        batch_size: sequences a batch.
    """

    def __init__(self, samples: Samples, batch_size: int = 256) -> None:
        super().__init__(workers=1)
        self.samples, self.batch_size = samples, batch_size

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray]]:
        first = number * self.batch_size
        return (self.samples.inputs(slice(first, first + self.batch_size)),)


class FrameBatches(keras.utils.PyDataset):
    """Batches of frames without targets, for pretraining.

    Args:
        chunks: sequences of frames.
        batch_size: sequences a batch.
        seed: of the order and the augmentation; None takes a fixed, even draw and augments nothing.
        per_epoch: sequences an epoch, drawn anew each time; None is all of them.
        augmentation: mirror images, gain and noise, as for labelled sequences. No label says where nadir is, so images
            are mirrored about the middle.
        across_track_axis: "rows" or "columns" of the image.
    """

    def __init__(
        self,
        chunks: FrameChunks,
        batch_size: int,
        seed: int | None = None,
        per_epoch: int | None = None,
        augmentation: Augmentation | None = None,
        across_track_axis: str = "rows",
    ) -> None:
        super().__init__(workers=1)
        self.chunks, self.seed, self.augmentation = chunks, seed, augmentation
        self.count = min(per_epoch or len(chunks), len(chunks))
        self.batch_size = min(batch_size, self.count)
        self.across_track_axis = across_track_axis
        height, width = chunks.table.shape[1:3]
        self.middle = (height // 2, width // 2)
        sample = chunks.table[chunks.index[:: max(len(chunks) // 64, 1)]]
        self.frame_std = sample.std(axis=(0, 1, 2, 3), dtype="float64")
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the sequences of that epoch."""
        self.epoch = epoch
        if self.seed is None:
            self.order = np.linspace(0, len(self.chunks) - 1, self.count).astype(int)
        else:
            self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.chunks))[: self.count]

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        return whole + bool(rest and self.seed is None)

    def __getitem__(self, number: int) -> tuple[np.ndarray]:
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        frames = self.chunks.frames(chosen)
        if self.augmentation is not None and self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch, number])
            settings, axis = self.augmentation, self.across_track_axis
            frames = augment({"frames": frames}, settings, rng, self.middle, self.frame_std, axis)["frames"]
        return (frames,)


class EpochOrder(keras.callbacks.Callback):
    """Tells the batches which epoch it is."""

    def __init__(self, batches: Batches | FrameBatches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the first batch is drawn."""
        self.batches.set_epoch(epoch)


def augment(
    inputs: dict[str, np.ndarray],
    settings: Augmentation,
    rng: np.random.Generator,
    nadir: tuple[int, int],
    frame_std: np.ndarray | None = None,
    across_track_axis: str = "rows",
) -> dict[str, np.ndarray]:
    """Random mirror images, gain and noise of a batch. The label stays; the sun's azimuth is mirrored with the image.

    An across-track mirror turns the relative azimuth a into -a. An along-track mirror turns it into 180 - a and the
    flight round, so the frames of a sequence change order.
    """
    frames = inputs["frames"]  # (B,T,H,W,C)
    sun = inputs.get("sun_angles_deg")
    features = inputs.get("features")
    count = len(frames)
    sun = None if sun is None else sun.copy()
    across = 2 if across_track_axis == "rows" else 3
    if settings.mirror_across_track:
        flip = rng.random(count) < 0.5
        frames = _mirrored(frames, flip, across, nadir[across - 2])
        if sun is not None:
            sun[flip, :, 1] *= -1.0
    if settings.mirror_along_track:
        flip = rng.random(count) < 0.5
        along = 5 - across
        frames = _mirrored(frames, flip, along, nadir[along - 2])
        frames[flip] = frames[flip, ::-1]
        if sun is not None:
            sun[flip, :, 1] = 180.0 - sun[flip, :, 1]
            sun[flip] = sun[flip, ::-1]
        if features is not None:
            features = features.copy()
            features[flip] = features[flip, ::-1]
    if settings.gain_std:
        gain = np.exp(settings.gain_std * rng.standard_normal((count, 1, 1, 1, 1)))
        frames = frames * gain.astype("float32")
    if settings.noise_std and frame_std is not None:
        noise = rng.standard_normal(frames.shape, dtype="float32")
        frames = frames + noise * np.asarray(settings.noise_std * frame_std, "float32")
    changed = {"frames": frames, "sun_angles_deg": sun, "features": features}
    return {name: values for name, values in changed.items() if values is not None}


def _mirrored(frames: np.ndarray, flip: np.ndarray, axis: int, nadir: int) -> np.ndarray:
    """Mirror the chosen sequences about the nadir pixel, which stays; the border pixel fills what is missing."""
    length = frames.shape[axis]
    source = np.clip(2 * nadir - np.arange(length), 0, length - 1)
    out = frames.copy()
    out[flip] = np.take(frames[flip], source, axis=axis)
    return out
