"""What a training works on: batches of sequences, or of scenes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scene_preparation import PreparedScenes
from cloudml_tf.nn.heads import POINT
from cloudml_tf.nn.monitors import first_column
from cloudml_tf.train.batches import Batches, Inputs
from cloudml_tf.train.scene_batches import SceneBatches, scene_batches

VALIDATION_BATCH = 256


@dataclass(frozen=True)
class Loaders:
    """What a training works on.

    Args:
        batches, validation: of the two parts.
        shown: the inputs of the validation part, whose predictions are kept at chosen epochs.
        keep: makes of these predictions numbers in the order of the labels.
        weighted: whether each value has a weight of its own.
    """

    batches: Batches | SceneBatches
    validation: Batches | SceneBatches
    shown: keras.utils.PyDataset
    keep: Callable[[Any], np.ndarray] = first_column
    weighted: bool = False

    @classmethod
    def of(cls, config: Config, prepared: Prepared | PreparedScenes) -> "Loaders":
        """Of sequences or of scenes."""
        if isinstance(prepared, PreparedScenes):
            return cls(*scene_batches(config, prepared), weighted=True)
        shown = Inputs(prepared.parts["val"], shared=config.training.run_length > 1)
        parts = training_batches(config, prepared), validation_batches(config, prepared)
        return cls(*parts, shown, weighted=prepared.track is not None)


def training_batches(config: Config, prepared: Prepared) -> Batches:
    """Shuffled, augmented batches of the training part."""
    train, track = prepared.parts["train"], prepared.track
    training, standardise = config.training, prepared.scaling.target.standardise
    return Batches(
        train if track is None else track.samples,
        standardise(train.label) if track is None else _masked(standardise(track.label), track.weight),
        training.batch_size,
        seed=config.seed,
        augmentation=config.augmentation,
        frame_std=raw_frame_std(train),
        across_track_axis=config.data.camera.across_track_axis,
        neighbours=training.order == "flight",
        run_length=training.run_length,
        weight=None if track is None else track.weight,
        per_epoch=training.sequences_per_epoch or (None if track is None else len(train)),
        workers=training.data_threads,
    )


def validation_batches(config: Config, prepared: Prepared) -> Batches:
    """The validation part in one order. Along the track, nadir alone is validated."""
    val, track = prepared.parts["val"], prepared.track
    target = prepared.scaling.target.standardise(val.label)
    weight = None
    if track is not None:
        weight = np.zeros((len(val), len(track.offsets)), "float32")
        weight[:, POINT] = 1.0
        target = _masked(target[:, None], weight)
    return Batches(val, target, VALIDATION_BATCH, run_length=config.training.run_length, weight=weight)


def _masked(target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Targets with 0 where there is none: what is not a number would stay so under a weight of 0."""
    return np.where(weight > 0, target, 0.0).astype("float32")


def raw_frame_std(samples: Samples) -> np.ndarray:
    """(C,) std of raw radiance over the training frames (a sample of them): the unit of the noise augmentation."""
    rows = np.unique(samples.index)
    rows = rows[:: max(len(rows) // samples.rows_at_once(), 1)]
    return samples.table[rows].std(axis=(0, 1, 2), dtype="float64")
