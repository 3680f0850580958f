"""Scenes to batches for `model.fit`: shifted, mirrored and shuffled by (seed, epoch, batch)."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.data import SceneFile
from cloudml_tf.config.schema import Config
from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scene_preparation import PreparedScenes, levels_step, scene_file
from cloudml_tf.data.scenes import Scenes

VALIDATION_BATCH = 10
Rng = np.random.Generator


class SceneBatches(keras.utils.PyDataset):
    """Batches of (inputs, standardised target, weight), maps of (b,H,W).

    Args:
        scenes: of one part.
        scaling: of the target.
        weight: (n,H,W) of each pixel, 0 where it has no label.
        batch_size: scenes a batch. A smaller last batch is dropped while shuffling.
        changes: makes of a batch (frames, target, weight) another one like it; None leaves it as it is.
        seed: of the order and the changes; None keeps the order and changes nothing.
        per_epoch: scenes an epoch; each comes once before one comes again. None is all of them, once.
        workers: threads that draw batches.
    """

    def __init__(
        self,
        scenes: Scenes,
        scaling: TargetScaling,
        weight: np.ndarray,
        batch_size: int,
        changes: "MapAugmentation | None" = None,
        seed: int | None = None,
        per_epoch: int | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers)
        self.frames, self.weight = scenes.frames, weight
        self.target = np.where(weight > 0, scaling.standardise(scenes.label), 0.0).astype("float32")
        self.changes, self.seed = changes, seed
        self.count = per_epoch or len(scenes)
        self.batch_size = min(batch_size, self.count)
        self.set_epoch(0)

    def variance(self) -> float:
        """Variance of the targets as the loss weighs them."""
        mean = np.average(self.target, weights=self.weight)
        return float(np.average((self.target - mean) ** 2, weights=self.weight))

    def set_epoch(self, epoch: int) -> None:
        """Put the order of that epoch in place."""
        self.epoch = epoch
        n = len(self.frames)
        if self.seed is None:
            self.order = np.arange(n)
            return
        rng = np.random.default_rng([self.seed, epoch])
        self.order = np.concatenate([rng.permutation(n) for _ in range(-(-self.count // n))])[: self.count]

    def probe(self, size: int = 2) -> tuple[dict[str, np.ndarray], Any]:
        """A few scenes as they are, to look into a network with; their targets are a pair with their weights."""
        return {"frames": self.frames[:size]}, (self.target[:size], self.weight[:size])

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        return max(whole, 1) if self.seed is not None else whole + bool(rest)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        batch = self.frames[chosen], self.target[chosen], self.weight[chosen]
        if self.changes is not None and self.seed is not None:
            batch = self.changes(*batch, rng=np.random.default_rng([self.seed, self.epoch, number]))
        frames, target, weight = batch
        return {"frames": frames}, target, weight


class SceneInputs(keras.utils.PyDataset):
    """The inputs of scenes in their order, for `model.predict`."""

    def __init__(self, frames: np.ndarray, batch_size: int = VALIDATION_BATCH) -> None:
        super().__init__(workers=1)
        self.frames, self.batch_size = frames, batch_size

    def __len__(self) -> int:
        return -(-len(self.frames) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray]]:
        return ({"frames": self.frames[number * self.batch_size : (number + 1) * self.batch_size]},)


class MapAugmentation:
    """Random changes of scenes that leave what is true of each pixel.

    Where scenes are periodic they are shifted along both axes; where they end, a window may be cut out around a
    labelled pixel. Mirror images turn the axis across the sun's, so that light still comes from the same side. Gain and
    noise change the images alone, not channels of one number a scene.

    Args:
        augmentation, scenes: of the configuration.
        frame_std: (C,) of the channels.
        window: (rows, columns) that are cut out; None leaves whole scenes.
        single: channels of one number a scene.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        scenes: SceneFile,
        frame_std: np.ndarray,
        window: tuple[int, int] | None = None,
        single: Sequence[int] = (),
    ) -> None:
        self.augmentation, self.periodic, self.window = augmentation, scenes.periodic, window
        self.mirrored = across_sun(scenes)
        self.image = ~np.isin(np.arange(len(frame_std)), single)  # (C,)
        self.frame_std = frame_std * self.image

    def __call__(
        self, frames: np.ndarray, target: np.ndarray, weight: np.ndarray, rng: Rng
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(b,H,W,C), (b,H,W), (b,H,W) -> the same."""
        maps = np.concatenate([frames, target[..., None], weight[..., None]], axis=-1)
        changed = np.stack([self._moved(each, rng) for each in maps])
        frames, settings = changed[..., :-2], self.augmentation
        if settings.gain_std:
            gain = np.exp(settings.gain_std * rng.standard_normal((len(frames), 1, 1, 1)))
            frames = frames * np.where(self.image, gain, 1.0).astype("float32")
        if settings.noise_std:
            noise = rng.standard_normal(frames.shape, dtype="float32")
            frames = frames + noise * (settings.noise_std * self.frame_std).astype("float32")
        return np.ascontiguousarray(frames), changed[..., -2], changed[..., -1]

    def _moved(self, maps: np.ndarray, rng: Rng) -> np.ndarray:
        if self.augmentation.mirror_across_track and rng.random() < 0.5:
            maps = np.flip(maps, axis=0 if self.mirrored == "rows" else 1)
        if self.periodic:
            maps = np.roll(maps, rng.integers(maps.shape[:2]), axis=(0, 1))
        return maps if self.window is None else self._cut(maps, self.window, rng)

    @staticmethod
    def _cut(maps: np.ndarray, window: tuple[int, int], rng: Rng) -> np.ndarray:
        """A window that holds some labelled pixel, anywhere in it: labels of one line then stand at every row."""
        labelled = np.argwhere(maps[..., -1] > 0)
        pixel, size = labelled[rng.integers(len(labelled))], np.asarray(window)
        least, most = np.maximum(pixel - size + 1, 0), np.minimum(pixel, np.asarray(maps.shape[:2]) - size)
        row, column = rng.integers(least, most + 1)
        return maps[row : row + window[0], column : column + window[1]]


def window_of(config: Config, frame_shape: tuple[int, int, int]) -> tuple[int, int] | None:
    """(rows, columns) of a training image by augmentation.window, as the network can halve them; None for all."""
    share, step = config.augmentation.window, levels_step(config)
    if share is None:
        return None
    rows, columns = (min(max(round(share * side / step), 1) * step, side) for side in frame_shape[:2])
    return rows, columns


def across_sun(scenes: SceneFile) -> str:
    """The image axis that mirror images turn round."""
    return "rows" if scenes.sun_axis == "columns" else "columns"


def training_weight(scenes: Scenes, config: Config) -> np.ndarray:
    """(n,H,W): `overweight.factor` for high labels and for all of the named scenes or groups."""
    rule = config.overweight
    chosen = np.isin(scenes.split_names, rule.flights)[:, None, None] & np.ones_like(scenes.seen)
    if rule.threshold is not None:
        chosen |= scenes.label >= rule.threshold
    return (scenes.weight * np.where(chosen, rule.factor, 1.0)).astype("float32")


def scene_batches(
    config: Config, prepared: PreparedScenes
) -> tuple[SceneBatches, SceneBatches, SceneInputs, Callable[[Any], np.ndarray]]:
    """Shuffled and changed batches of the training part; the validation part in its order; its inputs alone; and what
    makes of its maps numbers in the order of its labels."""
    train, val, target = prepared.parts["train"], prepared.parts["val"], prepared.scaling.target
    frame_std = train.frames.std(axis=(0, 1, 2), dtype="float64")
    batches = SceneBatches(
        train,
        target,
        training_weight(train, config),
        config.training.batch_size,
        MapAugmentation(
            config.augmentation, scene_file(config), frame_std, window_of(config, train.frame_shape), train.single
        ),
        config.seed,
        config.training.sequences_per_epoch,
        config.training.data_threads,
    )
    validation = SceneBatches(val, target, val.weight, VALIDATION_BATCH)
    return batches, validation, SceneInputs(val.frames), lambda maps: np.asarray(maps)[val.seen]
