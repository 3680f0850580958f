"""Samples to batches for `model.fit`: shuffled by (seed, epoch), so that a resumed run sees the same order."""

from typing import Any

import keras
import numpy as np

from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.augmentation import augment
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.unlabelled import FrameChunks


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, standardised target[, sample weight]).

    Args:
        samples: the sequences.
        target: (n,) standardised labels, or (n,P) at several places.
        batch_size: sequences a batch. A smaller last batch is dropped while shuffling (its variance means little).
        seed: of the order and the augmentation; None keeps one fixed order and augments nothing.
        augmentation: random changes of training sequences.
        frame_std: (C,) the training std of raw radiance, the unit of `augmentation.noise_std`.
        across_track_axis: "rows" or "columns" of the image.
        neighbours: keep neighbours in time in one batch, and mix the batches only.
        run_length: above 1, so many neighbours in time are drawn together, and a batch holds each of their frames once,
            for a network of `models.share_frames`.
        weight: (n,P), 0 where a place has no label; else the samples' own, in training.
        per_epoch: sequences an epoch, drawn anew each time; None is all of them.
        workers: threads that draw batches.
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
        run_length: int = 1,
        weight: np.ndarray | None = None,
        per_epoch: int | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers)
        self.samples, self.batch_size = samples, batch_size
        self.target = target.reshape(len(samples), -1)  # (n,1) or (n,P)
        self.count = min(per_epoch or len(samples), len(samples))
        self.neighbours, self.run_length = neighbours, run_length
        self.seed, self.augmentation, self.frame_std = seed, augmentation, frame_std
        self.across_track_axis = across_track_axis
        self.weight = samples.weight[:, None] if weight is None else weight
        self.weighted = weight is not None or (bool(np.any(samples.weight != 1.0)) and seed is not None)
        self.set_epoch(0)

    def variance(self) -> float:
        """Variance of the targets as the loss weighs them."""
        weight = self.weight if self.weighted else np.ones_like(self.target)
        mean = np.average(self.target, weights=weight)
        return float(np.average((self.target - mean) ** 2, weights=weight))

    def set_epoch(self, epoch: int) -> None:
        """Put the order of that epoch in place."""
        self.epoch = epoch
        key = [0, 0] if self.seed is None else [self.seed, epoch]
        # Also without a seed the order is mixed: a batch of neighbouring frames has next to no variance.
        rng = np.random.default_rng(key)
        self.run = np.zeros(len(self.samples), int)
        if self.run_length > 1:
            self.order, self.run = in_runs(self.samples, self.run_length, rng)
        else:
            self.order = self._batchwise(rng) if self.neighbours else rng.permutation(len(self.samples))
        self.order, self.run = self.order[: self.count], self.run[: self.count]

    def _batchwise(self, rng: np.random.Generator) -> np.ndarray:
        """Samples in their own order within a batch, the batches mixed; a rest that fills no batch comes last."""
        whole = len(self.samples) // self.batch_size * self.batch_size
        batches = np.arange(whole).reshape(-1, self.batch_size)
        return np.concatenate([rng.permutation(batches).ravel(), np.arange(whole, len(self.samples))])

    def probe(self, size: int = 64) -> tuple[dict[str, np.ndarray], Any]:
        """A fixed batch, spread evenly over the samples and not augmented, to look into a network with.

        Its targets are a pair with their weights, where these are a place each.
        """
        chosen = np.linspace(0, len(self.samples) - 1, min(size, len(self.samples))).astype(int)
        inputs = self.samples.inputs(chosen) if self.run_length == 1 else self.samples.shared_inputs(chosen)
        target = self.target[chosen]
        return inputs, target if self.weight.shape[1] == 1 else (target, self.weight[chosen])

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        return max(whole, 1) if self.seed is not None else whole + bool(rest)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        here = slice(number * self.batch_size, (number + 1) * self.batch_size)
        chosen, run = self.order[here], self.run[here]
        shared = self.run_length > 1
        inputs = self.samples.shared_inputs(chosen, run) if shared else self.samples.inputs(chosen)
        if self.augmentation is not None and self.seed is not None:
            rng, nadir = np.random.default_rng([self.seed, self.epoch, number]), self.samples.nadir
            inputs = augment(inputs, self.augmentation, rng, nadir, self.frame_std, self.across_track_axis, run)
        inputs = few_shapes(inputs) if shared else inputs
        if not self.weighted:
            return inputs, self.target[chosen]
        weight = self.weight[chosen]
        return inputs, self.target[chosen], weight[:, 0] if weight.shape[1] == 1 else weight


class Inputs(keras.utils.PyDataset):
    """The inputs of samples in their order, for `model.predict`.

    Args:
        samples: the sequences.
        batch_size: sequences a batch.
        shared: each frame once, for a network of `models.share_frames`.
    """

    def __init__(self, samples: Samples, batch_size: int = 256, shared: bool = False) -> None:
        super().__init__(workers=1)
        self.samples, self.batch_size, self.shared = samples, batch_size, shared

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray]]:
        here = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return (few_shapes(self.samples.shared_inputs(here)) if self.shared else self.samples.inputs(here),)


def few_shapes(inputs: dict[str, np.ndarray], multiple: int = 64) -> dict[str, np.ndarray]:
    """Shared inputs; on JAX, which compiles for each shape anew, with further frames up to a multiple."""
    missing = -len(inputs["frames"]) % multiple
    if keras.backend.backend() != "jax" or not missing:
        return inputs
    chosen = inputs["chosen_frames"]
    padded = {name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for name, x in inputs.items()}
    return {**padded, "chosen_frames": chosen}


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

    def __init__(self, batches: Any) -> None:  # any that have `set_epoch`
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the first batch is drawn."""
        self.batches.set_epoch(epoch)


def in_runs(samples: Samples, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples in runs of up to `length` neighbours of one gap-free piece, the runs mixed: order (n,), run (n,) of each.

    Pieces are cut at another place each time, lest the same neighbours always meet.
    """
    new = np.flatnonzero((np.diff(samples.flight) != 0) | (np.diff(samples.piece) != 0)) + 1
    starts = np.concatenate([[0], new]).astype(int)
    piece = np.searchsorted(starts, np.arange(len(samples)), side="right") - 1
    offset = rng.integers(length, size=len(starts))
    inside = (np.arange(len(samples)) - starts[piece] + offset[piece]) // length
    run = np.unique(np.stack([piece, inside]), axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(rng.permutation(run.max() + 1)[run], kind="stable")
    return order, run[order]
