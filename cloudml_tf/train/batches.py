"""Examples to batches for `model.fit`: shuffled by (seed, epoch), so that a resumed run sees the same order."""

from typing import Any

import keras
import numpy as np

from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.augmentation import Augment, SequenceAugmentation
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.unlabelled import FrameChunks
from cloudml_tf.nn.heads import POINT

PROBED_PIXELS = 2**17  # of the fixed batch that looks into a network: 64 sequences of small frames, 2 large scenes


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, standardised target[, weight]), of sequences or of scenes.

    Args:
        examples: of one split.
        target: (n, *P) standardised labels, 0 where there is none.
        batch_size: examples in a batch. A smaller last batch is dropped while shuffling: its variance means little.
        seed: of the order and the augmentation; None keeps one fixed order and augments nothing.
        augment: random changes of training batches.
        neighbours: keep neighbours in time in one batch, and shuffle only the batches.
        run_length: above 1, so many neighbours in time are drawn together, and a batch holds each of their frames once,
            for a network of `models.share_frames`.
        weight: (n, *P), 0 where there is no label; without it, no batch has weights.
        per_epoch: examples in an epoch, drawn for each epoch; each comes once before one comes again. None is all.
        workers: threads that draw batches.
    """

    def __init__(
        self,
        examples: Examples,
        target: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        augment: Augment | None = None,
        neighbours: bool = False,
        run_length: int = 1,
        weight: np.ndarray | None = None,
        per_epoch: int | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers)
        self.examples, self.batch_size = examples, batch_size
        self.target, self.weighted = with_locations(target), weight is not None  # (n,1), (n,P) or (n,H,W)
        self.weight = np.ones_like(self.target) if weight is None else with_locations(weight)
        self.count = per_epoch or len(examples)
        if neighbours or run_length > 1:
            self.count = min(self.count, len(examples))  # only a plain shuffle goes round more than once
        self.neighbours, self.run_length, self.seed, self.augment = neighbours, run_length, seed, augment
        self.set_epoch(0)

    def variance(self) -> float:
        """Variance of the targets as the loss weighs them."""
        mean = np.average(self.target, weights=self.weight)
        return float(np.average((self.target - mean) ** 2, weights=self.weight))

    def set_epoch(self, epoch: int) -> None:
        """Put the order of that epoch in place."""
        self.epoch = epoch
        # Also without a seed the order is mixed: a batch of neighbouring frames has next to no variance.
        rng = np.random.default_rng([0, 0] if self.seed is None else [self.seed, epoch])
        self.run = np.zeros(max(self.count, len(self.examples)), int)
        if self.run_length > 1:
            self.order, self.run = in_runs(self.examples, self.run_length, rng)
        elif self.neighbours:
            self.order = in_batches(len(self.examples), self.batch_size, rng)
        else:
            rounds = -(-self.count // len(self.examples))
            self.order = np.concatenate([rng.permutation(len(self.examples)) for _ in range(rounds)])
        self.order, self.run = self.order[: self.count], self.run[: self.count]

    def probe(self) -> tuple[dict[str, np.ndarray], Any]:
        """A fixed batch, spread evenly over the examples and not augmented, to look into a network with.

        Its targets are a pair with their weights, where there are several locations.
        """
        chosen = probed(len(self.examples), self.examples.frame_shape)
        inputs = self.examples.shared_inputs(chosen) if self.run_length > 1 else self.examples.inputs(chosen)
        target = self.target[chosen]
        return inputs, target if target.shape[1:] == (1,) else (target, self.weight[chosen])

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        return max(whole, 1) if self.seed is not None else whole + bool(rest)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        here = slice(number * self.batch_size, (number + 1) * self.batch_size)
        chosen, run = self.order[here], self.run[here]
        shared = self.run_length > 1
        inputs = self.examples.shared_inputs(chosen, run) if shared else self.examples.inputs(chosen)
        target, weight = self.target[chosen], self.weight[chosen]
        if self.augment is not None and self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch, number])
            inputs, target, weight = self.augment(inputs, target, weight, rng, run)
        inputs = few_shapes(inputs) if shared else inputs
        if not self.weighted:
            return inputs, target
        return inputs, target, weight[:, 0] if weight.shape[1:] == (1,) else weight


class Inputs(keras.utils.PyDataset):
    """The inputs of examples in their order, for a prediction.

    Args:
        examples: sequences or scenes.
        batch_size: examples in a batch; as many as `Examples.batch_size` by default.
        shared: each frame once, for a network of `models.share_frames`.
    """

    def __init__(self, examples: Examples, batch_size: int | None = None, shared: bool = False) -> None:
        super().__init__(workers=1)
        self.examples, self.batch_size, self.shared = examples, batch_size or examples.batch_size, shared

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray]]:
        here = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return (few_shapes(self.examples.shared_inputs(here)) if self.shared else self.examples.inputs(here),)


def probed(count: int, frame_shape: tuple[int, ...]) -> np.ndarray:
    """Which of so many examples make a fixed batch: spread evenly, 64 at most and 2 at least."""
    size = int(np.clip(PROBED_PIXELS // np.prod(frame_shape[-3:-1]), 2, 64))
    return np.linspace(0, count - 1, min(size, count)).astype(int)


def with_locations(values: np.ndarray) -> np.ndarray:
    """(n,) -> (n,1), as a network predicts it; maps and lines as they are."""
    return values[:, None] if values.ndim == 1 else values


def few_shapes(inputs: dict[str, np.ndarray], multiple: int = 64) -> dict[str, np.ndarray]:
    """Shared inputs; on JAX, which compiles for each shape anew, with further frames up to a multiple."""
    missing = -len(inputs["frames"]) % multiple
    if keras.backend.backend() != "jax" or not missing:
        return inputs
    chosen = inputs["chosen_frames"]
    padded = {name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for name, x in inputs.items()}
    return {**padded, "chosen_frames": chosen}


def point_values(output: np.ndarray, examples: Examples) -> np.ndarray:
    """A network's output (n,1), (n,1+K), (n,P) or (n,H,W) -> the value at each location that has a label, (n, *P)."""
    return output[:, POINT] if examples.label.ndim == 1 else output


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
            augment = SequenceAugmentation(self.augmentation, self.middle, self.frame_std, self.across_track_axis)
            frames = augment.changed({"frames": frames}, rng)["frames"]
        return (frames,)


def epoch_order(batches: Any) -> keras.callbacks.Callback:
    """A callback that tells batches, any that have `set_epoch`, which epoch it is before the first one is drawn."""
    return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs=None: batches.set_epoch(epoch))


def in_batches(count: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Examples in their own order within a batch, the batches shuffled; a rest that fills no batch comes last."""
    whole = count // batch_size * batch_size
    batches = np.arange(whole).reshape(-1, batch_size)
    return np.concatenate([rng.permutation(batches).ravel(), np.arange(whole, count)])


def in_runs(examples: Examples, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Runs of up to `length` neighbours of one gap-free segment, the runs shuffled: order (n,), run (n,) of each.

    Segments are cut at another place each time, so that not always the same neighbours meet.
    """
    segment = examples.segment
    offset = rng.integers(length, size=segment[-1] + 1)
    starts = np.searchsorted(segment, np.arange(segment[-1] + 1))
    inside = (np.arange(len(examples)) - starts[segment] + offset[segment]) // length
    run = np.unique(np.stack([segment, inside]), axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(rng.permutation(run.max() + 1)[run], kind="stable")
    return order, run[order]
